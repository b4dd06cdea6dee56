"""Users of a repository: they put, delete, prune, draft and read, and record what was
acknowledged."""
import errno, os, random, shutil, threading, time

from model import change, difference, digest, manifest, state_of

# Exit statuses (man artifactfs, EXIT STATUS).
NOT_FOUND, CONFLICT, CORRUPT, FULL, UNAVAILABLE = 10, 11, 13, 14, 15
# The disturbances that may make a command fail for now, and those by which it may find damage.
FOR_NOW = {"suspend", "full", "store", "repair", "rebuild", "flip", "index", "daemon", "bind"}
DAMAGE = {"flip", "index", "rebuild", "repair"}


class Worker:
    def __init__(self, world, name, rng):
        self.world, self.name, self.rng = world, name, rng
        self.model, self.campaign = world.model, world.campaign
        self.folder = world.path("work", name)
        os.makedirs(self.folder, exist_ok=True)

    def until(self, deadline):
        while time.time() < deadline and not self.campaign.stopping:
            self.step()
            time.sleep(self.rng.random() * 0.1)

    def drop(self):
        """Gives up, before damage is mended, what no good copy can be put of."""

    def settle(self):
        """Decides all that was left open, in calm, before versions are compared."""

    def look(self):
        """Compares the content of a draft, in calm, after versions were compared."""

    def pinned_bytes(self):
        """Returns the bytes that may live for this worker beside versions."""
        return 0

    def run(self, args, count):
        self.campaign.count(count)
        kill = None
        if "kill" in self.campaign.kinds and self.rng.random() < 0.25:
            kill = self.rng.random() * self.rng.choice([0.05, 0.3, 1.5])
        container = "container" in self.campaign.kinds and self.rng.random() < 0.2
        if container:
            self.campaign.count("in a container")
        ran = self.world.run(args, kill_after=kill, container=container)
        if ran.killed:
            self.campaign.count("killed")
        return ran

    def failed(self, ran, what, more=()):
        """Judges a command that failed."""
        if ran.killed or ran.code in more or ran.code in (-9, 137):
            return
        overlaps = lambda kinds: self.world.excused(kinds, ran.began, ran.ended)
        if ran.code in (CONFLICT, FULL, UNAVAILABLE, 1) and overlaps(FOR_NOW):
            return
        if ran.code == CORRUPT and (self.world.damaged or overlaps(DAMAGE)):
            return
        self.campaign.find(self.world, f"{what}: exit {ran.code}: {ran.err.strip()[-400:]}")

    def put(self, name, found):
        self.model.keep(self.folder, found)
        ran = self.run(["--json", "put", "-n", name, self.folder], "put")
        if ran.code == 0:
            answer = ran.json()["reference"]
            self.noted(self.model.acknowledge(name, number_of(answer), found))
            return
        self.model.perhaps(name, found)
        self.failed(ran, f"put {name}")

    def noted(self, contradiction):
        if contradiction:
            self.campaign.find(self.world, contradiction)

    def delete(self, name, number):
        # If two workers chose the same version, one deletion would fail with not found.
        if not self.model.begin_delete(name, number):
            return
        ran = self.run(["delete", f"{name}:v{number}", "--delete-aliases"], "delete")
        self.model.deleted(name, number, ran.code == 0)
        if ran.code != 0:
            self.failed(ran, f"delete {name}:v{number}")


class Putter(Worker):
    """A worker that puts versions of shared artifacts, deletes some, and gets some."""

    def step(self):
        name = f"p/a{self.rng.randrange(2)}"
        chosen = self.model.any_version(self.rng, [name])
        count = len(self.model.versions.get(name, {}))
        if chosen and self.rng.random() < (0.6 if count > 6 else 0.12):
            self.delete(*chosen)
        elif self.rng.random() < 0.75:
            if self.rng.random() < 0.1:
                shutil.rmtree(self.folder)
                os.makedirs(self.folder)
            change(self.folder, self.rng, self.rng.choice([1, 3, 12]))
            self.put(name, manifest(self.folder))
        else:
            self.get()

    def get(self):
        chosen = self.model.any_version(self.rng)
        if not chosen:
            return
        name, number = chosen
        wanted = self.model.of(name, number)
        target = self.world.path("got", self.name)
        shutil.rmtree(target, ignore_errors=True)
        ran = self.run(["get", f"{name}:v{number}", "--root", target], "get")
        if ran.code != 0:
            gone = (NOT_FOUND, CORRUPT, UNAVAILABLE) if self.model.is_ended(name, number) else ()
            self.failed(ran, f"get {name}:v{number}", gone)
        elif wanted != (got := manifest(target)):
            self.campaign.find(self.world, f"get {name}:v{number}: {difference(wanted, got)}")


class Pruner(Worker):
    """A worker that puts versions of an artifact of its own, and prunes them."""

    def step(self):
        name = "p/prune"
        known = sorted(self.model.versions.get(name, {}))
        if len(known) < 3 or self.rng.random() < 0.5:
            change(self.folder, self.rng, 2)
            self.put(name, manifest(self.folder))
            return
        for number in known:
            self.model.begin_delete(name, number)
        ran = self.run(["--json", "prune", name], "prune")
        if ran.code == 0:
            for reference in ran.json()["versions"]:
                self.model.deleted(name, number_of(reference), True)
        else:
            self.failed(ran, f"prune {name}")
        # A failed attempt may have deleted versions without reporting them.
        for number in known:
            if self.model.of(name, number) is not None:
                self.model.deleted(name, number, False)


