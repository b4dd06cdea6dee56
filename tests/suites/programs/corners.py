"""Prints the results of calls that file systems easily get wrong, for one chapter of them.

Three things are left out. No daemon receives pathconf. A draft refuses extended attributes outside `user.`, and
O_TMPFILE, and programs expect such a refusal.
"""
import ctypes, errno, mmap, os, shutil, socket, subprocess, sys, time
top, chapter = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(top)

def tell(what, act):
    try:
        said = act()
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(f"{what}:", said, flush=True)

def put(name, content=b"content"):
    with open(name, "wb") as file:
        file.write(content)

def get(name):
    with open(name, "rb") as file:
        return file.read()

def nameless():
    """Uses files and folders that were removed while they were open, mapped, or a working directory."""
    put("file")
    file, handle = os.open("file", os.O_RDWR), os.open("file", os.O_PATH)
    os.unlink("file")
    tell("links", lambda: os.fstat(file).st_nlink)
    tell("chmod", lambda: (os.fchmod(file, 0o640), os.fstat(file).st_mode)[1])
    tell("chown", lambda: (os.fchown(file, 1, 2), os.fstat(file).st_uid)[1])
    tell("utime", lambda: (os.utime(file, ns=(5, 7)), os.fstat(file).st_mtime_ns)[1])
    tell("truncate", lambda: (os.ftruncate(file, 3), os.fstat(file).st_size)[1])
    tell("setxattr", lambda: os.setxattr(file, "user.a", b"b"))
    tell("getxattr", lambda: os.getxattr(file, "user.a"))
    tell("listxattr", lambda: os.listxattr(file))
    tell("reopen", lambda: get(f"/proc/self/fd/{file}"))
    tell("reopen and write", lambda: put(f"/proc/self/fd/{file}", b"again"))
    os.close(file)
    tell("stat by O_PATH", lambda: os.fstat(handle).st_size)
    with open(f"/proc/self/fd/{handle}", "rb"):
        tell("truncate while another reads", lambda: os.truncate(f"/proc/self/fd/{handle}", 2))
    tell("reopen by O_PATH", lambda: get(f"/proc/self/fd/{handle}"))
    put("mapped", b"m" * 8192)
    with open("mapped", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 8192)
    os.unlink("mapped")
    mapped[0:3] = b"new"
    mapped.flush()
    tell("mapped", lambda: mapped[0:5])
    os.mkdir("folder")
    folder = os.open("folder", os.O_RDONLY)
    os.rmdir("folder")
    tell("folder: links", lambda: os.fstat(folder).st_nlink)
    tell("folder: list", lambda: os.listdir(folder))
    tell("folder: create", lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.mkdir("here")
    os.chdir("here")
    os.rmdir("../here")
    tell("here: stat", lambda: os.stat(".").st_nlink)
    tell("here: list", lambda: os.listdir("."))
    tell("here: parent", lambda: os.path.samefile("..", top))

def times_of(name):
    return os.stat(name).st_mtime_ns, os.stat(name).st_atime_ns

def renames():
    def rename(old, new, flags):
        if libc.renameat2(-100, old, -100, new, flags):
            raise OSError(ctypes.get_errno(), "renameat2")
    put("a", b"A"), put("b", b"B"), os.makedirs("x/y"), put("x/in", b"I")
    tell("noreplace", lambda: rename(b"a", b"b", 1))
    tell("noreplace a new one", lambda: rename(b"a", b"c", 1))
    tell("exchange", lambda: (rename(b"b", b"c", 2), get("b"), get("c")))
    tell("exchange with a folder", lambda: (rename(b"b", b"x", 2), get("x"), get("b/in")))
    tell("exchange with nothing", lambda: rename(b"b", b"nothing", 2))
    tell("into itself", lambda: os.rename("b", "b/y/z"))
    tell("over a full one", lambda: (os.mkdir("e"), os.rename("e", "b")))

def names():
    for name in [b"n" * 255, b"n" * 256, b"\x01\n", b"\xff\xfe", b"a:b", b".artifact.json"]:
        tell(name[:9], lambda: (put(name), os.path.exists(name)))
    for length in [4095, 4096]:
        tell(f"symlink {length}", lambda: (os.symlink("t" * length, f"l{length}"), len(os.readlink(f"l{length}"))))
    tell("dangling, exclusive", lambda: (os.symlink("to", "d"), os.open("d", os.O_CREAT | os.O_EXCL | os.O_WRONLY)))
    tell("dangling, created", lambda: (put("d"), get("to")))
    tell("read and truncate", lambda: (os.close(os.open("to", os.O_RDONLY | os.O_TRUNC)), get("to")))
    tell("write a folder", lambda: os.open(".", os.O_WRONLY))
    tell("no folder", lambda: os.open("to", os.O_DIRECTORY))

def deep():
    """Walks down a path that is too long for most programs; a draft takes up to 4,000 bytes (see the manual)."""
    os.mkdir("deep")
    os.chdir("deep")
    def down():
        for _ in range(19):
            os.mkdir("e" * 200)
            os.chdir("e" * 200)
        put("bottom")
        return get("bottom"), os.listdir(".")
    tell("nineteen times 200", down)
    os.chdir(top)
    tell("removed", lambda: (subprocess.call(["rm", "-rf", "deep"]), os.path.exists("deep")))

def folders():
    os.mkdir("many")
    for number in range(10_000):
        put(f"many/{number}", b"")
    tell("listed", lambda: len(set(os.listdir("many"))))
    def remove():
        with os.scandir("many") as entries:
            return sum(os.unlink(entry.path) is None for entry in entries)
    tell("removed while it is read", lambda: (remove(), os.listdir("many"), os.rmdir("many")))
    os.makedirs("k/a"), os.mkdir("k/b"), put("k/f"), os.symlink("f", "k/l")
    tell("links", lambda: os.stat("k").st_nlink)
    entry = lambda e: (e.name, e.is_dir(), e.is_symlink(), e.inode() == os.lstat(e.path).st_ino)
    tell("entries", lambda: sorted(map(entry, os.scandir("k"))))
    tell("dots", lambda: (os.path.samefile("k", "k/."), os.path.samefile("k", "k/a/..")))

def times():
    os.mkdir("a"), put("f", b"12345678")
    def moved(act, *names):
        before = [os.stat(name) for name in names]
        time.sleep(0.05)
        act()
        after = [os.stat(name) for name in names]
        return [(b.st_mtime_ns > a.st_mtime_ns, b.st_ctime_ns > a.st_ctime_ns) for a, b in zip(before, after)]
    def map_write():
        with open("f", "r+b") as file, mmap.mmap(file.fileno(), 8) as mapped:
            mapped[0:1] = b"q"
            mapped.flush()
    tell("write", lambda: moved(lambda: put("f", b"longer than that"), "f", "."))
    tell("write to a map", lambda: moved(map_write, "f"))
    tell("link", lambda: moved(lambda: os.link("f", "g"), "f", "."))
    tell("rename", lambda: moved(lambda: os.rename("g", "a/g"), "f", ".", "a"))
    tell("unlink", lambda: moved(lambda: os.unlink("a/g"), "f", "a"))
    tell("chmod", lambda: moved(lambda: os.chmod("f", 0o600), "f"))
    tell("setxattr", lambda: moved(lambda: os.setxattr("f", "user.z", b"1"), "f"))
    os.utime("f", ns=(10**18, 10**18 + 10**9))
    tell("read", lambda: (get("f"), os.stat("f").st_atime_ns > 10**18))
    for stamp in [10**9 - 1, 4_100_000_000 * 10**9 + 7, 0]:
        tell(f"set to {stamp}", lambda: (os.utime("f", ns=(stamp, stamp)), times_of("f")))

def before_1970():
    put("f")
    for stamp in [-1, -5 * 10**9, -2_000_000_000 * 10**9]:
        tell(f"set to {stamp}", lambda: (os.utime("f", ns=(stamp, stamp)), times_of("f")))

def attributes():
    put("f"), os.mkdir("d"), os.symlink("f", "l")
    tell("on a folder", lambda: (os.setxattr("d", "user.d", b"1"), os.listxattr("d")))
    tell("empty", lambda: (os.setxattr("f", "user.empty", b""), os.getxattr("f", "user.empty")))
    tell("create", lambda: os.setxattr("f", "user.empty", b"", os.XATTR_CREATE))
    tell("replace", lambda: os.setxattr("f", "user.none", b"", os.XATTR_REPLACE))
    tell("none", lambda: os.getxattr("f", "user.none"))
    tell("3000 bytes", lambda: (os.setxattr("f", "user.big", bytes(3000)), len(os.getxattr("f", "user.big"))))
    tell("too many bytes", lambda: os.setxattr("f", "user.huge", bytes(65537)))
    tell("of a symlink", lambda: os.setxattr("l", "user.s", b"", follow_symlinks=False))
    tell("all", lambda: sorted(os.listxattr("f")))

def content():
    put("a", bytes(8192))
    with open("a", "r+b") as one, open("a", "r+b", buffering=0) as other:
        mapped = mmap.mmap(one.fileno(), 8192)
        mapped[100:103] = b"abc"
        tell("map seen by read", lambda: os.pread(other.fileno(), 3, 100))
        os.pwrite(other.fileno(), b"xyz", 100)
        tell("write seen in map", lambda: mapped[100:103])
        tell("direct", lambda: os.preadv(os.open("a", os.O_RDONLY | os.O_DIRECT), [mmap.mmap(-1, 4096)], 0))
    tell("append", lambda: (os.pwrite(os.open("a", os.O_WRONLY | os.O_APPEND), b"Z", 0), get("a")[-2:]))
    def far():
        with open("far", "w+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"end", 10 << 30)
            stat = os.fstat(file.fileno())
            return os.pread(file.fileno(), 9, 10 << 30), stat.st_size, stat.st_blocks < 99
    tell("far", far)
    tell("too far", lambda: os.truncate("far", 1 << 62))
    file, folder = os.open("a", os.O_RDONLY), os.open(".", os.O_RDONLY)
    tell("copy_file_range", lambda: os.copy_file_range(file, os.open("b", os.O_CREAT | os.O_RDWR), 5000))
    tell("copied", lambda: get("b") == get("a")[:5000])
    tell("sync", lambda: (os.fsync(file), os.fsync(folder), libc.syncfs(folder)))

def kinds():
    def pipe():
        os.mkfifo("p")
        reader, writer = os.open("p", os.O_RDONLY | os.O_NONBLOCK), os.open("p", os.O_WRONLY)
        os.write(writer, b"hi")
        return os.read(reader, 9)
    tell("fifo", pipe)
    def talk():
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("s"), server.listen(), client.connect("s")
            server.accept()[0].send(b"yo")
            return client.recv(9)
    tell("socket", talk)
    shutil.copy(shutil.which("sleep"), "sleep")
    tell("run", lambda: subprocess.call(["./sleep", "0"]))
    running = subprocess.Popen(["./sleep", "9"])
    time.sleep(0.2)
    tell("write what runs", lambda: os.open("sleep", os.O_WRONLY))
    tell("replace what runs", lambda: (put("new"), os.rename("new", "sleep"), get("sleep")))
    running.kill()

globals()[chapter]()
