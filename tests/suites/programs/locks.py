"""Takes flock and fcntl locks in several processes, and kills those that hold them."""
import errno, fcntl, os, signal, sys, time
path = sys.argv[1]
open(path, "wb").write(bytes(100))

def flock(file, how):
    fcntl.flock(file, how)

def posix(file, how, *part):
    fcntl.lockf(file, how, *part)

def holder(lock, how, *part):
    """Starts a process that holds a lock until it is killed."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        file = open(path, "r+b")
        lock(file, how, *part)
        os.write(into, b"1")
        time.sleep(60)
        os._exit(0)
    assert os.read(out, 1) == b"1"
    os.close(out), os.close(into)
    return child

def may(lock, how, *part):
    with open(path, "r+b") as file:
        try:
            lock(file, how | fcntl.LOCK_NB, *part)
            return True
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EACCES), error
            return False

def kill(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

def free_soon(lock):
    # The kernel drops the lock with the last reference to the file, a moment after the process ends.
    until = time.monotonic() + 5
    while not may(lock, fcntl.LOCK_EX):
        assert time.monotonic() < until, f"{lock.__name__}: still held by a process that was killed"
        time.sleep(0.01)

for lock in (flock, posix):
    name = lock.__name__
    child = holder(lock, fcntl.LOCK_EX)
    assert not may(lock, fcntl.LOCK_EX), f"{name}: two exclusive locks"
    assert not may(lock, fcntl.LOCK_SH), f"{name}: shared beside exclusive"
    kill(child)
    free_soon(lock)
    child = holder(lock, fcntl.LOCK_SH)
    assert may(lock, fcntl.LOCK_SH), f"{name}: two shared locks refused"
    assert not may(lock, fcntl.LOCK_EX), f"{name}: exclusive beside shared"
    kill(child)
    free_soon(lock)

child = holder(posix, fcntl.LOCK_EX, 10, 20)
assert not may(posix, fcntl.LOCK_EX, 1, 25), "ranges that overlap"
assert may(posix, fcntl.LOCK_EX, 10, 30) and may(posix, fcntl.LOCK_EX, 20, 0), "ranges that do not overlap"
assert may(flock, fcntl.LOCK_EX), "the two kinds of locks meet"
kill(child)

# A process that waits gets the lock when the holder dies.
for lock in (flock, posix):
    child = holder(lock, fcntl.LOCK_EX)
    waiter = os.fork()
    if waiter == 0:
        with open(path, "r+b") as file:
            lock(file, fcntl.LOCK_EX)
        os._exit(0)
    time.sleep(0.3)
    assert os.waitpid(waiter, os.WNOHANG) == (0, 0), f"{lock.__name__}: did not wait"
    kill(child)
    assert os.waitpid(waiter, 0)[1] == 0
