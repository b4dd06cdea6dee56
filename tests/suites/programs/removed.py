"""Removes a directory right after its 300 files were removed and closed, 20 times."""
import os, sys
top = sys.argv[1]
for _ in range(20):
    os.mkdir(top)
    files = [open(f"{top}/{number}", "w") for number in range(300)]
    for number in range(300):
        os.unlink(f"{top}/{number}")
    for file in files:
        file.close()
    os.rmdir(top)
