"""One program that writes in a draft beside others. Its names begin with its letter, so its record
of them is exact."""
import contextlib, ctypes, errno, math, os, shutil, stat, subprocess, sys, time

from history import History
from model import DIRECTORY, shortened, state_of, state_of_file

# Directories of the draft in which all programs make names.
SHARED = ("s0", "s0/t", "s1")
# The most bytes that a program may have in the draft, and that one write adds beyond the end of a
# file.
SIZE_BYTES, GAP_BYTES = 3 << 20, 200_000
# The length of a file that becomes a pack in place.
BIG_BYTES = 8 << 20
# The path limit of a draft is 4,000 bytes; the last name of a path may be a new one.
PATH_BYTES = 3_960
# The longest path of a directory in which ordinary names are made, in bytes.
PLACE_BYTES = 150
UMASK = os.umask(0)
os.umask(UMASK)

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
RENAME_EXCHANGE, AT_FDCWD = 2, -100
LIBC = ctypes.CDLL(None, use_errno=True)

# Stores to a file through a mapping, in a process of its own. A daemon that dies ends it with
# SIGBUS, and a suspended one blocks it. The file is closed before the first store, so that only the
# mapping is left.
MAPPED = """
import ctypes, os, sys, time
path, size, at, data, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]), float(sys.argv[5])
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
fd = os.open(path, os.O_RDWR)
begin = libc.mmap(None, size, 3, 1, fd, 0)
os.close(fd)
half = len(data) // 2
ctypes.memmove(begin + at, data[:half], half)
time.sleep(pause)
ctypes.memmove(begin + at + half, data[half:], len(data) - half)
sys.exit(libc.msync(begin, size, 4))
"""


