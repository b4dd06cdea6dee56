"""Replaces a checkpoint 500 times, as training programs do, while two readers verify each one they read."""
import hashlib, os, random, signal, sys
TIMES = 500
directory, path = sys.argv[1], sys.argv[1] + "/checkpoint.pt"

def save(number, rng):
    body = number.to_bytes(8, "big") + rng.randbytes(rng.randrange(400_000))
    with open(path + ".tmp", "wb") as file:
        file.write(hashlib.sha256(body).digest())
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

def load():
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        whole = file.read()
    assert len(whole) == length, f"{len(whole)} bytes read of {length}"
    assert hashlib.sha256(whole[32:]).digest() == whole[:32], f"a torn file of {length} bytes"
    return int.from_bytes(whole[32:40], "big")

def read_on():
    last = reads = 0
    while last < TIMES:
        now = load()
        assert now >= last, f"went back from {last} to {now}"
        last, reads = now, reads + 1
    print(reads, "reads", flush=True)
    assert reads > 50

def start(body):
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return child

rng = random.Random(1)
save(1, rng)
readers = [start(read_on) for _ in range(2)]
for number in range(2, TIMES + 1):
    save(number, rng)
assert all(os.waitpid(reader, 0)[1] == 0 for reader in readers), "a reader failed"
assert os.listdir(directory) == ["checkpoint.pt"], os.listdir(directory)
