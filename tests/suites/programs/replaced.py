"""Looks up a name by several calls while another process replaces its file; each call must find a file."""
import collections, errno, os, sys, time
path = sys.argv[1] + "/file"
open(path, "w").close()
os.setxattr(path, "user.x", b"")

def replace():
    until = time.monotonic() + 8
    while time.monotonic() < until:
        with open(path + ".tmp", "w"):
            os.setxattr(path + ".tmp", "user.x", b"")
        os.rename(path + ".tmp", path)

def ask(what):
    try:
        what()
        return "found"
    except OSError as error:
        return errno.errorcode[error.errno]

child = os.fork()
if child == 0:
    replace()
    os._exit(0)
acts = {
    "open": lambda: os.close(os.open(path, os.O_RDONLY)),
    "stat": lambda: os.stat(path),
    "chmod": lambda: os.chmod(path, 0o644),
    "utime": lambda: os.utime(path),
    "getxattr": lambda: os.getxattr(path, "user.x"),
    "truncate": lambda: os.truncate(path, 1),
}
said = {name: collections.Counter() for name in acts}
while os.waitpid(child, os.WNOHANG) == (0, 0):
    for name, act in acts.items():
        said[name][ask(act)] += 1
for name, counts in said.items():
    print(name, dict(counts))
always = all(counts["found"] > 100 and set(counts) == {"found"} for counts in said.values())
assert always, "a name that was always there was not found"
