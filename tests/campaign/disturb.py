"""Disturbances. Each kind is a function of a world, a random source and the end of the round."""
import contextlib, os, signal, subprocess, time

from workers import CONFLICT, CORRUPT, FULL, UNAVAILABLE
from world import kill_group, signal_one

STORE_MODES = ["refuse", "error", "busy", "hang", "slow", "cut"]


def pause(rng, most):
    time.sleep(rng.random() * most)


def suspend(world, rng, _end):
    """Suspends a command or the daemon, as Ctrl-Z does."""
    pause(rng, 2)
    with world.lock:
        commands = sorted(world.going)
    daemons = world.daemons()
    with world.disturbed("suspend"):
        if daemons and rng.random() < 0.4:
            pid = rng.choice(daemons)
            world.campaign.count("daemon suspended")
            signal_one(pid, signal.SIGSTOP)
            pause(rng, 3)
            signal_one(pid, signal.SIGCONT)
        elif commands:
            pid = rng.choice(commands)
            world.campaign.count("command suspended")
            kill_group(pid, signal.SIGSTOP)
            pause(rng, 6)
            kill_group(pid, signal.SIGCONT)


def daemon(world, rng, _end):
    """Kills the daemon, and mounts again."""
    pause(rng, 4)
    with world.disturbed("daemon"):
        for pid in world.daemons():
            world.campaign.count("daemon killed")
            signal_one(pid, signal.SIGKILL)
        pause(rng, 1)
        mount_again(world)


def mount_again(world):
    deadline = time.time() + 60
    while not world.is_mounted() and time.time() < deadline and not world.campaign.stopping:
        ran = world.mount()
        if ran.code != 0:
            time.sleep(0.3)


def full(world, rng, _end):
    """Fills the disk."""
    pause(rng, 4)
    path = world.path("disk/ballast")
    with world.disturbed("full"):
        world.campaign.count("disk filled")
        try:
            with open(path, "wb", buffering=0) as file:
                for size in (1 << 20, 1 << 16, 4096):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(bytes(size))
                pause(rng, 3)
        finally:
            os.remove(path)


def store(world, rng, _end):
    """Makes the store fail in some way."""
    if not world.remote:
        return time.sleep(1)
    pause(rng, 3)
    with world.disturbed("store"):
        mode = rng.choice(STORE_MODES)
        world.campaign.count(f"store: {mode}")
        world.store.mode = mode
        pause(rng, 5)
        world.store.mode = "fine"


class Flipped:
    """A changed byte, and how to undo the change."""

    def __init__(self, world, where, at):
        self.world, self.where, self.at = world, where, at
        self.was = self.get()
        self.put(self.was ^ 0x40)

    def get(self):
        if self.world.remote:
            return self.world.store.objects[self.where][self.at]
        with open(self.where, "rb") as file:
            file.seek(self.at)
            return file.read(1)[0]

    def put(self, byte):
        if self.world.remote:
            with self.world.store.lock:
                data = bytearray(self.world.store.objects[self.where])
                data[self.at] = byte
                self.world.store.objects[self.where] = bytes(data)
        else:
            with open(self.where, "r+b") as file:
                file.seek(self.at)
                file.write(bytes([byte]))

    def undo(self):
        # A byte that went meanwhile, or became a hole, stays so.
        with contextlib.suppress(OSError, KeyError, IndexError):
            if self.get() == self.was ^ 0x40:
                self.put(self.was)


class Removed:
    """A removed file of the store; it comes back if its pack is still there."""

    def __init__(self, world, where):
        self.world, self.where = world, where
        if world.remote:
            with world.store.lock:
                self.data = world.store.objects.pop(where)
        else:
            with open(where, "rb") as file:
                self.data = file.read()
            os.remove(where)

    def undo(self):
        pack = self.where.removesuffix(".idx") + ".pack"
        if self.world.remote:
            with self.world.store.lock:
                if pack in self.world.store.objects:
                    self.world.store.objects.setdefault(self.where, self.data)
        elif os.path.exists(pack) and not os.path.exists(self.where):
            with open(self.where, "wb") as file:
                file.write(self.data)


