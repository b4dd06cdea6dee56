#!/usr/bin/env bash
# A campaign of disturbances: kills, suspended processes, full disks, stores that fail, flipped bytes, repairs, containers and bind
# mounts, beside puts, deletes, prunes, drafts and readers (and, of the kinds, `programs`: several programs at work in one draft
# while it is committed; `disks`: other file systems than ext4). After each round every acknowledged version is compared byte by
# byte, and the bytes of the store are counted.
#
#   campaign.sh [BINARY] [--seconds N] [--seed S] [--only KINDS | --without KINDS] [--keep]
#
# As root; BINARY is target/release/artifactfs unless given. KINDS are separated by commas: campaign.sh --list names them.
# Prints `N passed, N failed` at the end, and ends with 0 only when nothing was found.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec python3 -B "$here/campaign/main.py" "$@"