class Drafter(Worker):
    """A worker that writes in a draft, and commits it."""

    def __init__(self, world, name, rng):
        super().__init__(world, name, rng)
        self.artifact = f"p/{name}"
        self.known = {}  # what is in the draft; None for a file that was being written when something failed

    def root(self):
        return os.path.join(self.world.staging, "p", self.name)

    def step(self):
        began = time.time()
        try:
            if not os.path.ismount(self.world.staging):
                return time.sleep(0.1)
            os.makedirs(self.root(), exist_ok=True)
            for _ in range(self.rng.randrange(1, 6)):
                self.write()
            self.write_file("stamp", self.rng.randbytes(16))
            if self.rng.random() < 0.5:
                self.commit()
        except OSError as error:
            self.campaign.count("draft failed")
            what = FOR_NOW | {"kill"}
            if not self.world.excused(what, began, time.time(), slack=3):
                self.campaign.find(self.world, f"draft {self.artifact}: {error}")
            time.sleep(0.3)

    def write(self):
        self.campaign.count("draft write")
        names = sorted(name for name, content in self.known.items() if content)
        if names and self.rng.random() < 0.2:
            name = self.rng.choice(names)
            self.known[name] = None
            os.remove(os.path.join(self.root(), name))
            del self.known[name]
        elif names and self.rng.random() < 0.15:
            old, new = self.rng.choice(names), f"r{self.rng.randrange(10)}"
            content = self.known[old]
            self.known[old] = self.known[new] = None
            os.rename(os.path.join(self.root(), old), os.path.join(self.root(), new))
            del self.known[old]
            self.known[new] = content
        else:
            size = self.rng.choice([0, 10, 5000, 70_000, 400_000])
            self.write_file(f"f{self.rng.randrange(20)}", self.rng.randbytes(size))

    def write_file(self, name, data):
        self.known[name] = None
        with open(os.path.join(self.root(), name), "wb") as file:
            file.write(data)
            file.flush()
            if self.rng.random() < 0.5:
                os.fsync(file.fileno())
        self.known[name] = digest(data)

    def pinned_bytes(self):
        return 4 << 20

    def look(self):
        """Compares the draft with what was written to it."""
        if not os.path.exists(self.root()):
            return {}
        found = manifest(self.root())
        for name, content in self.known.items():
            if content and found.get(name) != content:
                self.campaign.find(self.world, f"draft {self.artifact}: {name} is not what was written")
        for name in found:
            if name not in self.known:
                self.campaign.find(self.world, f"draft {self.artifact}: {name} was never written")
        self.known = dict(found)
        return found

    def commit(self):
        found = self.look()
        self.model.keep(self.root(), found)
        ran = self.run(["--json", "commit", self.artifact, "--wait=20"], "commit")
        if ran.code == 0:
            number = number_of(ran.json()["reference"])
            self.noted(self.model.acknowledge(self.artifact, number, found))
        else:
            self.model.perhaps(self.artifact, found)
            self.failed(ran, f"commit {self.artifact}")
        known = sorted(self.model.versions.get(self.artifact, {}))
        if len(known) > 4:
            self.delete(self.artifact, known[0])


class Reader(Worker):
    """A worker that reads versions through the mount."""

    def step(self):
        chosen = self.model.any_version(self.rng)
        if not chosen:
            return time.sleep(0.2)
        name, number = chosen
        wanted = self.model.of(name, number)
        if not wanted or not os.path.ismount(self.world.mount_point):
            return time.sleep(0.1)
        self.campaign.count("read")
        path = self.rng.choice(sorted(wanted))
        began = time.time()
        try:
            state = state_of(os.path.join(self.world.mount_point, f"{name}:v{number}", path))
        except OSError as error:
            ended = self.model.is_ended(name, number)
            excuse = self.world.damaged or self.world.excused(FOR_NOW, began, time.time(), slack=3)
            # The kernel is notified of a new name after the put has returned.
            new = error.errno == errno.ENOENT and self.campaign.lately(name, number)
            if not (ended or excuse or new):
                self.campaign.find(self.world, f"read {name}:v{number}/{path}: {error}")
            return
        if state != wanted[path]:
            self.campaign.find(self.world, f"WRONG BYTES through the mount: {name}:v{number}/{path}")


def number_of(reference):
    return int(reference.rsplit(":v", 1)[1])


def sub(rng):
    return random.Random(rng.getrandbits(64))


def guarded(campaign, world, work, *args):
    """Returns a thread whose end by an exception is a finding."""
    def all_of_it():
        try:
            work(*args)
        except Exception as error:  # The campaign's own errors are findings, too.
            if not campaign.stopping:
                import traceback
                campaign.find(world, f"{work.__qualname__}: {error!r}: {traceback.format_exc()[-600:]}")
    return threading.Thread(target=all_of_it, daemon=True, name=getattr(work, "__qualname__", "worker"))
