"""Writes, reads back and removes files until a stop file exists."""
import os, random, sys
top, stop = sys.argv[1:]
rng, have, number = random.Random(top), {}, 0
while not os.path.exists(stop):
    number += 1
    path, content = f"{top}/{number % 50}/{number}", rng.randbytes(rng.randrange(100_000))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    have[path] = content
    old = rng.choice(list(have))
    with open(old, "rb") as file:
        assert file.read() == have[old], old
    if len(have) > 100:
        os.unlink(old)
        del have[old]
left = {os.path.join(at, name) for at, _, names in os.walk(top) for name in names}
assert left == set(have), left ^ set(have)
for path, content in have.items():
    with open(path, "rb") as file:
        assert file.read() == content, path
assert number > 100, number
print(number, "files")