def flip(world, rng, _end):
    """Damages a pack."""
    hurt(world, rng, ".pack", False)


def index(world, rng, _end):
    """Damages or removes an index."""
    hurt(world, rng, ".idx", rng.random() < 0.5)


def hurt(world, rng, suffix, remove):
    pause(rng, 6)
    with world.disturbed("flip" if suffix == ".pack" else "index"):
        with contextlib.suppress(OSError, KeyError, IndexError, ValueError):
            chosen = rng.choice(world.store_files(suffix))
            size = len(world.store.objects[chosen]) if world.remote else os.path.getsize(chosen)
            world.damaged = True
            if remove:
                world.campaign.count("index removed")
                world.damage.append(Removed(world, chosen))
            else:
                world.campaign.count(f"byte of {suffix} flipped")
                world.damage.append(Flipped(world, chosen, rng.randrange(size)))
    pause(rng, 3)


def fsck(world, rng, _end):
    check(world, rng, [])


def repair(world, rng, _end):
    with world.disturbed("repair"):
        check(world, rng, ["--repair"])


def rebuild(world, rng, _end):
    pause(rng, 6)
    with world.disturbed("rebuild"):
        check(world, rng, ["--rebuild"])


def check(world, rng, how):
    pause(rng, 5)
    kill = rng.random() * 2 if "kill" in world.campaign.kinds and rng.random() < 0.3 else None
    world.campaign.count(" ".join(["fsck", *how]))
    ran = world.run(["fsck", *how], kill_after=kill)
    # Somebody is writing: fsck may report that and do nothing.
    fine = ran.killed or ran.code in (0, CONFLICT, -9)
    fine = fine or ran.code in (FULL, UNAVAILABLE) and world.excused({"full", "store", "suspend", "daemon"}, ran.began, ran.ended)
    fine = fine or ran.code == CORRUPT and world.damaged
    if not fine:
        text = (ran.out + ran.err).strip()[-500:]
        world.campaign.find(world, f"fsck {' '.join(how)}: exit {ran.code} beside others: {text}")


def bind(world, rng, _end):
    """Keeps a mount in use by a bind mount or a namespace, while it is unmounted and mounted
    again."""
    pause(rng, 4)
    target = world.path("bind")
    other = None
    with world.disturbed("bind"):
        world.campaign.count("bound elsewhere")
        if rng.random() < 0.5:
            subprocess.run(["mount", "--bind", world.mount_point, target], capture_output=True)
        else:
            other = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sleep", "1000"], env=world.env,
                                     start_new_session=True)
        pause(rng, 0.5)
        if rng.random() < 0.7:
            unmounted = world.run(["umount", world.mount_point], calm=True)
            if unmounted.code not in (0, CONFLICT) and not world.excused({"daemon", "suspend", "full"}, unmounted.began, unmounted.ended):
                world.campaign.find(world, f"umount: exit {unmounted.code}: {unmounted.err.strip()}")
            if "kill -9" in unmounted.err:
                world.campaign.find(world, f"umount advises a kill: {unmounted.err.strip()}")
            pause(rng, 1)
        if other:
            kill_group(other.pid, signal.SIGKILL)
            other.wait()
        else:
            subprocess.run(["umount", "-l", target], capture_output=True)
        mount_again(world)


KINDS = {"suspend": suspend, "daemon": daemon, "full": full, "store": store, "flip": flip, "index": index, "fsck": fsck,
         "repair": repair, "rebuild": rebuild, "bind": bind}
# The workers make these disturbances.
BESIDE = ["kill", "container", "disks", "programs"]


def undo(world):
    """Undoes all disturbances that are left."""
    for pid in list(world.going):
        kill_group(pid, signal.SIGCONT)
    for pid in world.daemons():
        signal_one(pid, signal.SIGCONT)
    if world.store:
        world.store.mode = "fine"
    while world.damage:
        world.damage.pop().undo()
