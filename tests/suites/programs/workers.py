"""Lets eight workers change one tree and keep journals; without a duration, compares the tree with the journals."""
import os, pickle, random, sys, time
WORKERS, SHARED = 8, 3
top, journals = sys.argv[1:3]

class Worker:
    def __init__(self, number):
        self.number, self.rng, self.made = number, random.Random(number), 0
        # `files` maps a path to a list of one content, so that hard links share it. `links` maps one to its target.
        self.files, self.folders, self.links = {}, [f"own-{number}"], {}
        self.exclusive, self.lines, self.counts = [], 0, {}
        os.makedirs(f"{top}/own-{number}", exist_ok=True)

    def name(self):
        self.made += 1
        folder = self.rng.choice(self.folders + [f"shared-{n}" for n in range(SHARED)])
        return f"{folder}/{self.number}-{self.made}"

    def some(self, of):
        return self.rng.choice(list(of)) if of else None

    def create(self):
        path, content = self.name(), self.rng.randbytes(self.rng.choice([0, 10, 5000, 70_000]))
        with open(f"{top}/{path}", "xb") as file:
            file.write(content)
        self.files[path] = [content]

    def append(self):
        if path := self.some(self.files):
            more = self.rng.randbytes(100)
            with open(f"{top}/{path}", "ab") as file:
                file.write(more)
            self.files[path][0] += more

    def cut(self):
        if path := self.some(self.files):
            length = self.rng.randrange(6000)
            os.truncate(f"{top}/{path}", length)
            self.files[path][0] = self.files[path][0][:length].ljust(length, b"\0")

    def rename(self):
        if path := self.some(self.files):
            new = self.name() if self.rng.random() < 0.6 else self.some(self.files)
            # If both are names of one file, rename(2) does nothing.
            os.rename(f"{top}/{path}", f"{top}/{new}")
            if self.files.get(new) is not self.files[path]:
                self.files[new] = self.files.pop(path)

    def remove(self):
        if path := self.some(self.files):
            os.unlink(f"{top}/{path}")
            del self.files[path]

    def link(self):
        if path := self.some(self.files):
            new = self.name()
            os.link(f"{top}/{path}", f"{top}/{new}")
            self.files[new] = self.files[path]

    def symlink(self):
        path, target = self.name(), f"to/{self.made}"
        os.symlink(target, f"{top}/{path}")
        self.links[path] = target

    def folder(self):
        path = self.some(self.folders) + f"/d{self.made}"
        self.made += 1
        if path.count("/") < 6 and len(self.folders) < 30:
            os.mkdir(f"{top}/{path}")
            self.folders.append(path)

    def move_folder(self):
        path = self.some(self.folders[1:])
        if path is None:
            return
        self.made += 1
        new = f"{self.folders[0]}/m{self.made}"
        os.rename(f"{top}/{path}", f"{top}/{new}")
        moved = lambda at: new + at[len(path):] if (at + "/").startswith(path + "/") else at
        self.folders = [moved(at) for at in self.folders]
        self.files = {moved(at): content for at, content in self.files.items()}
        self.links = {moved(at): target for at, target in self.links.items()}

    def read(self):
        if path := self.some(self.files):
            with open(f"{top}/{path}", "rb") as file:
                assert file.read() == self.files[path][0], f"{path} reads wrong"

    def removed_while_open(self):
        path = self.name()
        with open(f"{top}/{path}", "w+b") as file:
            os.unlink(f"{top}/{path}")
            file.write(b"x" * 5000)
            file.seek(0)
            assert file.read() == b"x" * 5000 and os.fstat(file.fileno()).st_nlink == 0

    # Several workers do the following with one name.
    def win(self):
        temporary = f"{top}/shared-0/temporary-{self.number}"
        with open(temporary, "wb") as file:
            file.write(bytes([self.number]) * 9000)
        os.rename(temporary, f"{top}/shared-0/winner")

    def exclusive_create(self):
        number = len(os.listdir(f"{top}/exclusive"))
        try:
            with open(f"{top}/exclusive/{number}", "x"):
                self.exclusive.append(number)
        except FileExistsError:
            pass

    def log(self):
        with open(f"{top}/log", "a") as file:
            file.write(f"{self.number} {self.lines} {'.' * self.rng.randrange(300)}\n")
        self.lines += 1

    ACTS = [create] * 6 + [append] * 3 + [cut] * 2 + [rename] * 5 + [remove] * 4 + [link] * 2 + [read] * 4
    ACTS += [symlink, folder, move_folder, removed_while_open, win, exclusive_create, log]

    def run(self, until):
        while time.monotonic() < until:
            act = self.rng.choice(self.ACTS)
            if act is Worker.create and len(self.files) > 400:
                act = Worker.remove
            try:
                act(self)
            except BaseException as error:
                print(f"worker {self.number}: {act.__name__}: {error!r}", flush=True)
                raise
            self.counts[act.__name__] = self.counts.get(act.__name__, 0) + 1
        with open(f"{journals}/{self.number}", "wb") as file:
            pickle.dump((self.files, self.folders, self.links, self.exclusive, self.lines), file)
        if self.number == 0:
            print(self.counts, flush=True)

