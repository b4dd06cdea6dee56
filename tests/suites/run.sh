#!/usr/bin/env bash
# Runs file system tests of other projects, and programs that are hard on file systems, in drafts of a staging mount.
# A draft is an ordinary POSIX directory, so most checks do the same to the host's file system and compare.
#
#   run.sh [BINARY [SUITE…]]    runs all suites, or those named; needs root
#   ONLY='fsx|git' …            runs only the checks whose names match
#   OPTIONS=no_passthrough …    mounts with this option
#
# BINARY is target/release/artifactfs unless given.
# A suite is a file beside this one. Its function `setup` installs its tools. Its function `checks` calls
# `check NAME SECONDS FUNCTION [ARGUMENT…]` once for each check; each of its functions check_… must be in a check.
# Each check prints one line, and the end of its log if it failed. The last line is `N passed, N failed`.
set -euo pipefail

suites=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$suites/../../target}
binary=$(realpath "${1:-$suites/../../target/release/artifactfs}")
mkdir -p "$target/tools"
tools=$(cd "$target/tools" && pwd)
# The directory is below /tmp and open to all, because the checks with several users must be able to enter it. All names
# are short: pjdfstest binds sockets deep below it, and the path of a socket has room for 107 bytes.
work=$(mktemp -d /tmp/suites.XXXX)
chmod 755 "$work"
repo=$work/repo versions=$work/v staging=$work/s host=$work/h logs=$work/logs
passed=0 failed=0 running=
export suites binary tools work repo versions staging host logs
export PATH=$tools/bin:$PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
# git must neither read a user's configuration nor ask for a password.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org

# ---- in the shell of a suite ----

# Each setup and each check runs in a shell of its own: there -e works, and no suite sees the functions of another.
# Its arguments are a suite, a function and the function's arguments.
# shellcheck disable=SC2016
suite_shell=(bash -euo pipefail -c 'source "$suites/lib.sh"; source "$suites/$1.sh"; "${@:2}"' suite)

# Prints the arguments of each call of `check`, none of which has spaces. Fails if a check is lost.
declared() {
  local functions=' ' name
  # shellcheck disable=SC2329
  check() {
    functions+="$3 "
    echo "$*"
  }
  checks
  [ "$functions" != ' ' ] || { echo "the suite declares no check" >&2; return 1; }
  for name in $(compgen -A function check_); do
    [[ $functions == *" $name "* ]] || { echo "no check runs $name" >&2; return 1; }
  done
}

in_draft() { # NAME FUNCTION [ARGUMENT…]
  draft=$staging/t/$1 reference=$host/$1
  mkdir -p "$draft" "$reference"
  # A program may leave files in its working directory; they go with the rest.
  cd "$work"
  "${@:2}"
  # The removal is part of the test. A draft whose last file was closed just now may still be busy; the check `removed`
  # judges that.
  rm -rf "$reference" "$draft" || { sleep 1 && rm -r "$draft"; }
}

export -f declared in_draft

# ---- frame ----

source "$suites/lib.sh"

say() { echo "$@" >&2; }

fail() { # WHAT LOG
  failed=$((failed + 1))
  echo "FAILED $1"
  tail -n 40 "$2" | sed 's/^/  /'
}

check() { # SUITE NAME SECONDS FUNCTION [ARGUMENT…]
  local suite=$1 name=$2 seconds=$3 log=$logs/check-$2 status=0 began=$SECONDS
  [[ $name =~ ${ONLY:-.} ]] || return 0
  # Two checks of one name would share their draft and hide each other in the output.
  [ ! -e "$log" ] || { fail "$name" <(echo "another check has this name"); return 0; }
  shift 3
  # bash handles a signal while it waits, and not while a command runs in the foreground.
  timeout -k 10 "$seconds" "${suite_shell[@]}" "$suite" in_draft "$name" "$@" >"$log" 2>&1 </dev/null &
  running=$!
  wait "$running" || status=$?
  running=
  if [ "$status" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok $name"
    sed -n 's/^note: /  /p' "$log"
  else
    fail "$name" "$log"
    echo "  (status $status after $((SECONDS - began)) s; 124 is too slow)"
  fi
}

run_suite() { # SUITE
  local log=$logs/suite-$1 list=$logs/list-$1 lines line words
  # Without its tool a check fails, so a failed setup needs no count.
  "${suite_shell[@]}" "$1" setup >"$log" 2>&1 </dev/null || tail -n 40 "$log" >&2
  "${suite_shell[@]}" "$1" declared >"$list" 2>"$log" </dev/null || fail "suite $1" "$log"
  sed -n 's/^note: //p' "$log"
  mapfile -t lines <"$list"
  for line in "${lines[@]}"; do
    read -ra words <<<"$line"
    check "$1" "${words[@]}"
  done
}

# Sets `chosen` to the suites that are named, or to all. `end` unmounts, so it comes last.
choose() { # [SUITE…]
  local all=() name
  for name in "$suites"/*.sh; do
    name=${name##*/} name=${name%.sh}
    case $name in
    run | lib | end) ;;
    *) all+=("$name") ;;
    esac
  done
  all+=(end)
  for name; do
    [[ " ${all[*]} " == *" $name "* ]] || { say "no such suite: $name; there are ${all[*]}"; exit 1; }
  done
  chosen=()
  for name in "${all[@]}"; do
    [[ $# -gt 0 && " $* " != *" $name "* ]] || chosen+=("$name")
  done
}

begin() {
  mkdir -p "$repo" "$versions" "$staging" "$host" "$logs"
  local options=${OPTIONS:-passthrough}
  { artifactfs init && artifactfs mount "$versions" --staging "$staging" -o "$options"; } >"$logs/mount" 2>&1 && return
  fail mount "$logs/mount"
  echo "0 passed, 1 failed"
  exit 1
}

end() {
  local status=$?
  trap - EXIT
  # A check may have left processes; they must not stay. timeout ends all of a check's.
  [ -z "$running" ] || kill "$running" 2>/dev/null || true
  artifactfs umount --lazy "$versions" >/dev/null 2>&1 || true
  local mount
  for mount in "$staging" "$versions"; do ! mountpoint -q "$mount" || umount -l "$mount" || true; done
  rm -rf "$work" || true
  exit "$status"
}

trap end EXIT
trap 'exit 130' INT TERM
[ "$(id -u)" -eq 0 ] || { say "run it as root: it mounts, and changes users"; exit 1; }
[ -x "$binary" ] || { say "no such program: $binary"; exit 1; }
choose "${@:2}"
begin
for suite in "${chosen[@]}"; do run_suite "$suite"; done
[ $((passed + failed)) -gt 0 ] || say "no check's name matches ${ONLY:-.}"
echo "$passed passed, $failed failed"
[ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
