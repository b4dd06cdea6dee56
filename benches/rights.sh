#!/usr/bin/env bash
# Compares how long a server takes to reply "not found" for an absent project and for a hidden one. It mixes the
# requests at random.
#   benches/rights.sh [BINARY]     BINARY is target/release/artifactfs unless given; needs python3
# Prints the medians and their ratio for each kind of request.
set -euo pipefail
binary=$(realpath "${1:-$(dirname "$0")/../target/release/artifactfs}")
work=$(mktemp -d)
export HOME=$work
unset "${!ARTIFACTFS_@}" "${!XDG_@}"
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
cd "$work"
afs() { "$binary" -q "$@"; }
afs init team >/dev/null
afs serve init --repo team --admin ann >ann.key
exec 3< <(exec "$binary" serve --repo team --listen 127.0.0.1:0 2>server.log)
server=$!
read -ru 3 url
afs login "$url" <ann.key >/dev/null
export ARTIFACTFS_REPO=$url
afs user create eve >eve.key
afs project set secret --visibility private >/dev/null
mkdir source
for number in {1..200}; do echo "$number" >"source/$number"; done
for number in {1..20}; do
  echo "$number" >source/changed
  afs put -n secret/data source >/dev/null
done
python3 - "$url" <<'PYTHON'
import http.client
import random
import statistics
import sys
import time
import urllib.parse

ROUNDS = 3000
url = urllib.parse.urlsplit(sys.argv[1])
key = open("eve.key").read().strip()
server = http.client.HTTPConnection(url.netloc)


def seconds(path):
    begun = time.perf_counter()
    server.request("GET", f"/api/v1{url.path}{path}", headers={"Authorization": f"Bearer {key}"})
    reply = server.getresponse()
    reply.read()
    assert reply.status == 404, reply.status
    return time.perf_counter() - begun


print("| request | hidden (µs) | absent (µs) | ratio |\n| --- | --- | --- | --- |")
for path in ("/artifacts/{}/data", "/artifacts/{}/data/versions", "/versions/{}/data/v3/tree", "/projects/{}/artifacts", "/runs/{}"):
    took = {"secret": [], "absent": []}
    for _ in range(ROUNDS):
        for name in random.sample(sorted(took), 2):
            took[name].append(seconds(path.format(name)))
    hidden, absent = (statistics.median(took[name]) * 1e6 for name in ("secret", "absent"))
    print(f"| `GET {path.format('…')}` | {hidden:.0f} | {absent:.0f} | {hidden / absent:.3f} |")
PYTHON
