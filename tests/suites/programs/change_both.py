"""Makes the same random changes to a draft and to a copy; each must have the same result in both."""
import errno, os, random, shutil, sys
tops, seed = sys.argv[1:3], int(sys.argv[3])
rng, made, counts = random.Random(seed), seed * 10_000, {}

def cut(at, size):
    os.truncate(at, size)

def write(at, offset, more):
    file = os.open(at, os.O_RDWR)
    os.pwrite(file, more, offset)
    os.close(file)

def append(at, more):
    with open(at, "ab") as file:
        file.write(more)

def replace(at, content):
    with open(at + ".tmp", "wb") as file:
        file.write(content)
    os.rename(at + ".tmp", at)

def executable(at):
    os.chmod(at, os.lstat(at).st_mode ^ 0o111)

def paths():
    """Returns the files and folders of the copy; the draft has the same."""
    files, folders = [], []
    for at, below, names in os.walk(tops[1]):
        files += [os.path.relpath(f"{at}/{name}", tops[1]) for name in names if not os.path.islink(f"{at}/{name}")]
        folders += [os.path.relpath(f"{at}/{name}", tops[1]) for name in below]
    return sorted(files), sorted(folders)

def choose():
    global made
    made += 1
    file, other, folder, second = rng.choice(files), rng.choice(files), rng.choice(folders), rng.choice(folders)
    more, at = rng.randbytes(rng.choice([1, 100, 9000])), rng.choice([0, 10, 5000, 1_000_000])
    new = f"{folder}/new-{made}"
    return rng.choice([
        (cut, file, at), (write, file, at, more), (append, file, more), (replace, file, more), (executable, file),
        (os.unlink, file), (os.rename, file, "/" + new), (os.rename, file, "/" + other),
        (os.rename, folder, "/" + new), (os.rename, folder, "/" + second), (os.mkdir, new), (os.rmdir, folder),
        (os.link, file, "/" + new), (shutil.copyfile, file, "/" + new),
        (shutil.rmtree, folder) if made % 5 == 0 and "/" in folder else (os.symlink, new, "/" + file),
    ])

def run(top, act, *arguments):
    # The first argument is a path, and so is each that begins with a slash. The first of a symlink is its target.
    first = arguments[0] if act is os.symlink else f"{top}/{arguments[0]}"
    rest = [top + one if isinstance(one, str) else one for one in arguments[1:]]
    try:
        act(first, *rest)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]

for number in range(2000):
    if number % 10 == 0:
        files, folders = paths()
    chosen = choose()
    seen, expected = (run(top, *chosen) for top in tops)
    assert seen == expected, f"{chosen[0].__name__} {[str(one)[:60] for one in chosen[1:]]}: {seen} and not {expected}"
    name = f"{chosen[0].__name__} {seen}"
    counts[name] = counts.get(name, 0) + 1
print(counts)
assert sum(name.endswith("done") and count > 5 for name, count in counts.items()) >= 9, "hardly anything was done"
