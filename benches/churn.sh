#!/usr/bin/env bash
# A small cache under readers that want more than it holds: measures its size on the disk, ten times
# a second, and the daemon's memory.
#   benches/churn.sh FOLDER [SECONDS]      as root, after benches/remote.sh FOLDER has put its files; 600 seconds by default
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(realpath "$1") seconds=${2:-600} limit_mib=256
cd "$folder"
export AWS_ACCESS_KEY_ID=benchkey AWS_SECRET_ACCESS_KEY=benchsecret AWS_REGION=us-east-1
bin=("$here/target/release/artifactfs" --repo "$folder/repo" --cache-dir "$folder/cache.churn" --cache-size "${limit_mib}MiB")
pids=()
stop() {
  kill "${pids[@]}" 2>/dev/null || true
  "${bin[@]}" umount --lazy mnt.churn >/dev/null 2>&1 || true
}
trap stop EXIT
rm -rf cache.churn
mkdir -p mnt.churn cache.churn
s3s/bin/s3s-fs --host 127.0.0.1 --port 9100 --access-key benchkey --secret-key benchsecret s3 >s3.log 2>&1 & pids+=($!)
"$here/target/release/examples/proxy" 127.0.0.1:9101 127.0.0.1:9100 2 counts & pids+=($!)
sleep 1
"${bin[@]}" mount mnt.churn >/dev/null
daemon=$(pgrep -f "mount --foreground.*$folder/mnt.churn" | head -1)
python3 - "$folder/mnt.churn/p" "$seconds" "$folder/cache.churn" "$limit_mib" "$daemon" <<'P'
import os, random, sys, threading, time
root, seconds, cache, limit, daemon = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4]) << 20, sys.argv[5]
end, read, errors = time.time() + seconds, 0, 0
def taken(folder):
    total = 0
    try:
        for entry in os.scandir(folder):
            try:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
            if entry.is_dir(follow_symlinks=False): total += taken(entry.path)
    except FileNotFoundError:
        pass
    return total
def small(seed):
    global read, errors
    pick = random.Random(seed)
    while time.time() < end:
        n = pick.randrange(20000)
        try:
            with open(f"{root}/files:latest/{n // 1000:02}/{n % 1000:04}.bin", "rb", buffering=0) as f: read += len(f.read())
        except OSError: errors += 1
def large(seed):
    global read, errors
    pick = random.Random(seed)
    with open(f"{root}/one:latest/big", "rb", buffering=0) as f:
        while time.time() < end:
            try:
                f.seek(pick.randrange(1000) << 20)
                read += len(f.read(4 << 20))
            except OSError: errors += 1
def forget():
    # Otherwise the page cache would serve all reads.
    while time.time() < end:
        time.sleep(5)
        with open("/proc/sys/vm/drop_caches", "w") as f: f.write("1")
threads = [threading.Thread(target=work, args=(seed,)) for seed, work in enumerate([small] * 4 + [large] * 2)]
threads.append(threading.Thread(target=forget))
for thread in threads: thread.start()
samples = []
while time.time() < end:
    samples.append(taken(cache))
    time.sleep(0.1)
for thread in threads: thread.join()
rss = next(int(line.split()[1]) // 1024 for line in open(f"/proc/{daemon}/status") if line.startswith("VmHWM"))
print("| seconds | samples | read (GiB) | errors | most in the cache (MiB) | its bound (MiB) | samples above | daemon's largest RSS (MiB) |")
print("| --- " * 8 + "|")
print(f"| {seconds:.0f} | {len(samples)} | {read / 2**30:.1f} | {errors} | {max(samples) / 2**20:.1f} | {limit >> 20} | {sum(s > limit for s in samples)} | {rss} |")
P
