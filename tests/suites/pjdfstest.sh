# pjdfstest checks what POSIX says of system calls. What passes on the host must pass in the draft.

# glibc answers pathconf(_PC_LINK_MAX) from a table of file systems that lacks FUSE. No daemon receives the call, so
# link_count_max skips itself.
pjdfstest_exceptions='link::link_count_max'

setup() { crate pjdfstest 0.2.2; }

checks() { check pjdfstest 120 check_pjdfstest; }

# Prints the configuration. The erofs tests would remount the machine's root for the reference, so they are off.
pjdfstest_configuration() {
  cat <<EOF
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "$(id -gn nobody)"], ["daemon", "$(id -gn daemon)"]]
EOF
}

# Writes the results. The caller judges failures, so a failure of pjdfstest is none here.
pjdfstest_run() { # DIRECTORY OTHER-FILE-SYSTEM RESULTS
  pjdfstest -c "$reference/pjdfstest.toml" -p "$1" -s "$2" >"$3.log" 2>&1 || true
  awk 'NF == 2 && $2 ~ /^(ok|FAILED|skipped)$/ { print $1, $2 }' "$3.log" | sort >"$3"
  awk '$2 == "ok" { print $1 }' "$3" >"$3.ok"
}

check_pjdfstest() {
  need pjdfstest
  pjdfstest_configuration >"$reference/pjdfstest.toml"
  pjdfstest_run "$reference" "$draft" "$reference/host"
  pjdfstest_run "$draft" "$reference" "$reference/draft"
  local kind ran
  for kind in host draft; do
    ran=$(grep -vc ' skipped$' "$reference/$kind")
    note "$kind: $(wc -l <"$reference/$kind.ok") passed of $ran that ran, $(wc -l <"$reference/$kind") in all"
  done
  # If hardly any test ran, nothing was compared.
  [ "$(wc -l <"$reference/host.ok")" -ge 350 ] || { tail -n 20 "$reference/host.log"; return 1; }
  local lost name
  lost=$(comm -23 "$reference/host.ok" "$reference/draft.ok" | grep -Exv "$pjdfstest_exceptions" || true)
  [ -z "$lost" ] && return
  echo "These pass on the host and not in the draft:"
  for name in $lost; do grep -F -A 3 "$name " "$reference/draft.log" || echo "$name"; done
  return 1
}
