#!/usr/bin/env python3
"""Lists every file below folders, with a digest of its bytes: a JSON array of lines.

    list.py FOLDER...

A line is the path below the folder's parent, a kind, and what the kind has: `directory`,
`symlink TARGET`, `file SHA256` or `executable SHA256`.
"""

import hashlib
import json
import os
import sys


def text(name):
    """Returns a name or target as text; bytes that are not UTF-8 are escaped."""
    return name.decode(errors="backslashreplace")


def lines(path, name):
    """Yields the lines of `path` and of all below it."""
    if os.path.islink(path):
        yield f"{text(name)} symlink {text(os.readlink(path))}"
    elif os.path.isdir(path):
        yield f"{text(name)} directory"
        for entry in sorted(os.listdir(path)):
            yield from lines(os.path.join(path, entry), name + b"/" + entry)
    else:
        kind = "executable" if os.stat(path).st_mode & 0o100 else "file"
        with open(path, "rb") as file:
            yield f"{text(name)} {kind} {hashlib.sha256(file.read()).hexdigest()}"


folders = [os.fsencode(folder) for folder in sys.argv[1:]]
listed = [line for folder in folders for line in lines(folder, os.path.basename(folder))]
print(json.dumps(listed, indent=2))
