#!/usr/bin/env bash
# Measures artifactfs against plain tools on the same disk in one run, and prints a table of ratios.
#   benches/figures.sh [--quick]
# Needs root (page caches are dropped, mounts are made), python3, hyperfine and fio.
# ARTIFACTFS names the binary, BENCH_DIR the folder to work in (on the disk to be measured).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${ARTIFACTFS:-$here/target/release/artifactfs}
for tool in hyperfine fio python3; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install hyperfine fio python3" >&2; exit 1; }
done
small=20000 many=100000 million=1000000 big_mib=1024
if [ "${1:-}" = --quick ]; then small=1000 many=5000 million=50000 big_mib=64; fi
work=${BENCH_DIR:-$(mktemp -d "$here/target/bench.XXXXXX")}
mkdir -p "$work"; cd "$work"
export ARTIFACTFS_REPO=$work/repo ARTIFACTFS_LOG=error
cleanup() {
  "$bin" umount --lazy "$work/mnt" >/dev/null 2>&1 || true
  cd / && rm -rf "$work"
}
trap cleanup EXIT
mkdir -p mnt

say() { echo "… $*" >&2; }
drop() { sync; echo 3 >/proc/sys/vm/drop_caches; }
fresh_repo() { rm -rf repo; "$bin" init repo >/dev/null; sync; }
mount_it() { "$bin" mount mnt >/dev/null; }
umount_it() { "$bin" umount mnt; }
# median of seconds: med PREPARE COMMAND [RUNS]
med() {
  hyperfine --style none --shell bash --runs "${3:-3}" --prepare "$1" --export-json t.json "$2" >/dev/null 2>&1
  python3 -c 'import json;print(json.load(open("t.json"))["results"][0]["median"])'
}
row() { # figure native ours wanted kind(max|min|abs|text)
  python3 - "$@" <<'P'
import sys
name, native, ours, wanted, kind = sys.argv[1:6]
if kind == "text":
    print(f"| {name} | {native} | {ours} | | {wanted} | |"); sys.exit()
native, ours, limit = float(native), float(ours), float(wanted.split()[0])
if kind == "abs":
    print(f"| {name} | | {ours:.3f} | | ≤ {wanted} | {'yes' if ours <= limit else 'NO'} |"); sys.exit()
ratio = ours / native
good = ratio <= limit if kind == "max" else ratio >= limit
print(f"| {name} | {native:.3f} | {ours:.3f} | {ratio:.2f}× | {'≤' if kind=='max' else '≥'} {wanted}× | {'yes' if good else 'NO'} |")
P
}

cat >make.py <<'P'
import os, sys
root, count, size, per = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 1000
for n in range(count):
    d = f"{root}/{n // per:04d}"
    if n % per == 0: os.makedirs(d, exist_ok=True)
    with open(f"{d}/{n:07d}.bin", "wb") as f: f.write(os.urandom(size))
P
cat >readall.py <<'P'
import os, sys
buf = bytearray(1 << 20); total = 0
for path, dirs, files in os.walk(sys.argv[1]):
    if path.endswith("big"): continue
    for name in files:
        fd = os.open(path + "/" + name, os.O_RDONLY)
        while (count := os.readv(fd, [buf])): total += count
        os.close(fd)
P

echo "| figure | native | artifactfs | ratio | wanted | met |"
echo "| --- | --- | --- | --- | --- | --- |"

say "making $small small files and one of $big_mib MiB"
python3 make.py src/small $small 20480
mkdir -p src/big; head -c ${big_mib}M /dev/urandom >src/big/big.bin
sleep 3; drop; cat src/small/*/* src/big/big.bin >/dev/null

native=$(med "rm -rf copy; sync; cat $work/src/small/*/* src/big/big.bin >/dev/null" "cp -r src copy && sync")
ours=$(med "rm -rf repo; $bin init repo; sync; cat $work/src/small/*/* src/big/big.bin >/dev/null" "$bin put -n p/a src")
row "put, against \`cp -r\` + \`sync\` (s)" "$native" "$ours" 1.0 max
first_put=$ours

native=$(med "rm -rf copy; sync" "cp -r src copy")
ours=$(med "rm -rf out; sync" "$bin get p/a --root out")
row "get, against \`cp -r\` (s)" "$native" "$ours" 1.2 max
rm -rf out copy

say "changing 1 % of the files and inserting 1 MiB"
python3 - src $small <<'P'
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for n in range(0, count, 100):
    with open(f"{root}/small/{n // 1000:04d}/{n:07d}.bin", "wb") as f: f.write(os.urandom(20480))
