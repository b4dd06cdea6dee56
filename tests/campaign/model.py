"""The acknowledged versions, and trees of files to put."""
import hashlib, os, shutil, stat, threading, time

# The state of a directory.
DIRECTORY = "directory"


def digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def state_of(path):
    """Returns what a version keeps of a name: content and executable bit of a file, the target of a
    symlink."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return "-> " + os.readlink(path)
    if stat.S_ISDIR(mode):
        return DIRECTORY
    with open(path, "rb") as file:
        return state_of_file(file.read(), os.fstat(file.fileno()).st_mode)


def state_of_file(data, mode):
    return digest(data) + (" x" if mode & 0o111 else "")


def manifest(root):
    """Returns path and state of everything below `root`; paths of directories end with a slash."""
    found, folders = {}, [""]
    while folders:
        folder = folders.pop()
        # Not os.walk: it recurses for each level, and some drafts are deeper than Python allows.
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    found[path + "/"] = DIRECTORY
                    folders.append(path)
                else:
                    found[path] = state_of(os.path.join(root, path))
    return found


def difference(wanted, found):
    """Returns a short text of how two manifests differ."""
    lines = [f"missing {path}" for path in sorted(wanted.keys() - found.keys())]
    lines += [f"unexpected {path}" for path in sorted(found.keys() - wanted.keys())]
    lines += [f"other {path}" for path in sorted(wanted.keys() & found.keys()) if wanted[path] != found[path]]
    lines = [shortened(line) for line in lines]
    return "; ".join(lines[:6]) + (f" and {len(lines) - 6} more" if len(lines) > 6 else "")


def shortened(text):
    """Returns a path, without most of it if it is very long."""
    return text if len(text) < 200 else f"{text[:100]}...({len(text)} bytes)...{text[-40:]}"


def some_bytes(rng):
    """Returns the content of a file: mostly small, rarely longer than a chunk or big enough for a
    pack of its own."""
    size = rng.choice([0, 1, 100, 4096, 4097, 20_000, 70_000, 300_000])
    if rng.random() < 0.08:
        size = rng.randrange(1 << 20, 3 << 20)
    if rng.random() < 0.01:
        size = (8 << 20) + rng.randrange(1 << 20)
    if rng.random() < 0.1:
        return bytes(size)
    return rng.randbytes(size)


def change(root, rng, times):
    """Writes, rewrites, renames and removes files below `root`."""
    for _ in range(times):
        paths = sorted(manifest_paths(root))
        kind = rng.random()
        if kind < 0.6 or len(paths) < 3:
            path = os.path.join(root, *(f"d{rng.randrange(3)}" for _ in range(rng.randrange(3))), f"f{rng.randrange(30)}")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(some_bytes(rng))
        elif kind < 0.75:
            with open(rng.choice(paths), "ab") as file:
                file.write(rng.randbytes(rng.randrange(1, 5000)))
        elif kind < 0.9:
            os.remove(rng.choice(paths))
        else:
            os.replace(rng.choice(paths), os.path.join(root, f"g{rng.randrange(10)}"))
    # No two trees are equal: an equal one makes no version.
    with open(os.path.join(root, "stamp"), "wb") as file:
        file.write(rng.randbytes(16))


def manifest_paths(root):
    return [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]


class Model:
    """The versions that must be there, those that may be, and those that may be gone."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.RLock()
        self.versions = {}  # "p/a" -> {number: manifest}
        self.maybe = {}  # "p/a" -> [manifest]: puts with an unknown outcome
        self.fading = set()  # ("p/a", number): deletions with an unknown outcome
        self.ended = set()  # ("p/a", number): deletions that were done or tried
        self.times = {}  # ("p/a", number) -> when it was acknowledged
        self.sources = {}  # key of a manifest -> folder with the good copy
        os.makedirs(folder, exist_ok=True)

    @staticmethod
    def key(found):
        return digest(repr(sorted(found.items())).encode())

    def keep(self, root, found):
        """Keeps a copy of a source, so that it can be put again."""
        with self.lock:
            if self.key(found) not in self.sources:
                target = os.path.join(self.folder, self.key(found))
                shutil.copytree(root, target, symlinks=True, dirs_exist_ok=True)
                self.sources[self.key(found)] = target

    def acknowledge(self, name, number, found):
        """Records a version. Returns what contradicts it."""
        with self.lock:
            known = self.versions.setdefault(name, {})
            if number in known and known[number] != found:
                return f"{name}:v{number} is given to two contents: {difference(known[number], found)}"
            if (name, number) in self.ended:
                return f"{name}:v{number} was deleted, and its number is used again"
            known[number] = found
            self.times[name, number] = time.time()
            return None

    def perhaps(self, name, found):
        with self.lock:
            self.maybe.setdefault(name, []).append(found)

    def any_version(self, rng, names=None):
        with self.lock:
            every = [(name, number) for name in sorted(names or self.versions) for number in sorted(self.versions.get(name, {}))]
            return rng.choice(every) if every else None

    def of(self, name, number):
        with self.lock:
            return self.versions.get(name, {}).get(number)

    def is_ended(self, name, number):
        with self.lock:
            return (name, number) in self.ended

    def begin_delete(self, name, number):
        """Records that a worker is about to delete a version. Returns false if another worker did
        so before."""
        with self.lock:
            first = (name, number) not in self.ended
            self.ended.add((name, number))
            return first

    def deleted(self, name, number, sure):
        with self.lock:
            if sure:
                self.versions[name].pop(number, None)
                self.fading.discard((name, number))
            else:
                self.fading.add((name, number))

    def settle(self, name, there, read):
        """Compares the listed numbers (`there`) with those that may be; `read` gives the manifest
        of one. Returns findings."""
        findings = []
        with self.lock:
            known = self.versions.setdefault(name, {})
            for number in sorted(known.keys() - there):
                if (name, number) in self.fading:
                    known.pop(number)
                else:
                    findings.append(f"{name}:v{number} was acknowledged and is not there")
            for number in sorted(there - known.keys()):
                if (name, number) in self.ended:
                    findings.append(f"{name}:v{number} was deleted and is there")
                    continue
                found = read(number)
                if found not in self.maybe.get(name, []):
                    findings.append(f"{name}:v{number} is nothing that was put")
                    continue
                self.maybe[name].remove(found)
                known[number] = found
            for number in known:
                self.fading.discard((name, number))
                self.ended.discard((name, number))
            self.maybe[name] = []
            return findings

    def forget_copies(self):
        with self.lock:
            needed = {self.key(found) for known in self.versions.values() for found in known.values()}
            for key in self.sources.keys() - needed:
                shutil.rmtree(self.sources.pop(key), ignore_errors=True)
