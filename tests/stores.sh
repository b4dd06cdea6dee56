#!/usr/bin/env bash
# Stores in clouds, tested on real servers on loopback: moto (S3), azurite (Azure), and moto again
# for Google. The client speaks Google's XML interface, which is S3's; Google's emulators on PyPI
# and npm do not list by it.
#   tests/stores.sh [FOLDER]     installs into FOLDER (default: a temporary one), starts, tests, stops
# Prints 'N passed, N failed' at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
command -v npm >/dev/null || { apt-get update -q && apt-get install -yq npm; }
python3 -c 'import ensurepip' 2>/dev/null || { apt-get update -q && apt-get install -yq python3-venv; }
[ -x "$folder/venv/bin/moto_server" ] || {
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install -q 'moto[server]'
}
[ -x "$folder/node_modules/.bin/azurite-blob" ] ||
  npm install --loglevel error --fetch-retries 6 --no-audit --no-fund --prefix "$folder" azurite

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
pids=()
stop() { kill "${pids[@]}" 2>/dev/null || true; }
trap stop EXIT
s3=$(port) azure=$(port) google=$(port)
data=$(mktemp -d "$folder/data.XXXX")
start() { "$@" >>"$data/servers.log" 2>&1 & pids+=($!); }
start "$folder/venv/bin/moto_server" -H 127.0.0.1 -p "$s3"
start "$folder/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$azure" --location "$data" \
  --skipApiVersionCheck --disableTelemetry
start "$folder/venv/bin/moto_server" -H 127.0.0.1 -p "$google"
for server in "$s3" "$azure" "$google"; do
  for _ in $(seq 300); do
    (exec 3<>"/dev/tcp/127.0.0.1/$server") 2>/dev/null && continue 2
    sleep 0.2
  done
  echo "a server does not answer:" >&2
  cat "$data/servers.log" >&2
  exit 1
done

export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
export STORAGE_EMULATOR_HOST=http://127.0.0.1:$google
# The account that every azurite has (learn.microsoft.com, "Use the Azurite emulator").
account=devstoreaccount1
key=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
export AZURE_STORAGE_CONNECTION_STRING="AccountName=$account;AccountKey=$key;BlobEndpoint=http://127.0.0.1:$azure/$account"
for server in "$s3" "$google"; do
  python3 -c 'import sys, urllib.request as r; r.urlopen(r.Request(sys.argv[1], method="PUT"), timeout=30)' \
    "http://127.0.0.1:$server/artifacts"
done
python3 - "$azure" "$account" "$key" <<'PYTHON'
# Makes a container, signed with the account's key (learn.microsoft.com, "Authorize with Shared Key").
import base64, email.utils, hashlib, hmac, sys, urllib.request
port, account, key = sys.argv[1:]
date, version = email.utils.formatdate(usegmt=True), "2021-12-02"
resource = f"/{account}/{account}/artifacts\nrestype:container"
text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/{account}/artifacts?restype=container", method="PUT", data=b"",
    headers={"x-ms-date": date, "x-ms-version": version, "Content-Type": "", "Content-Length": "0",
             "Authorization": f"SharedKey {account}:{signature}"})
urllib.request.urlopen(request, timeout=30)
PYTHON
cat >"$data/stores" <<STORES
s3 s3://artifacts endpoint=http://127.0.0.1:$s3
gs gs://artifacts
az az://artifacts
STORES
log=$data/log
ARTIFACTFS_TEST_STORES=$data/stores cargo test --locked --test stores -- --nocapture 2>&1 | tee "$log" || true
line=$(grep '^test result' "$log" || true)
[[ $line =~ ([0-9]+)\ passed\;\ ([0-9]+)\ failed ]] || { echo "the tests did not run" >&2; exit 1; }
echo "${BASH_REMATCH[1]} passed, ${BASH_REMATCH[2]} failed"
[ "${BASH_REMATCH[2]}" -eq 0 ]
