"""Makes three files with holes; one of them has no data."""
import os, sys
def sparse(name, length, *at):
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        file.truncate(length)
        for offset in at:
            file.seek(offset)
            file.write(os.urandom(65536))
sparse("sparse", 64 << 20, 0, 5 << 20, 40 << 20)
sparse("all-hole", 100 << 20)
sparse("hole-last", 32 << 20, 1 << 20)
