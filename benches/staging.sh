#!/usr/bin/env bash
# Measures drafts against ext4 on the same disk in one run, and prints a table of ratios.
#   benches/staging.sh [--quick]
# Needs root (mounts, tracefs), python3, and b3sum (`cargo install b3sum`). After
#   cargo build --release && cargo build --release --example bare
# ARTIFACTFS names the binary, BENCH_DIR the folder to work in (on the disk to be measured).
# Nothing is deleted before the end: ext4 is slow to make files where many were deleted minutes ago.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
bin=${ARTIFACTFS:-$target/release/artifactfs} bare=$target/release/examples/bare
for tool in python3 b3sum bc; do command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 1; }; done
small=20000 million=1000000 big_mib=2048 runs=3
if [ "${1:-}" = --quick ]; then small=1000 million=20000 big_mib=64 runs=1; fi
work=${BENCH_DIR:-$(mktemp -d "$here/target/bench.XXXXXX")}
mkdir -p "$work"; cd "$work"
export ARTIFACTFS_REPO=$work/repo ARTIFACTFS_LOG=error
trace=/sys/kernel/tracing
cleanup() {
  "$bin" umount --lazy "$work/v" >/dev/null 2>&1 || true
  umount -l "$work/bare-mount" 2>/dev/null || true
  cd / && rm -rf "$work"
}
trap cleanup EXIT
mkdir -p v s bare-mount bare-source

