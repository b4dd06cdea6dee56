#!/usr/bin/env bash
# Tests that take longer than a minute or need installed programs: power losses, and third-party
# test suites in drafts.
#   tests/long.sh        as root, after `cargo build --release`
# Installs what it needs. Fails if anything failed or could not run; prints `N passed, N failed` at
# the end.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive
command -v xfs_io >/dev/null || { apt-get update -q && apt-get install -yq xfsprogs; }
passed=0 failed=0
# tests/suites/run.sh runs all of fsx. Without passthrough only what reads and writes differently is run.
export FSX_SEEDS=8 STRESS_SECONDS=1
sample='locks|holes|corners|drafts|based|begun|removed|fsx|checkpoints|replaced|sqlite'
cargo test --locked --test long -- --nocapture && passed=$((passed + 1)) || failed=$((failed + 1))
for options in passthrough no_passthrough; do
  echo "# drafts, $options"
  log=$(mktemp)
  only=$([ "$options" = passthrough ] || echo "$sample")
  OPTIONS=$options ONLY=$only tests/suites/run.sh target/release/artifactfs | tee "$log" || true
  counts=$(tail -n 1 "$log")
  [[ $counts =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]] || { echo "the suites broke off" >&2; failed=$((failed + 1)); continue; }
  passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