def work(seconds):
    for name in [f"shared-{n}" for n in range(SHARED)] + ["exclusive"]:
        os.makedirs(f"{top}/{name}", exist_ok=True)
    until, children = time.monotonic() + seconds, []
    for number in range(WORKERS):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                Worker(number).run(until)
                os._exit(0)
            except BaseException:
                os._exit(1)
    assert all([os.waitpid(child, 0)[1] == 0 for child in children]), "a worker failed"

def tree():
    files, folders, links = {}, set(), {}
    for at, below, names in os.walk(top):
        at = os.path.relpath(at, top)
        for name in below + names:
            path = os.path.normpath(f"{at}/{name}")
            if os.path.islink(f"{top}/{path}"):
                links[path] = os.readlink(f"{top}/{path}")
            elif name in below:
                folders.add(path)
            else:
                with open(f"{top}/{path}", "rb") as file:
                    files[path] = (file.read(), os.fstat(file.fileno()).st_nlink)
    return files, folders, links

def differ(what, expected, seen):
    if expected == seen:
        return 0
    for path in sorted(set(expected) | set(seen)):
        if isinstance(expected, set):
            if (path in expected) != (path in seen):
                print(what, path, "expected" if path in expected else "not expected")
        elif expected.get(path) != seen.get(path):
            short = lambda entry: entry if entry is None or isinstance(entry, str) else (len(entry[0]), entry[1])
            print(what, path, "expected", short(expected.get(path)), "seen", short(seen.get(path)))
    return 1

def compare():
    files, folders, links = tree()
    wins = files.pop("shared-0/winner", None)
    log = files.pop("log")[0].decode().splitlines()
    exclusive = {path.split("/")[1] for path in list(files) if path.startswith("exclusive/") and files.pop(path)}
    expected_files, expected_folders, expected_links = {}, {f"shared-{n}" for n in range(SHARED)} | {"exclusive"}, {}
    made, lines = [], []
    for number in range(WORKERS):
        with open(f"{journals}/{number}", "rb") as file:
            own, own_folders, own_links, own_exclusive, own_lines = pickle.load(file)
        counts = {}
        for content in own.values():
            counts[id(content)] = counts.get(id(content), 0) + 1
        expected_files |= {path: (content[0], counts[id(content)]) for path, content in own.items()}
        expected_folders |= set(own_folders)
        expected_links |= own_links
        made += own_exclusive
        lines += [f"{number} {line}" for line in range(own_lines)]
    wrong = differ("file", expected_files, files) + differ("folder", expected_folders, folders)
    wrong += differ("symlink", expected_links, links)
    wrong += differ("exclusive", {str(number) for number in made}, exclusive)
    assert len(set(made)) == len(made), "two made one file with O_EXCL"
    assert sorted(" ".join(line.split(" ")[:2]) for line in log) == sorted(lines), "lines of the log were lost"
    assert wins and len(wins[0]) == 9000, "no winner"
    assert wrong == 0, "the tree is not what the journals say"
    print(len(files), "files", len(folders), "folders", len(links), "symlinks are right")

work(float(sys.argv[3])) if len(sys.argv) > 3 else compare()