say() { echo "… $*" >&2; }
mount_it() { "$bin" mount v --staging s -o "$1" >/dev/null; }
umount_it() { "$bin" umount v; }
# Memory that was free for a while is slow to touch on a virtual machine that gives it back to its host.
warm() { sync; head -c "$((big_mib << 20))" /dev/zero >warm; rm warm; }
seconds() { # COMMAND… : how long it takes
  local began ended
  [ "${1:-}" = cp ] && [ "${*: -2:1}" = big ] && warm || sync
  began=$(date +%s.%N); "$@" >/dev/null; ended=$(date +%s.%N)
  echo "$ended - $began" | bc
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
row() { # FIGURE NATIVE OURS WANTED max|min|abs|text
  python3 - "$@" <<'P'
import sys
name, native, ours, wanted, kind = sys.argv[1:6]
if kind == "text": print(f"| {name} | {native} | {ours} | | {wanted} | |"); sys.exit()
ours, limit = float(ours), float(wanted)
if kind == "abs": print(f"| {name} | | {ours:.3f} | | ≤ {wanted} | {'yes' if ours <= limit else 'NO'} |"); sys.exit()
ratio = ours / float(native)
good = ratio <= limit if kind == "max" else 1 / ratio >= limit
sign = "≤" if kind == "max" else "≥"
shown = ratio if kind == "max" else 1 / ratio
print(f"| {name} | {float(native):.3f} | {ours:.3f} | {shown:.2f}× | {sign} {wanted}× | {'yes' if good else 'NO'} |")
P
}

say "making $small small files and one of $big_mib MiB"
python3 - "$small" "$big_mib" <<'P'
import os, sys
for n in range(int(sys.argv[1])):
    folder = f"small/{n // 1000:02d}"; os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{n:06d}.bin", "wb") as file: file.write(os.urandom(4096))
with open("big", "wb") as file:
    for _ in range(int(sys.argv[2])): file.write(os.urandom(1 << 20))
P
cat big small/*/* >/dev/null
"$bin" init repo >/dev/null
echo "| figure | native | artifactfs | ratio | wanted | met |"
echo "| --- | --- | --- | --- | --- | --- |"

for mode in passthrough no_passthrough; do
  say "copying the big file, $mode"
  mount_it $mode
  for ((run = 0; run < runs; run++)); do
    mkdir -p "native" "s/p/big-$mode-$run"
    seconds cp big "native/$mode-$run" >>"native-$mode"
    seconds cp --reflink=never big "native/$mode-$run-rw" >>"native-rw-$mode"
    seconds cp big "s/p/big-$mode-$run/big" >>"ours-$mode"
    seconds "$bin" commit "p/big-$mode-$run" >>"commit-$mode"
    # A deletion frees the disk; the files are few.
    rm "native/$mode-$run" "native/$mode-$run-rw"
    "$bin" draft discard "p/big-$mode-$run"; "$bin" delete "p/big-$mode-$run" --delete-aliases >/dev/null
  done
  umount_it
done
for kind in passthrough:0.9 no_passthrough:0.5; do
  mode=${kind%%:*} wanted=${kind##*:}
  row "cp of $big_mib MiB, $mode (speed)" "$(median <native-$mode)" "$(median <ours-$mode)" "$wanted" min
  row "… against a native cp that reads and writes, as between any two file systems" "$(median <native-rw-$mode)" "$(median <ours-$mode)" "$wanted" min
done

say "b3sum and cp"
for ((run = 0; run < runs; run++)); do
  { seconds b3sum big; seconds cp big "native/b3-$run"; } | paste -sd+ | bc >>b3cp
  { seconds b3sum big; seconds bash -c "cp big native/b3s-$run && sync -f native/b3s-$run"; } | paste -sd+ | bc >>b3cps
  rm "native/b3-$run" "native/b3s-$run"
done
for mode in passthrough no_passthrough; do
  row "commit of $big_mib MiB just written, durable, $mode, against b3sum + cp" "$(median <b3cp)" "$(median <commit-$mode)" 0.6 max
  row "… against b3sum + cp + sync" "$(median <b3cps)" "$(median <commit-$mode)" 0.6 max
done

say "copying small files, all on one CPU"
for ((run = 0; run < runs; run++)); do
  mkdir -p "bare-source/$run"
  taskset -c 0 "$bare" bare-source bare-mount & until mountpoint -q bare-mount; do sleep 0.05; done
  seconds taskset -c 0 cp -r small "native/small-$run" >>native-small
  seconds taskset -c 0 cp -r small "bare-mount/$run/small" >>bare-small
  umount bare-mount; wait
  for mode in passthrough no_passthrough; do
    taskset -c 0 "$bin" mount v --staging s -o $mode >/dev/null
    mkdir -p "s/p/small-$mode-$run"
    seconds taskset -c 0 cp -r small "s/p/small-$mode-$run/small" >>"small-$mode"
    umount_it
  done
done
for mode in passthrough no_passthrough; do
  row "cp -r of $small files, one CPU, $mode" "$(median <native-small)" "$(median <small-$mode)" 4 max
done
row "the same through a bare fuser file system" "$(median <native-small)" "$(median <bare-small)" "" text

say "counting round trips"
mountpoint -q $trace || mount -t tracefs none $trace
mount_it passthrough
mkdir -p s/p/counted
echo 0 >$trace/tracing_on; echo >$trace/trace; echo 65536 >$trace/buffer_size_kb
echo 1 >$trace/events/fuse/fuse_request_send/enable; echo 1 >$trace/tracing_on
cp -r small/00 s/p/counted/x
echo 0 >$trace/tracing_on; echo 0 >$trace/events/fuse/fuse_request_send/enable
python3 - <<'P'
import collections, re
count = collections.Counter(re.findall(r"fuse_request_send:.*?opcode \d+ \((\w+)\)", open("/sys/kernel/tracing/trace").read()))
total = 1000
print("| requests for each of 1000 new files | | " + ", ".join(f"{name.removeprefix('FUSE_')} {n / total:.2f}" for name, n in count.most_common(7)) + " | | LOOKUP, CREATE | |")
P
umount_it

say "a version of $million files"
python3 - "$million" <<'P'
import os, sys
for n in range(int(sys.argv[1])):
    folder = f"many/{n // 1000:04d}"
    if n % 1000 == 0: os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{n:07d}", "wb") as file: file.write(n.to_bytes(8, "little"))
P
"$bin" put -n p/many many >/dev/null
mount_it passthrough
for ((run = 0; run < runs; run++)); do
  seconds "$bin" draft p/many:v0 >>draft-many
  python3 - "$million" <<'P'
import os, random, sys
random.seed(os.getpid())
for n in random.sample(range(int(sys.argv[1])), 100):
    with open(f"s/p/many/{n // 1000:04d}/{n:07d}", "wb") as file: file.write(os.urandom(16))
P
  seconds "$bin" commit p/many >>commit-many
  "$bin" draft discard p/many
done
row "draft of a version of $million files (s)" 0 "$(median <draft-many)" 0.2 abs
row "commit of that draft with 100 files changed (s)" 0 "$(median <commit-many)" 1 abs
say "cp -r of 100 of its folders"
mkdir -p s/p/copied
folders=$(printf 's/p/many:v0/%04d ' $(seq 0 $((million / 1000 > 100 ? 99 : million / 1000 - 1))))
copied=$(seconds cp -r $folders s/p/copied/)
row "cp -r of $(find s/p/copied -type f | wc -l) files of a version into a draft (s)" "" "$copied" "" text
umount_it
