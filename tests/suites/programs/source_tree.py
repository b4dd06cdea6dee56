"""Makes 3,000 small text files, some of them executable, and symlinks below a directory."""
import os, random, sys
rng = random.Random(1)
for number in range(3000):
    folder = f"{sys.argv[1]}/{number % 40}/{number % 7}"
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/{number}.txt"
    with open(path, "w") as file:
        file.writelines(f"{rng.random()}\n" for _ in range(rng.randrange(60)))
    if number % 50 == 0:
        os.chmod(path, 0o755)
    if number % 100 == 0:
        os.symlink(f"{number}.txt", f"{folder}/link-{number}")
