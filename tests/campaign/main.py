"""The campaign: worlds of rounds. Each round ends in calm, and everything is compared."""
import argparse, collections, os, random, shutil, signal, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import disturb
from model import difference, manifest
from programs import Programs
from workers import CONFLICT, CORRUPT, Drafter, Pruner, Putter, Reader, guarded, number_of, sub
from world import DISKS, World, read, where

ROUNDS_OF_A_WORLD = 6
# A pack's index and the ends of its holes take room beside what lives in it.
PACK_OVERHEAD_BYTES = 16 << 10
OVERHEAD_BYTES = 1 << 20
# The longest time in which readers and writers must notice the end of a round.
PATIENCE_SECONDS = 300


class Stop(Exception):
    """A request to end the campaign."""


class Campaign:
    def __init__(self, args):
        self.binary, self.keep, self.seed = os.path.realpath(args.binary), args.keep, args.seed
        self.kinds = args.kinds
        self.rng = random.Random(args.seed)
        self.deadline = time.time() + args.seconds
        self.counts, self.findings = collections.Counter(), []
        self.lock = threading.Lock()
        self.stopping = False
        self.world, self.round_findings = None, 0
        self.active = []  # the kinds of disturbance of this round
        self.rounds = self.hurt_rounds = 0

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def find(self, world, text):
        line = f"FINDING world {world.number} ({world.disk}{', S3' if world.remote else ''}) round {self.rounds + 1} ({','.join(self.active)}): {text}"
        with self.lock:
            self.findings.append(line)
            self.round_findings += 1
        print(line, flush=True)

    def lately(self, name, number):
        return self.world.model.times.get((name, number), 0) > time.time() - 5

    def go(self):
        number = 0
        while time.time() < self.deadline and not self.stopping:
            number += 1
            remote = self.rng.random() < 0.3
            disk = self.rng.choice(sorted(DISKS)) if "disks" in self.kinds else "ext4"
            self.world = World(self, number, remote, disk)
            try:
                self.in_world(self.world)
            finally:
                self.world.close()

    def in_world(self, world):
        rng = random.Random(self.rng.getrandbits(64))
        disturb.mount_again(world)
        kinds = [(Putter, "w0"), (Putter, "w1"), (Pruner, "w2"), (Drafter, "d0"), (Programs, "programs"),
                 (Reader, "r0"), (Reader, "r1")]
        people = [kind(world, name, sub(rng)) for kind, name in kinds if kind is not Programs or "programs" in self.kinds]
        for _ in range(ROUNDS_OF_A_WORLD):
            if time.time() >= self.deadline or self.stopping:
                break
            self.round_findings = 0
            self.disturbed_round(world, people, rng)
            self.calm(world, people)
            self.rounds += 1
            if self.round_findings:
                self.hurt_rounds += 1
                self.tell_log(world)
                break
        world.model.forget_copies()

    def disturbed_round(self, world, people, rng):
        end = time.time() + rng.choice([4, 8, 15])
        active = [kind for kind in sorted(self.kinds) if kind in disturb.KINDS and (kind != "store" or world.remote)]
        active = self.active = rng.sample(active, min(len(active), rng.choice([1, 2, 3, 5])))

        def disturber(kind, source):
            while time.time() < end and not self.stopping:
                disturb.KINDS[kind](world, source, end)

        threads = [guarded(self, world, person.until, end) for person in people]
        threads += [guarded(self, world, disturber, kind, sub(rng)) for kind in active]
        for thread in threads:
            thread.start()
        patience = end + PATIENCE_SECONDS
        for thread in threads:
            while thread.is_alive() and not self.stopping:
                thread.join(0.2)
                if time.time() > patience:
                    daemons = "; ".join(f"{pid} {where(pid)}" for pid in world.daemons())
                    self.find(world, f"a worker hangs after the round: {thread.name}; daemons: {daemons}")
                    raise Hangs
        disturb.undo(world)
        if self.stopping:
            raise Stop

    def calm(self, world, people):
        """Ends all disturbances. Everything acknowledged must be there, and no byte more than is
        needed."""
        disturb.mount_again(world)
        if not world.is_mounted():
            self.find(world, f"cannot be mounted again: {world.mount().err.strip()}")
            return
        if world.damaged:
            for person in people:
                person.drop()
            self.mend(world)
        settled = all([self.calmly(world, args) for args in (["verify"], ["fsck"])])
        for person in people:
            person.settle()
        world.damaged = False
        self.compare(world)
        for person in people:
            person.look()
        self.bytes_counted(world, people, settled)
        world.model.forget_copies()

    def checked(self, world, args):
        ran = world.run(args, calm=True)
        if ran.code == CONFLICT:
            # The daemon holds what a failed commit could not release; it goes with the daemon.
            self.count("lease left over")
            world.run(["umount", world.mount_point], calm=True)
            ran = world.run(args, calm=True)
            disturb.mount_again(world)
        return ran

    def calmly(self, world, args):
        """Runs a check that must find nothing. Returns whether no writer may be alive."""
        ran = self.checked(world, args)
        if ran.code == CORRUPT and world.damaged and args == ["fsck"]:
            # A commit that ended in the daemon released a tree that cannot be read.
            self.count("repaired again")
            world.run(["fsck", "--repair"], calm=True)
            ran = self.checked(world, args)
        # A writer that was killed in a container is not known to be dead for ten minutes.
        unknown = ran.code == CONFLICT and "somebody is writing" in ran.err
        if unknown and "container" in self.kinds:
            self.count("writer of a container not known to be dead")
        elif ran.code != 0:
            self.find(world, f"{' '.join(args)} in calm: exit {ran.code}: {(ran.out + ran.err).strip()[-800:]}")
        return not unknown

    def mend(self, world):
        """Mends damage. Absent objects need another put of the good copy. A tree that was
        unreadable when its version was deleted leaves counts too high, until a repair."""
        if world.run(["verify"], calm=True).code != 0:
            self.put_again(world)
        if self.checked(world, ["fsck"]).code == CORRUPT:
            self.count("repaired")
            world.run(["fsck", "--repair"], calm=True)

    def put_again(self, world):
        self.count("mended")
        with world.model.lock:
            copies = sorted(world.model.sources.values())
        for folder in copies:
            ran = world.run(["put", "-n", "p/mend", folder], calm=True)
            if ran.code != 0:
                self.find(world, f"the good copy is refused: exit {ran.code}: {ran.err.strip()[-400:]}")
        listed = world.run(["--json", "ls", "p/mend"], calm=True)
        for version in listed.json() if listed.code == 0 else []:
            world.run(["delete", version["reference"], "--delete-aliases"], calm=True)

    def compare(self, world):
        for name in sorted(set(world.model.versions) | set(world.model.maybe)):
            listed = world.run(["--json", "ls", name], calm=True)
            if listed.code not in (0, 10):
                self.find(world, f"ls {name}: exit {listed.code}: {listed.err.strip()}")
                continue
            there = {number_of(version["reference"]) for version in listed.json()} if listed.code == 0 else set()
            for finding in world.model.settle(name, there, lambda number: self.got(world, name, number)):
                self.find(world, finding)
            for number, wanted in sorted(world.model.versions[name].items()):
                self.count("version compared")
                if (found := self.got(world, name, number)) != wanted:
                    self.find(world, f"get {name}:v{number}: {difference(wanted, found)}")
                try:
                    seen = manifest(os.path.join(world.mount_point, f"{name}:v{number}"))
                    if seen != wanted:
                        self.find(world, f"mount {name}:v{number}: {difference(wanted, seen)}")
                except OSError as error:
                    self.find(world, f"mount {name}:v{number}: {error}")

    def got(self, world, name, number):
        target = world.path("got", "calm")
        shutil.rmtree(target, ignore_errors=True)
        ran = world.run(["get", f"{name}:v{number}", "--root", target], calm=True)
        if ran.code != 0:
            self.find(world, f"get {name}:v{number}: exit {ran.code}: {ran.err.strip()[-400:]}")
            return {}
        return manifest(target)

    def bytes_counted(self, world, people, settled):
        collected = world.run(["--json", "gc", "--garbage", "0"], calm=True)
        if collected.code != 0:
            self.find(world, f"gc in calm: exit {collected.code}: {collected.err.strip()}")
            return
        # The progress of killed puts may stay, if gc reports it.
        told = collected.json()
        allowed = sum(value for key, value in told.items()
                      if isinstance(value, int) and key.endswith("_bytes") and key != "freed_bytes")
        status = world.run(["--json", "status"], calm=True).json()
        living, packs = status["store_bytes"], status["packs"]
        taken = world.store_bytes(".pack")
        files = len(world.store_files(".pack"))
        if files > packs:
            self.find(world, f"{files} packs in the store, of which the registry lists {packs}")
        # Bytes of a writer that may still live are neither progress nor garbage.
        if not settled:
            self.count("bytes not counted, beside such a writer")
            return
        # Each dead object may leave the ends of its hole.
        most = living + allowed + packs * PACK_OVERHEAD_BYTES + OVERHEAD_BYTES + living // 10
        if taken > most:
            self.find(world, f"{taken} bytes in {packs} packs where {living} live and {allowed} are kept for killed puts")
        content, copies = {}, world.model.sources
        with world.model.lock:
            for known in world.model.versions.values():
                for found in known.values():
                    for path, key in found.items():
                        source = os.path.join(copies.get(world.model.key(found), ""), path)
                        if key not in content and os.path.isfile(source):
                            content[key] = os.path.getsize(source)
        pinned = sum(person.pinned_bytes() for person in people)
        most = sum(content.values()) + len(content) * 512 + allowed + OVERHEAD_BYTES + pinned
        if living > most:
            self.find(world, f"{living} bytes count as live where versions have {sum(content.values())}")

    def tell_log(self, world):
        lines = read(os.path.join(world.repo, "daemon.log")).decode(errors="replace").splitlines()
        for line in lines[-15:]:
            print("  daemon.log:", line[:300])
        if self.keep:
            print(f"  kept: {world.dir}")

    def tell(self):
        print(f"seed {self.seed}, {self.rounds} rounds")
        for what, count in sorted(self.counts.items()):
            print(f"  {what}: {count}")
        print(f"{len(self.findings)} findings")
        for line in self.findings[:50]:
            print(f"  {line}")


