"""Punches, zeroes, allocates and truncates a file, and prints its size, blocks, data and content after each step.

Collapsing and inserting ranges are left out because Linux passes neither on to a FUSE file system.
"""
import ctypes, ctypes.util, errno, hashlib, os, subprocess, sys
libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
path = sys.argv[1] + "/file"
file = os.open(path, os.O_RDWR | os.O_CREAT)

def seek(offset, whence):
    try:
        return os.lseek(file, offset, whence)
    except OSError as error:
        return errno.errorcode[error.errno]

def parts():
    found, at = [], 0
    while isinstance(at, int):
        begin = seek(at, os.SEEK_DATA)
        if not isinstance(begin, int):
            return found + [begin]
        at = seek(begin, os.SEEK_HOLE)
        found.append((begin, at))
        if at == os.fstat(file).st_size:
            return found

def tell(what):
    # The host knows its blocks only after they are on disk.
    os.fsync(file)
    stat = os.fstat(file)
    digest = hashlib.sha256(os.pread(file, stat.st_size, 0)).hexdigest()[:12]
    print(what, "size", stat.st_size, "blocks", stat.st_blocks, "data", parts(), digest)

def allocate(mode, offset, length):
    done = libc.fallocate64(file, mode, offset, length)
    return "done" if done == 0 else errno.errorcode[ctypes.get_errno()]

tell("new")
os.pwrite(file, b"a" * (1 << 20), 0)
tell("written")
os.ftruncate(file, 4 << 20)
tell("longer")
os.pwrite(file, b"b" * 8192, 3 << 20)
tell("island")
for offset, length in [(65536, 65536), (200_001, 50_000), (0, 4096), (3 << 20, 8192), (4 << 20, 4096), (4095, 2)]:
    tell(f"punch {offset} {length} {allocate(PUNCH_HOLE | KEEP_SIZE, offset, length)}")
print("punch without keep-size", allocate(PUNCH_HOLE, 0, 4096))
tell(f"zero {allocate(ZERO_RANGE, 300_000, 100_000)}")
tell(f"zero past the end {allocate(ZERO_RANGE, 5 << 20, 4096)}")
tell(f"allocate {allocate(0, 1 << 20, 1 << 20)}")
tell(f"allocate past the end {allocate(0, 6 << 20, 65536)}")
tell(f"allocate and keep the size {allocate(KEEP_SIZE, 8 << 20, 65536)}")
print("nothing", allocate(0, 0, 0), "negative", allocate(0, -1, 10))
for size in [7 << 20, 100, 1 << 20, 0, 12345, 10 << 20]:
    os.ftruncate(file, size)
    tell(f"truncate {size}")
for offset in [0, 12344, 12345, (10 << 20) - 1, 10 << 20, (10 << 20) + 1]:
    print("seek", offset, seek(offset, os.SEEK_DATA), seek(offset, os.SEEK_HOLE))
os.pwrite(file, b"c" * 5000, 5 << 20)
tell("in the middle")
subprocess.run(["cp", "--sparse=always", path, path + "-copy"], check=True)
subprocess.run(["cp", "--sparse=auto", path, path + "-auto"], check=True)
subprocess.run(["fallocate", "--dig-holes", path], check=True)
tell("dug")
for name in ["-copy", "-auto"]:
    file = os.open(path + name, os.O_RDWR)
    tell(name)
read_only = os.open(path, os.O_RDONLY)
print("read-only", libc.fallocate64(read_only, 0, 0, 10), errno.errorcode[ctypes.get_errno()])