def called(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write_all(fd, data, at=None):
    """Writes with one call; a short write is an error."""
    done = os.write(fd, data) if at is None else os.pwrite(fd, data, at)
    if done != len(data):
        raise OSError(errno.ENOSPC, f"{done} of {len(data)} bytes were written")


@contextlib.contextmanager
def opened(path, flags):
    fd = os.open(path, flags, 0o666)
    try:
        yield fd
    finally:
        os.close(fd)


class Node:
    """A file, a directory or a symlink, under all of its names."""

    def __init__(self, kind, mode=0, data=b""):
        self.kind, self.mode, self.data, self.attributes = kind, mode, data, {}

    def state(self):
        if self.kind == "symlink":
            return "-> " + self.data
        return DIRECTORY if self.kind == "directory" else state_of_file(self.data, self.mode)

    def put(self, at, data):
        self.data = self.data[:at].ljust(at, b"\0") + data + self.data[at + len(data):]


class Program:
    def __init__(self, programs, letter, rng):
        self.programs, self.letter, self.rng = programs, letter, rng
        self.world, self.campaign = programs.world, programs.campaign
        self.tree = {}  # path -> node
        self.history = History()
        self.doubted = set()  # paths of an operation that has not ended well
        self.what, self.began = None, 0

    def until(self, deadline):
        while time.time() < deadline and not self.campaign.stopping:
            began = time.time()
            try:
                if self.doubted:
                    self.clear_doubt()
                elif not self.programs.hushed:
                    self.operate()
            except OSError as error:
                self.campaign.count("program failed")
                self.programs.excuse(f"program {self.letter}", error, began)
                time.sleep(0.2)
            time.sleep(self.rng.random() * 0.03)

    # ---- what is known ----

    def path(self, name):
        return os.path.join(self.programs.root, name)

    def of(self, *kinds):
        return [path for path, node in sorted(self.tree.items()) if node.kind in kinds]

    def names(self, node):
        return [path for path, other in self.tree.items() if other is node]

    def below(self, path):
        """Returns a path and all known paths below it, the deepest last."""
        return [path, *sorted(other for other in self.tree if other.startswith(path + "/"))]

    def states(self, paths):
        found = {}
        for path in paths:
            node = self.tree.get(path)
            directory = node is not None and node.kind == "directory"
            found[path + "/"] = DIRECTORY if directory else None
            found[path] = None if directory or node is None else node.state()
        return found

    def now(self):
        return {path: state for path, state in self.states(self.tree).items() if state is not None}

    @contextlib.contextmanager
    def step(self, *paths):
        """Makes one change of these paths, which a commit sees wholly or not at all."""
        self.began, self.doubted = time.monotonic(), set(paths)
        yield
        self.history.add(self.what, self.began, self.states(paths))
        self.doubted = set()

    def clear_doubt(self):
        """Removes the paths of failed operations, done or not, so that their state is known
        again."""
        paths = sorted({path for doubted in self.doubted for path in self.below(doubted)})
        # Through a descriptor, so that nothing is looked up where nothing is mounted.
        with opened(self.programs.root, os.O_RDONLY | os.O_DIRECTORY) as root:
            os.stat(SHARED[0], dir_fd=root)
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.lstat(path, dir_fd=root).st_mode):
                        shutil.rmtree(path, dir_fd=root)
                    else:
                        os.unlink(path, dir_fd=root)
            os.stat(SHARED[0], dir_fd=root)
        for path in paths:
            self.tree.pop(path, None)
        self.history.add(f"{self.what}, which failed", self.began, self.states(paths), doubtful=True)
        self.doubted = set()

    def load(self, folder):
        """Records as its own what the draft has from a version, of which a good copy is in
        `folder`."""
        self.tree = {}
        for name in self.programs.owned(self.letter, folder):
            status, copy = os.lstat(self.path(name)), os.path.join(folder, name)
            if os.path.islink(copy):
                self.tree[name] = Node("symlink", data=os.readlink(copy))
            elif os.path.isdir(copy):
                self.tree[name] = Node("directory", stat.S_IMODE(status.st_mode))
            else:
                with open(copy, "rb") as file:
                    self.tree[name] = Node("file", stat.S_IMODE(status.st_mode), file.read())

    # ---- operations ----

    def operate(self):
        if sum(len(node.data) for node in self.tree.values()) > SIZE_BYTES + BIG_BYTES:
            operation = self.remove_directory if self.of("directory") else self.unlink
        else:
            operation, = self.rng.choices(list(OPERATIONS), OPERATIONS.values())
            operation = getattr(self, operation)
        self.what = operation.__name__
        self.campaign.count(f"program: {self.what}")
        operation()

    def fresh(self, kind):
        """Returns a path for something of this kind; such a thing may be there already."""
        places = [*SHARED, *(path for path in self.of("directory") if len(path) <= PLACE_BYTES)]
        return f"{self.rng.choice(places)}/{self.letter}-{kind}{self.rng.randrange(8)}"

    def any(self, *kinds):
        """Returns a path of something with its node, or nothing."""
        paths = self.of(*kinds)
        path = self.rng.choice(paths) if paths else None
        return path, self.tree.get(path)

    def some_bytes(self):
        size = self.rng.choice([0, 1, 100, 4096, 4097, 30_000, 70_000, 150_000])
        big = max((len(node.data) for node in self.tree.values()), default=0) >= BIG_BYTES
        if not big and self.rng.random() < 0.02:
            size = BIG_BYTES + self.rng.randrange(1 << 20)
        return self.rng.randbytes(size)

    def somewhere(self, node, beyond=GAP_BYTES):
        """Returns an offset in a file, or beyond its end."""
        size = len(node.data)
        return self.rng.choice([0, size, self.rng.randrange(size + 1), size + self.rng.randrange(beyond)])

    def write(self):
        path = self.fresh("f")
        node = self.tree.get(path) or Node("file", 0o666 & ~UMASK)
        data = self.some_bytes()
        half = len(data) // 2
        with self.step(*(self.names(node) or [path])):
            with opened(self.path(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                write_all(fd, data[:half])
                write_all(fd, data[half:])
                if self.rng.random() < 0.1:
                    os.fsync(fd)
            node.data = data
            self.tree[path] = node

    def patch(self):
        path, node = self.any("file")
        if not node:
            return
        with self.step(*self.names(node)):
            with opened(self.path(path), self.rng.choice([os.O_WRONLY, os.O_RDWR])) as fd:
                for _ in range(self.rng.randrange(1, 4)):
                    at, data = self.somewhere(node), self.rng.randbytes(self.rng.randrange(1, 9000))
                    write_all(fd, data, at)
                    node.put(at, data)

    def append(self):
        path, node = self.any("file")
        if not node:
            return
        data = self.rng.randbytes(self.rng.randrange(1, 9000))
        with self.step(*self.names(node)):
            with opened(self.path(path), os.O_WRONLY | os.O_APPEND) as fd:
                write_all(fd, data)
            node.put(len(node.data), data)

    def truncate(self):
        path, node = self.any("file")
        if not node:
            return
        size = self.somewhere(node)
        with self.step(*self.names(node)):
            os.truncate(self.path(path), size)
            node.data = node.data[:size].ljust(size, b"\0")

    def allocate(self):
        path, node = self.any("file")
        if not node:
            return
        mode = self.rng.choice([0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE])
        at, length = self.somewhere(node), self.rng.randrange(1, 60_000)
        self.what = f"fallocate {mode:#x} of {length} bytes at {at}"
        with self.step(*self.names(node)), opened(self.path(path), os.O_RDWR) as fd:
            try:
                called(LIBC.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length)))
            except OSError as error:
                # Not every host supports all of these.
                if error.errno != errno.EOPNOTSUPP:
                    raise
                return
            if mode & (PUNCH_HOLE | ZERO_RANGE):
                node.put(min(at, len(node.data)), bytes(max(min(length, len(node.data) - at), 0)))
            if mode in (0, ZERO_RANGE):
                node.data = node.data.ljust(at + length, b"\0")

    def map(self):
        path, node = self.any("file")
        if not node or len(node.data) < 2:
            return
        at = self.rng.randrange(len(node.data) - 1)
        data = self.rng.randbytes(min(self.rng.randrange(2, 20_000), len(node.data) - at))
        words = [self.path(path), str(len(node.data)), str(at), data.hex(), str(self.rng.random() * 0.3)]
        with self.step(*self.names(node)):
            child = subprocess.run([sys.executable, "-ISc", MAPPED, *words], capture_output=True, stdin=subprocess.DEVNULL)
            if child.returncode != 0:
                raise OSError(errno.EIO, f"mapped: {child.returncode} {child.stderr[-200:]}")
            node.put(at, data)

    def rename(self):
        old, node = self.any("file")
        new = self.fresh("f")
        if not node:
            return
        with self.step(old, new):
            os.rename(self.path(old), self.path(new))
            # If both are names of one file, both stay.
            if self.tree.get(new) is not node:
                self.tree[new] = self.tree.pop(old)

    def fits(self, old, new):
        """Returns whether the paths below a directory stay short enough under another name."""
        return max(map(len, self.below(old))) + len(new) - len(old) <= PATH_BYTES

    def move(self, old, new):
        """Returns the new path of each path below a renamed directory."""
        return {path: new + path[len(old):] for path in self.below(old)}

    def move_directory(self):
        old, node = self.any("directory")
        new = self.fresh("d")
        if not node or new in self.tree or (new + "/").startswith(old + "/") or not self.fits(old, new):
            return
        moved = self.move(old, new)
        with self.step(*moved, *moved.values()):
            os.rename(self.path(old), self.path(new))
            for before, after in moved.items():
                self.tree[after] = self.tree.pop(before)

    def exchange(self):
        kind = self.rng.choice(["file", "directory"])
        (one, node), (other, _) = self.any(kind), self.any(kind)
        nested = node and ((one + "/").startswith(other + "/") or (other + "/").startswith(one + "/"))
        if not node or nested or not (self.fits(one, other) and self.fits(other, one)):
            return
        moved = {**self.move(one, other), **self.move(other, one)}
        with self.step(*{*moved, *moved.values()}):
            called(LIBC.renameat2(AT_FDCWD, self.path(one).encode(), AT_FDCWD, self.path(other).encode(), RENAME_EXCHANGE))
            before = {path: self.tree.pop(path) for path in moved}
            self.tree.update({moved[path]: node for path, node in before.items()})

    def link(self):
        path, node = self.any("file")
        new = self.fresh("f")
        if node and new not in self.tree:
            with self.step(new):
                os.link(self.path(path), self.path(new))
                self.tree[new] = node

    def symlink(self):
        path = self.fresh("l")
        # The target stays inside wherever the link is moved, and may dangle.
        target = self.rng.choice([f"{self.letter}-f{self.rng.randrange(8)}", f"{self.letter}-d1/./x", "y" * 300])
        if path not in self.tree:
            with self.step(path):
                os.symlink(target, self.path(path))
                self.tree[path] = Node("symlink", data=target)

    def unlink(self, path=None):
        path = path or self.any("file", "symlink")[0]
        if path:
            with self.step(path):
                os.unlink(self.path(path))
                del self.tree[path]

    def make_directory(self, path=None):
        path = path or self.fresh("d")
        if path not in self.tree:
            with self.step(path):
                os.mkdir(self.path(path))
                self.tree[path] = Node("directory", 0o777 & ~UMASK)

    def remove_directory(self):
        top, _ = self.any("directory")
        for path in reversed(self.below(top)) if top else []:
            if self.tree[path].kind != "directory":
                self.unlink(path)
                continue
            with self.step(path):
                os.rmdir(self.path(path))
                del self.tree[path]

    def deepen(self):
        """Makes directories as deep as a path may be long, and a file in the deepest."""
        path = self.fresh("d")
        if path in self.tree or any(len(other) > PATH_BYTES // 2 for other in self.tree):
            return
        self.make_directory(path)
        while (room := PATH_BYTES - len(path) - len("/f")) > 1:
            path += "/" + "n" * min(self.rng.randrange(30, 256), room - 1)
            self.make_directory(path)
        with self.step(path + "/f"):
            with opened(self.path(path + "/f"), os.O_WRONLY | os.O_CREAT) as fd:
                write_all(fd, b"deep")
            self.tree[path + "/f"] = Node("file", 0o666 & ~UMASK, b"deep")

    def attribute(self):
        path, node = self.any("file", "directory")
        if not node:
            return
        name = f"user.{self.rng.choice('xyz')}"
        with self.step(*self.names(node)):
            if name in node.attributes and self.rng.random() < 0.3:
                os.removexattr(self.path(path), name)
                del node.attributes[name]
            else:
                value = self.rng.randbytes(self.rng.randrange(200))
                os.setxattr(self.path(path), name, value)
                node.attributes[name] = value

    def chmod(self):
        path, node = self.any("file", "directory")
        if not node:
            return
        modes = [0o644, 0o755, 0o600, 0o711, 0o444] if node.kind == "file" else [0o755, 0o700, 0o777]
        mode = self.rng.choice(modes)
        with self.step(*self.names(node)):
            os.chmod(self.path(path), mode)
            node.mode = mode

    def record(self):
        """Appends to a file to which all programs append."""
        log = self.programs.log
        times = log.times.setdefault(self.letter, [])
        with opened(self.path(log.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND) as fd:
            for _ in range(self.rng.randrange(1, 6)):
                record = log.record(self.letter, len(times))
                times.append((time.monotonic(), math.inf))
                try:
                    write_all(fd, record)
                except OSError:
                    self.programs.spoil(log)
                    raise
                times[-1] = (times[-1][0], time.monotonic())

    # ---- looking ----

    def look(self):
        """Compares something that is there, or a listing, with what is known."""
        path, node = self.any("file", "directory", "symlink")
        if self.rng.random() < 0.3 or not node:
            return self.look_around(self.rng.choice([*SHARED, *self.of("directory")]))
        if (seen := state_of(self.path(path))) != node.state():
            trail = self.history.trail(path, time.monotonic())
            self.programs.find(f"{shortened(path)} reads as {seen}, and not {node.state()}{trail}")

    def look_around(self, folder):
        mine = {name for name in os.listdir(self.path(folder)) if folder in self.tree or name.startswith(f"{self.letter}-")}
        known = {os.path.basename(path) for path in self.tree if os.path.dirname(path) == folder}
        if mine != known:
            self.programs.find(f"{shortened(folder)} lists {sorted(mine - known)[:5]} and not {sorted(known - mine)[:5]}")

    def look_at_attributes(self):
        """Compares what versions do not keep: modes, hard links, extended attributes."""
        for path, node in self.tree.items():
            full = self.path(path)
            if not os.path.lexists(full):
                continue  # The comparison of content reports that.
            status = os.lstat(full)
            if node.kind == "symlink":
                continue
            told = [name for name in os.listxattr(full) if not name.startswith("user.artifact.")]
            seen = (stat.S_IMODE(status.st_mode), {name: os.getxattr(full, name) for name in told})
            if seen != (node.mode, node.attributes):
                self.programs.find(f"{shortened(path)} has mode and attributes {seen}, and not {(node.mode, node.attributes)}")
            if node.kind == "file" and status.st_nlink != len(self.names(node)):
                self.programs.find(f"{shortened(path)} has {status.st_nlink} names, and not {self.names(node)}")


# The operations of programs, with their weights.
OPERATIONS = {"write": 18, "patch": 10, "append": 8, "truncate": 6, "allocate": 6, "map": 2, "rename": 6, "move_directory": 6,
              "exchange": 3, "link": 4, "symlink": 4, "unlink": 8, "make_directory": 6, "remove_directory": 2, "deepen": 1,
              "attribute": 5, "chmod": 4, "record": 12, "look": 20}
