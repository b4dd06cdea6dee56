#!/usr/bin/env bash
# A binary that was built with --no-default-features: what it does, and what it refuses in clear words.
#   tests/lean.sh BINARY
# Run as root: it mounts. Prints 'N passed, N failed'.
set -euo pipefail
bin=$(realpath "${1:?tests/lean.sh BINARY}")
work=$(mktemp -d)
export ARTIFACTFS_REPO=$work/repo XDG_CACHE_HOME=$work/cache
passed=0 failed=0
cleanup() {
  "$bin" umount --lazy "$work/mnt" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT
check() { # name command…
  local name=$1; shift
  if "$@" >"$work/out" 2>&1; then
    passed=$((passed + 1)); echo "ok   $name"
  else
    failed=$((failed + 1)); echo "FAIL $name"; tail -n 20 "$work/out"
  fi
}
# Succeeds if the command fails because the feature was left out, and the error names $2.
refuses() { # feature subject argument…
  local feature=$1 subject=$2; shift 2
  if "$bin" "$@" >"$work/said" 2>&1; then
    echo "it was done"
    return 1
  fi
  cat "$work/said"
  grep -q "without the feature $feature" "$work/said" && grep -qF -- "$subject" "$work/said"
}
mkdir -p "$work/mnt" "$work/tree/folder"
seq 100000 >"$work/tree/folder/numbers"
echo hello >"$work/tree/hello.txt"
echo '{"columns": ["a"], "data": [[1]]}' >"$work/tree/a.table.json"

check "init" "$bin" init
check "put" "$bin" put -n lean/tree "$work/tree"
check "ls" bash -c "'$bin' ls lean/tree:v0 | grep -q hello.txt"
check "get" "$bin" get lean/tree:v0 --root "$work/got"
check "what it got is the same" diff -r "$work/tree" "$work/got"
check "a file of this machine is recorded" "$bin" put -n lean/outside --reference "file://$work/tree/folder"
check "mount" "$bin" mount "$work/mnt"
check "the mounted version is the same" diff -r "$work/tree" "$work/mnt/lean/tree:v0"
check "the mounted external file is the same" cmp "$work/tree/folder/numbers" "$work/mnt/lean/outside:v0/numbers"
check "umount" "$bin" umount "$work/mnt"
check "fsck" "$bin" fsck

for url in s3://b/p gs://b/p az://b/p https://localhost/p; do
  check "no store at $url" refuses clouds "$url" init "$work/other" --store "$url"
  check "no external file at $url" refuses clouds servers put -n lean/far --reference "$url"
done
check "no shared registry" refuses postgres postgres://u@h/d init "$work/other" --registry postgres://u@h/d
check "a repository is left nowhere" test ! -e "$work/other"
check "no copy to a cloud" refuses clouds s3://b/p copy-store file:store s3://b/p
check "no table is shown" refuses tables '`table show`' table show lean/tree:v0/a.table.json --format csv
check "no tables are joined" refuses tables '`table partition`' table partition lean/tree:v0 folder joined
check "no metrics are served" refuses server 127.0.0.1 mount "$work/mnt" --metrics-listen 127.0.0.1:0
check "and nothing is mounted then" bash -c "! mountpoint -q '$work/mnt'"
sed -i 's|"file:store"|"s3://b/p"|' "$ARTIFACTFS_REPO"/*.json
check "no repository in a cloud" refuses clouds s3://b/p ls

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
