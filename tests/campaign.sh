#!/usr/bin/env bash
# A campaign of disturbances: kills, suspended processes, full disks, failing stores, flipped bytes,
# repairs, containers and bind mounts. Beside them, others put, delete, prune, draft and read. Of
# the kinds, `programs` runs several programs in one draft while it is committed, and `disks` uses
# file systems other than ext4. After each round every acknowledged version is compared byte by
# byte, and the bytes of the store are counted.
#
#   campaign.sh [BINARY] [--seconds N] [--seed S] [--only KINDS | --without KINDS] [--keep]
#
# As root; BINARY is target/release/artifactfs unless given. KINDS are separated by commas: campaign.sh --list names them.
# Prints `N passed, N failed` at the end, and exits with 0 only if nothing was found.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec python3 -B "$here/campaign/main.py" "$@"