path = f"{root}/big/big.bin"
data = open(path, "rb").read(); half = len(data) // 2
with open(path, "wb") as f: f.write(data[:half] + os.urandom(1 << 20) + data[half:])
P
sync; sleep 3
changed=$((small / 100 * 20480 + (1 << 20)))
cp -r --reflink=auto repo repo.first
ours=$(med "rm -rf repo; cp -r repo.first repo; sync; cat src/big/big.bin >/dev/null" "$bin --json put -n p/a src >put.json")
stored=$(python3 -c 'import json;print(json.load(open("put.json"))["stored_bytes"])')
read_s=$(med true "cat src/big/big.bin src/small/*/*00.bin >/dev/null")
rm -rf repo.first
row "second put, against 0.1 × first put + reading what changed (s)" "$(python3 -c "print(0.1*$first_put+$read_s)")" "$ours" 1.0 max
row "second put, MiB stored, against what changed" "$(python3 -c "print($changed/2**20)")" "$(python3 -c "print($stored/2**20)")" "$(python3 -c "print(1+2*2**20/$changed)")" max

mount_it
say "reading warm"
# fio treats a colon in a file name as a separator.
a=mnt/p/a@latest
python3 readall.py src/small; python3 readall.py $a/small; cat $a/big/big.bin >/dev/null; cat src/big/big.bin >/dev/null
native=$(med true "python3 readall.py src/small" 5); ours=$(med true "python3 readall.py $a/small" 5)
row "$small small files, warm (s)" "$native" "$ours" 1.3 max
native=$(med true "cat src/big/big.bin >/dev/null" 7); ours=$(med true "cat $a/big/big.bin >/dev/null" 7)
row "sequential, warm (1/s)" "$(python3 -c "print(1/$native)")" "$(python3 -c "print(1/$ours)")" 0.9 min
rand() { fio --name=r --filename="$1" --readonly --rw=randread --bs=4k --ioengine=psync --runtime=3 --time_based --output-format=json 2>/dev/null | python3 -c 'import json,sys;t=sys.stdin.read();print(json.loads(t[t.index("{"):])["jobs"][0]["read"]["iops"])'; }
median3() { python3 -c 'import sys;print(sorted(map(float,sys.argv[1:]))[1])' "$@"; }
n1=$(rand src/big/big.bin) o1=$(rand $a/big/big.bin) n2=$(rand src/big/big.bin) o2=$(rand $a/big/big.bin) n3=$(rand src/big/big.bin) o3=$(rand $a/big/big.bin)
row "random 4 KiB, warm (1/s)" "$(median3 "$n1" "$n2" "$n3")" "$(median3 "$o1" "$o2" "$o3")" 0.9 min
umount_it
rm -rf src repo

say "making $many files"
fresh_repo
python3 make.py many $many 64
"$bin" put -n p/many many >/dev/null
python3 - many <<'P'
import os, sys
for n in range(10): open(f"{sys.argv[1]}/{n*7:04d}/{n*7000+n:07d}.bin" if os.path.isdir(f"{sys.argv[1]}/{n*7:04d}") else f"{sys.argv[1]}/0000/new{n}", "wb").write(os.urandom(64))
P
"$bin" put -n p/many many >/dev/null
native=$(med "sync; echo 3 >/proc/sys/vm/drop_caches" "find many >/dev/null")
ours=$(med "$bin umount mnt 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; $bin mount mnt" "find mnt/p/many:v0 >/dev/null")
row "find over $many files, cold (s)" "$native" "$ours" 1.0 max
native=$(med "sync; echo 3 >/proc/sys/vm/drop_caches" "find many -size +1M >/dev/null")
ours=$(med "$bin umount mnt 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; $bin mount mnt" "find mnt/p/many:v0 -size +1M >/dev/null")
row "find -size over $many files, cold (s)" "$native" "$ours" 1.0 max
find mnt/p/many:v0 >/dev/null; find many >/dev/null
native=$(med true "find many >/dev/null" 5); ours=$(med true "find mnt/p/many:v0 >/dev/null" 5)
row "find over $many files, warm (s)" "$native" "$ours" 1.0 max
umount_it
ours=$(med true "$bin diff p/many:v0 p/many:v1 || true" 7)
row "diff of two versions of $many files that differ in ten (s)" 0 "$ours" 0.05 abs
rm -rf many repo

say "making $million files"
fresh_repo
python3 make.py million $million 8
start=$(date +%s.%N); "$bin" put -n p/million million >/dev/null; end=$(date +%s.%N)
row "put of $million files of 8 bytes (s)" "" "$(python3 -c "print(f'{$end-$start:.1f}')")" "" text
mount_it
find mnt/p/million:latest | wc -l >/dev/null
pid=$("$bin" --json status | python3 -c 'import json,sys;print(json.load(sys.stdin)["mounts"][0]["pid"])')
rss=$(awk '/VmRSS/{print $2/1024}' "/proc/$pid/status")
row "daemon after a walk of $million files (MiB)" 0 "$rss" 300 abs
umount_it