class Hangs(Exception):
    """The state of a world that cannot be used any more."""


def parse(words):
    here = os.path.dirname(os.path.abspath(__file__))
    every = sorted([*disturb.KINDS, *disturb.BESIDE])
    parser = argparse.ArgumentParser(prog="campaign.sh")
    parser.add_argument("binary", nargs="?", default=os.path.join(here, "../../target/release/artifactfs"))
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", default="")
    parser.add_argument("--without", default="")
    parser.add_argument("--keep", action="store_true", help="keep the folders of worlds")
    parser.add_argument("--list", action="store_true", help="name the kinds of disturbance")
    args = parser.parse_args(words)
    if args.list:
        print("\n".join(every))
        sys.exit(0)
    only, without = (set(filter(None, text.split(","))) for text in (args.only, args.without))
    if unknown := (only | without) - set(every):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}; known: {', '.join(every)}")
    args.kinds = (only or set(every)) - without
    if args.seed is None:
        args.seed = random.SystemRandom().getrandbits(32)
    if not os.access(args.binary, os.X_OK):
        parser.error(f"{args.binary} is no program")
    if os.geteuid() != 0:
        parser.error("it mounts disks: run it as root")
    return args


def main():
    args = parse(sys.argv[1:])
    campaign = Campaign(args)
    print(f"seed {args.seed}, {args.seconds:.0f} s, {','.join(sorted(args.kinds))}", flush=True)

    def stop(_number, _frame):
        campaign.stopping = True
        raise Stop

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    stopped = False
    while time.time() < campaign.deadline and not stopped:
        try:
            campaign.go()
        except Hangs:
            campaign.rounds += 1
            campaign.hurt_rounds += 1
        except Stop:
            stopped = True
        except Exception as error:  # Errors of the campaign itself are findings; its world has been ended.
            import traceback
            traceback.print_exc()
            campaign.findings.append(f"the campaign itself: {error!r}")
            campaign.hurt_rounds += 1
            campaign.rounds += 1
    if campaign.rounds == 0:
        campaign.findings.append("no round was made")
    campaign.tell()
    failed = max(campaign.hurt_rounds, 1 if campaign.findings else 0)
    print(f"{max(campaign.rounds - failed, 0)} passed, {failed} failed", flush=True)
    # The process does not wait for hanging threads.
    os._exit(1 if campaign.findings or stopped else 0)


main()
