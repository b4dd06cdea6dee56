#!/usr/bin/env bash
# The cost of a run: opens and reads small files inside and outside of one, in turn, and prints a
# table of medians.
#   benches/runs.sh [--quick]        as root, after `cargo build --release`
# Needs python3. ARTIFACTFS names the binary.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${ARTIFACTFS:-$here/target/release/artifactfs}
files=20000 rounds=7
if [ "${1:-}" = --quick ]; then files=1000 rounds=3; fi
work=$(mktemp -d "$here/target/bench.XXXXXX")
export ARTIFACTFS_REPO=$work/repo ARTIFACTFS_LOG=error
cleanup() {
  "$bin" umount --lazy "$work/mnt" >/dev/null 2>&1 || true
  cd / && rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
cat >make.py <<'P'
import os, sys
for n in range(int(sys.argv[1])):
    if n % 1000 == 0: os.makedirs(f"src/{n // 1000}")
    with open(f"src/{n // 1000}/{n}", "wb") as f: f.write(os.urandom(2048))
P
# Seconds of a first pass over all files by path, then of the fastest of three more.
cat >epoch.py <<'P'
import os, sys, time
paths = [f"{sys.argv[1]}/{n // 1000}/{n}" for n in range(int(sys.argv[2]))]
def epoch():
    begun = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as f: f.read()
    return time.perf_counter() - begun
print(epoch(), min(epoch() for _ in range(3)))
P
python3 make.py "$files"
mkdir mnt
"$bin" init repo >/dev/null
"$bin" put -n p/data src >/dev/null
"$bin" mount mnt >/dev/null
python3 epoch.py "$work/mnt/p/data:latest" "$files" >/dev/null
for round in $(seq "$rounds"); do
  python3 epoch.py "$work/mnt/p/data:latest" "$files" >>outside
  "$bin" run -p p -- python3 epoch.py "$work/mnt/p/data:latest" "$files" >>inside
  begun=$(date +%s.%N)
  "$bin" run -p p -- true
  echo "$begun $(date +%s.%N)" >>empty
done
python3 - "$files" <<'P'
import statistics, sys
column = lambda name, index: statistics.median(float(line.split()[index]) for line in open(name))
outside, inside = column("outside", 1), column("inside", 1)
first = column("inside", 0)
empty = statistics.median(float(b) - float(a) for a, b in (line.split() for line in open("empty")))
print("| figure | outside | inside a run | ratio | wanted | met |\n| --- | --- | --- | --- | --- | --- |")
print(f"| {sys.argv[1]} warm files (s) | {outside:.3f} | {inside:.3f} | {inside / outside:.2f}× | ≤ 1.05× | {'yes' if inside <= 1.05 * outside else 'NO'} |")
print(f"| the same, the first pass of each run (s) | {column('outside', 0):.3f} | {first:.3f} | {first / column('outside', 0):.2f}× | | |")
print(f"| a run of `true` (s) | | {empty:.3f} | | | |")
P
