"""Several programs in one draft, which is committed, killed and mounted again meanwhile. A version
must be what each of them had at one moment of its commit. In calm the draft is what all of them
have."""
import errno, math, os, shutil, time

from history import Log
from model import DIRECTORY, difference, manifest, shortened
from program import SHARED, Program
from workers import CONFLICT, CORRUPT, FOR_NOW, NOT_FOUND, UNAVAILABLE, Worker, guarded, number_of, sub

LETTERS = "abc"
# The number of versions kept from one round to the next.
KEPT = 3
# The longest time that a commit in calm waits for the one of a killed command.
COMMIT_SECONDS = 120


class Programs(Worker):
    def __init__(self, world, name, rng):
        super().__init__(world, name, rng)
        self.artifact, self.root = f"p/{name}", os.path.join(world.staging, "p", name)
        self.programs = [Program(self, letter, sub(rng)) for letter in LETTERS]
        # While it is set, programs begin nothing, so that a commit gets a moment without writers.
        self.hushed = False
        self.logs, self.log, self.logged = [], None, 0
        self.unsure = []  # when commits with an unknown outcome began
        self.unread = {}  # version -> when its commit began and ended
        self.unjudged = []  # name of a version, what it has, and when its commit began and ended
        self.hurt = False
        self.pinned = 0  # bytes of a version that is the draft's lower, and that may be deleted
        self.begin_empty()

    def find(self, text):
        self.campaign.find(self.world, f"draft {self.artifact}: {text}")

    def excuse(self, what, error, began):
        """Reports a failure, unless a disturbance excuses it."""
        damaged = self.world.damaged and error.errno == errno.EIO
        # A draft that could not be repaired on a full disk refuses everything (EIO) until its next
        # commit.
        slack = 20 if error.errno == errno.EIO else 3
        if not damaged and not self.world.excused(FOR_NOW, began, time.time(), slack):
            self.find(f"{what}: {shortened(str(error))}")

    # ---- the draft ----

    def begin_empty(self):
        for name in SHARED:
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        for program in self.programs:
            program.tree = {}
        self.begin_round()

    def begin_round(self):
        for program in self.programs:
            program.history.restart(program.now())
        self.unsure, self.unread, self.unjudged = [], {}, []
        self.logs = []
        self.new_log()

    def new_log(self):
        self.logged += 1
        self.log = Log(f"log-{self.logged}")
        self.logs.append(self.log)

    def spoil(self, log):
        """Begins another log for all programs, since a record may be there in part."""
        log.spoiled = True
        self.new_log()

    def begin_from(self, number):
        """Begins the draft again, from a version: nothing of it is copied until it is changed."""
        name = f"{self.artifact}:v{number}"
        if not self.calmly(["draft", "discard", self.artifact]):
            return
        ran = self.world.run(["draft", name], calm=True)
        if ran.code == UNAVAILABLE and "cannot be based on versions" in ran.err:
            self.campaign.count("host on which no draft stands on a version")
            return self.begin_empty()
        if ran.code != 0:
            return self.find(f"draft {name}: exit {ran.code}: {ran.err.strip()[-400:]}")
        self.campaign.count("draft of an earlier version")
        self.pinned = self.bytes_of(number)
        known = self.model.of(self.artifact, number)
        if (found := manifest(self.root)) != known:
            self.find(f"as it begins from v{number}: {difference(known, found)}")
        self.remove_logs()
        for program in self.programs:
            program.load(self.model.sources[self.model.key(known)])

    def bytes_of(self, number):
        folder = self.model.sources[self.model.key(self.model.of(self.artifact, number))]
        return sum(os.lstat(os.path.join(folder, path)).st_size for path in manifest(folder))

    def remove_logs(self):
        for name in os.listdir(self.root):
            if name not in SHARED:
                os.remove(os.path.join(self.root, name))

    def owner(self, path):
        """Returns the owner of a path: the letter of the first name that a program made."""
        return next((part[0] for part in path.split("/") if part[1:2] == "-"), None)

    def owned(self, letter, folder):
        return [path.rstrip("/") for path in sorted(manifest(folder)) if self.owner(path) == letter]

    # ---- a round ----

    def until(self, deadline):
        threads = [guarded(self.campaign, self.world, program.until, deadline) for program in self.programs]
        for thread in threads:
            thread.start()
        while time.time() < deadline and not self.campaign.stopping:
            time.sleep(self.rng.random())
            self.commit()
        for thread in threads:
            thread.join()

    def commit(self):
        self.hushed = self.rng.random() < 0.4
        began = time.monotonic()
        ran = self.run(["--json", "commit", self.artifact, "--wait=5"], "commit beside programs")
        ended = time.monotonic()
        self.hushed = False
        if ran.code == 0:
            number = number_of(ran.json()["reference"])
            self.unread[number] = (began, ended)
            return self.read(number)
        self.unsure.append(began)
        if ran.code == CONFLICT:
            self.campaign.count("commit found writers")
        self.failed(ran, f"commit {self.artifact}", [CONFLICT])

    # ---- versions ----

    def read(self, number, calm=False):
        """Reads a version, to be judged when every program knows the outcome of its steps. Returns
        whether it could be read."""
        began, ended = self.unread.get(number, (min(self.unsure, default=math.inf), math.inf))
        name = f"{self.artifact}:v{number}"
        target = self.world.path("got", self.name)
        shutil.rmtree(target, ignore_errors=True)
        ran = self.world.run(["get", name, "--root", target], calm=calm)
        if ran.code != 0:
            if not calm:
                self.failed(ran, f"get {name}")
            return False
        self.unread.pop(number, None)
        found = manifest(target)
        self.noted(self.model.acknowledge(self.artifact, number, found))
        self.model.keep(target, found)
        self.unjudged.append((name, found, began, ended))
        return True

    def judge_all(self):
        for name, found, began, ended in self.unjudged:
            self.campaign.count("version of programs judged")
            if wrong := self.judge(found, self.model.sources[self.model.key(found)], began, ended):
                self.campaign.find(self.world, f"{name} matches no state of the draft: {' | '.join(wrong)}")
        self.unjudged = []

    def judge(self, found, folder, began, ended):
        """Returns what is wrong with a tree that was in the draft at one moment between the two."""
        parts = {letter: {} for letter in [*LETTERS, None]}
        for path, state in found.items():
            parts[self.owner(path)][path] = state
        wrong = []
        for program in self.programs:
            told = program.history.contradiction(parts[program.letter], began, ended)
            wrong += [f"{program.letter}: {told}"] if told else []
        for log in self.logs:
            data = b""
            if parts[None].pop(log.name, None):
                with open(os.path.join(folder, log.name), "rb") as file:
                    data = file.read()
            told = None if log.spoiled else log.contradiction(data, began, ended)
            wrong += [told] if told else []
        shared = {f"{name}/": DIRECTORY for name in SHARED}
        return wrong + ([difference(shared, parts[None])] if parts[None] != shared else [])

    def decide(self, delete):
        """Reads versions that are not known yet; with `delete`, deletes those that cannot be
        read."""
        listed = self.world.run(["--json", "ls", self.artifact], calm=True)
        if listed.code not in (0, NOT_FOUND):
            return None if delete else self.find(f"ls: exit {listed.code}: {listed.err.strip()}")
        there = sorted(number_of(version["reference"]) for version in listed.json()) if listed.code == 0 else []
        for number in there:
            if self.model.of(self.artifact, number) is not None or self.read(number, calm=True):
                continue
            name = f"{self.artifact}:v{number}"
            if delete:
                self.campaign.count("version of programs hurt before it was read")
                self.world.run(["delete", name, "--delete-aliases"], calm=True)
            else:
                self.find(f"{name} cannot be read in calm")

    def calmly(self, args):
        """Runs a command that must succeed, and waits for a commit that still goes on."""
        deadline = time.time() + COMMIT_SECONDS
        ran = self.world.run(args, calm=True)
        while ran.code == CONFLICT and time.time() < deadline and not self.campaign.stopping:
            time.sleep(0.5)
            ran = self.world.run(args, calm=True)
        if ran.code == CORRUPT and self.hurt:
            raise OSError(errno.EIO, ran.err.strip()[-200:])
        if ran.code != 0:
            self.find(f"{' '.join(args)} in calm: exit {ran.code}: {ran.err.strip()[-400:]}")
        return ran if ran.code == 0 else None

    # ---- calm ----

    def drop(self):
        self.hurt = True
        self.decide(delete=True)

    def settle(self):
        try:
            # This ends what failed commits have left, and no commit of a killed command comes after
            # it.
            self.unsure.append(time.monotonic())
            self.calmly(["commit", self.artifact, "--wait=60"])
            for program in self.programs:
                if program.doubted:
                    program.clear_doubt()
            self.look_at_all()
            self.commit_all()
        except OSError as error:
            if not (self.hurt and error.errno == errno.EIO):
                raise
            return self.give_up()
        self.hurt = False
        self.decide(delete=False)
        self.judge_all()
        self.remove_logs()
        known = sorted(self.model.versions.get(self.artifact, {}))
        if known and self.rng.random() < 0.4:
            self.begin_from(self.rng.choice(known))
        for number in known[:-KEPT]:
            self.forget(number)
        self.begin_round()

    def give_up(self):
        """Gives up a draft whose lower was damaged before it could be read."""
        self.campaign.count("draft hurt with what it stood on")
        self.hurt = False
        self.decide(delete=True)
        if self.calmly(["draft", "discard", self.artifact]):
            self.begin_empty()

    def look_at_all(self):
        now = time.monotonic()
        if wrong := self.judge(manifest(self.root), self.root, now, now):
            self.find(f"in calm: {' | '.join(wrong)}")
        for program in self.programs:
            program.look_at_attributes()

    def commit_all(self):
        wanted = manifest(self.root)
        ran = self.calmly(["--json", "commit", self.artifact, "--wait=60"])
        if not ran:
            return
        number = number_of(ran.json()["reference"])
        # Its content is compared with all other versions.
        self.pinned = 0
        self.noted(self.model.acknowledge(self.artifact, number, wanted))
        self.model.keep(self.root, wanted)

    def forget(self, number):
        self.model.begin_delete(self.artifact, number)
        if self.calmly(["delete", f"{self.artifact}:v{number}", "--delete-aliases"]):
            self.model.deleted(self.artifact, number, True)

    def pinned_bytes(self):
        return (4 << 20) + self.pinned
