#!/usr/bin/env bash
# A repository on a server that is 20 ms away, with PostgreSQL beside the server and a bucket 20 ms
# away from everybody, against a repository on this machine with the same bucket.
#   benches/served.sh [FOLDER]    as root, after `cargo build --release --examples --bins`; needs 4 GiB in FOLDER
# Prints seconds (medians of RUNS, 3) and the requests that each verb made to the server.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD folder=$(realpath -m "${1:-$(mktemp -d)}") runs=${RUNS:-3} rtt=${RTT:-20}
mkdir -p "$folder" && chmod 755 "$folder"
cd "$folder"
export DEBIAN_FRONTEND=noninteractive AWS_ACCESS_KEY_ID=benchkey AWS_SECRET_ACCESS_KEY=benchsecret AWS_REGION=us-east-1
export AWS_ENDPOINT_URL=http://127.0.0.1:9111 ARTIFACTFS_CONFIG=/dev/null
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1 || true)
[ -n "$bin" ] || { apt-get update -q && apt-get install -yq postgresql; bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); } >/dev/null
[ -x s3s/bin/s3s-fs ] || cargo install -q s3s-fs --version 0.14.1 --features binary --root s3s
[ -d src1 ] || python3 - "$runs" <<'PYTHON'
import os, random, sys
for run in range(1, int(sys.argv[1]) + 1):
    random.seed(run)
    for folder in range(20):
        os.makedirs(f"src{run}/{folder:02}")
        for file in range(1000):
            with open(f"src{run}/{folder:02}/{file:04}.bin", "wb") as out:
                out.write(random.randbytes(20480))
    os.makedirs(f"small{run}")
    open(f"small{run}/a", "w").write(f"small file {run}")
PYTHON
pids=()
stop() { kill "${pids[@]}" 2>/dev/null || true; su postgres -s /bin/sh -c "$bin/pg_ctl -D $folder/pg -m immediate stop" >/dev/null 2>&1 || true; }
trap stop EXIT
rm -rf pg s3 team repo home && mkdir -p s3/bench pg home && chown postgres pg
su postgres -s /bin/sh -c "$bin/initdb -D $folder/pg -A trust >/dev/null && $bin/pg_ctl -D $folder/pg -o '-p 9132 -k $folder/pg' -l $folder/pg/log -w start >/dev/null"
s3s/bin/s3s-fs --host 127.0.0.1 --port 9110 --access-key benchkey --secret-key benchsecret s3 >s3.log 2>&1 & pids+=($!)
"$here/target/release/examples/proxy" 127.0.0.1:9111 127.0.0.1:9110 "$rtt" bucket.counts & pids+=($!)
"$here/target/release/examples/proxy" 127.0.0.1:9121 127.0.0.1:9120 "$rtt" server.counts & pids+=($!)
artifactfs=$here/target/release/artifactfs
"$artifactfs" init team --registry postgres://postgres@127.0.0.1:9132/postgres --store s3://bench/team >/dev/null
"$artifactfs" --repo team serve init --admin ann 2>/dev/null >key
"$artifactfs" --repo team serve --listen 127.0.0.1:9120 >serve.out 2>serve.log & pids+=($!)
while ! [ -s serve.out ]; do sleep 0.1; done
"$artifactfs" init repo --store s3://bench/repo >/dev/null
export HOME=$folder/home XDG_STATE_HOME= XDG_CONFIG_HOME=
"$artifactfs" login http://127.0.0.1:9121 <key >/dev/null 2>&1
embedded() { "$artifactfs" --repo "$folder/repo" --cache-dir "$folder/cache.repo" "$@"; }
served() { "$artifactfs" --repo http://127.0.0.1:9121/team --cache-dir "$folder/cache.team" "$@"; }
requests() { sleep 0.4; cut -d' ' -f1 server.counts; }
now() { date +%s.%N; }
# seconds of one run of a verb on a system
once() { local start; start=$(now); "$@" >/dev/null; echo "$(now) - $start" | bc; }
median() { sort -n | sed -n "$(((runs + 1) / 2))p"; }
# what, arguments with K for the number of the run: a row with the medians and the requests to the server
measure() {
  local what=$1 system times=() row=() before after k
  shift
  for system in embedded served; do
    times=()
    for k in $(seq "$runs"); do
      rm -rf "$folder/got" cache.repo cache.team
      [ $system = served ] && before=$(requests)
      times+=("$(once $system "${@//K/$k}")")
      [ $system = served ] && after=$(requests)
    done
    row+=("$(printf '%s\n' "${times[@]}" | median)")
  done
  printf '| %s | %.2f | %.2f | %s | %s |\n' "$what" "${row[0]}" "${row[1]}" \
    "$(echo "scale=2; ${row[1]} / ${row[0]}" | bc)×" "$((after - before))"
}
embedded ls >/dev/null && served ls >/dev/null
echo "| verb | on this machine (s) | through the server (s) | ratio | requests to the server |"
echo "| --- | --- | --- | --- | --- |"
measure "put of 20,000 files of 20 KiB" put -n p/filesK srcK
measure "put of the same again" put -n p/files1 src1
measure "put of one small file" put -n p/oneK smallK
measure "show of a version" show p/files1:latest
measure "get of 20,000 files, cold" get p/files1 --root "$folder/got"
