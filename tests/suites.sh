#!/usr/bin/env bash
# Runs other people's file system tests, and programs that are hard on file systems, in drafts of a staging mount.
# A draft is to be an ordinary POSIX directory, so wherever it makes sense the host's file system is the reference.
#
#   suites.sh [BINARY]      as root; BINARY is target/release/artifactfs unless given
#   ONLY='fsx|git' …        only the checks whose names match
#   OPTIONS=no_passthrough …  with this mount option
#
# Installs what it needs. One line a check, the end of its log when it failed, and `N passed, N failed` at the end.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
binary=$(realpath "${1:-$here/../target/release/artifactfs}")
mkdir -p "${CARGO_TARGET_DIR:-$here/../target}/tools"
tools=$(cd "${CARGO_TARGET_DIR:-$here/../target}/tools" && pwd)
# Below /tmp and open to all: the checks with several users must be able to get there. All names are short: pjdfstest
# binds sockets deep below, and the path of a socket has room for 107 bytes.
work=$(mktemp -d /tmp/suites.XXXX)
chmod 755 "$work"
repo=$work/repo versions=$work/v staging=$work/s host=$work/h logs=$work/logs
passed=0 failed=0 running=
export binary tools work repo versions staging host logs
export PATH=$tools/bin:$PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
# Nobody's own configuration, and no questions.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org

# ---- frame ----

artifactfs() { "$binary" --repo "$repo" "$@"; }

say() { echo "$@" >&2; }

# What the reader of the output should see even of a check that passed.
note() { echo "note: $*"; }

need() { # TOOL… : without its tool a check has not passed
  local tool
  for tool; do command -v "$tool" >/dev/null || { echo "$tool is missing"; return 1; }; done
}

apt_install() {
  local pair missing=()
  for pair in fio:fio stress-ng:stress-ng sqlite3:sqlite3 rsync:rsync git:git setfattr:attr tar:tar \
    python3:python3 setpriv:util-linux; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  # Debian's python3 comes without what makes a venv with pip.
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  [ ${#missing[@]} -eq 0 ] || { apt-get update -q && apt-get install -yq "${missing[@]}"; }
}

cargo_install() { # CRATE VERSION
  [ -x "$tools/bin/$1" ] || cargo install --locked "$1" --version "$2" --root "$tools"
}

install_tools() {
  local log=$logs/install
  # A failure here shows as the failure of each check that needs the tool.
  { apt_install && cargo_install pjdfstest 0.2.2 && cargo_install fsx 0.3.2; } >"$log" 2>&1 || tail -n 40 "$log" >&2
}

begin() {
  mkdir -p "$repo" "$versions" "$staging" "$host" "$logs"
  install_tools
  { artifactfs init && artifactfs mount "$versions" --staging "$staging" -o "${OPTIONS:-passthrough}"; } >"$logs/mount" 2>&1 && return
  echo "FAILED mount"
  tail -n 40 "$logs/mount" | sed 's/^/  /'
  echo "0 passed, 1 failed"
  exit 1
}

end() {
  local status=$?
  trap - EXIT
  # Nothing is to be left behind, whatever a check left running. timeout ends all of it.
  [ -z "$running" ] || kill "$running" 2>/dev/null || true
  artifactfs umount --lazy "$versions" >/dev/null 2>&1 || true
  local mount
  for mount in "$staging" "$versions"; do ! mountpoint -q "$mount" || umount -l "$mount" || true; done
  rm -rf "$work" || true
  exit "$status"
}

in_draft() { # NAME FUNCTION [ARGUMENT…] : in a shell of its own, where -e works
  draft=$staging/t/$1 reference=$host/$1
  mkdir -p "$draft" "$reference"
  # Whatever a program leaves where it is run goes with the rest.
  cd "$work"
  "${@:2}"
  # Removing it all is part of the test. A draft that somebody just closed a file of may still be busy; that is for the
  # check `removed` to judge.
  rm -rf "$reference" "$draft" || { sleep 1 && rm -r "$draft"; }
}

check() { # NAME SECONDS FUNCTION [ARGUMENT…]
  local name=$1 seconds=$2 log=$logs/$1 status=0 began=$SECONDS
  [[ $name =~ ${ONLY:-.} ]] || return 0
  shift 2
  # In the background, because bash hears a signal while it waits and not while a command runs.
  timeout -k 10 "$seconds" bash -euo pipefail -c 'in_draft "$@"' in_draft "$name" "$@" >"$log" 2>&1 </dev/null &
  running=$!
  wait "$running" || status=$?
  running=
  if [ "$status" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok $name"
    sed -n 's/^note: /  /p' "$log"
  else
    failed=$((failed + 1))
    echo "FAILED $name"
    tail -n 40 "$log" | sed 's/^/  /'
    echo "  (status $status after $((SECONDS - began)) s; 124 is too slow)"
  fi
}

same() { # A B WHAT
  [ "$1" = "$2" ] || { echo "$3: '$1' is not '$2'"; return 1; }
}

silent() { # COMMAND… : it succeeds, and has nothing to say
  local said
  said=$("$@" 2>&1) || { echo "$* failed: $said"; return 1; }
  same "$said" "" "$*"
}

not() { # COMMAND… : with a plain ! a shell under -e goes on
  if "$@"; then echo "should not be: $*"; return 1; fi
}

refused() { # PATTERN COMMAND… : it fails, and says why
  local pattern=$1 said
  shift
  if said=$("$@" 2>&1); then echo "not refused: $*"; return 1; fi
  grep -q "$pattern" <<<"$said" || { echo "$*: $said"; return 1; }
}

# Makes the kernel ask the daemon again.
drop_caches() {
  sync -f "$draft"
  echo 3 >/proc/sys/vm/drop_caches
}

# ---- pjdfstest ----

# link_count_max: glibc answers pathconf(_PC_LINK_MAX) from a table of file systems in which FUSE is not; there is
# nothing a FUSE daemon could answer. It skips itself then.
# The erofs tests remount what they run on and are off: the reference would be the machine's root.
pjdfstest_exceptions='link::link_count_max'

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

pjdfstest_run() { # DIRECTORY OTHER-FILE-SYSTEM RESULTS : failures are judged by the caller
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
  # A run that found next to nothing to do has not compared anything.
  [ "$(wc -l <"$reference/host.ok")" -ge 350 ] || { tail -n 20 "$reference/host.log"; return 1; }
  local lost name
  lost=$(comm -23 "$reference/host.ok" "$reference/draft.ok" | grep -Exv "$pjdfstest_exceptions" || true)
  [ -z "$lost" ] && return
  echo "These pass on the host and not in the draft:"
  for name in $lost; do grep -F -A 3 "$name " "$reference/draft.log" || echo "$name"; done
  return 1
}

# ---- fsx ----

fsx_configuration() {
  cat <<EOF
flen = 1048576
[opsize]
max = 65536
[weights]
read = 10
write = 10
mapread = 10
mapwrite = 10
truncate = 3
close_open = 2
punch_hole = 2
copy_file_range = 2
sendfile = 2
posix_fallocate = 1
posix_fadvise = 1
invalidate = 1
fsync = 0.2
fdatasync = 0.2
EOF
}

check_fsx() {
  need fsx
  fsx_configuration >"$reference/fsx.toml"
  # Two at a time, so that the daemon never serves only one.
  # shellcheck disable=SC2016
  seq 20 | xargs -P 2 -I SEED sh -c 'fsx -q -f "$1/fsx.toml" -N 20000 -P "$1" -S SEED "$2/SEED" || {
    echo "seed SEED failed"; exit 1; }' fsx "$reference" "$draft"
}

# ---- stress-ng ----

# Left out: fiemap (Linux has no FIEMAP in FUSE); verity, inode-flags, bind-mount (do nothing on ext4 either);
# mmapfork, mmapmany and the like (anonymous memory, no file).
stressors='access aio aiol chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fanotify
  fcntl file-ioctl filename flock fpunch fsize fstat getdent handle hdd inotify io iomix lease link locka lockf lockofd
  metamix mknod mmap msync open readahead rename revio seek sendfile splice stackmmap symlink sync-file touch unlink
  utime xattr'

stressor_options() {
  case $1 in
  copy-file) echo --copy-file-bytes 128m ;;
  dirdeep) echo --dirdeep-inodes 3000 --dirdeep-files 2 ;;
  fallocate) echo --fallocate-bytes 16m ;;
  hdd) echo --hdd-bytes 64m ;;
  iomix) echo --iomix-bytes 32m ;;
  mmap) echo --mmap-file --mmap-bytes 32m ;;
  readahead) echo --readahead-bytes 64m ;;
  seek) echo --seek-size 32m --seek-punch ;;
  esac
}

check_stressor() { # NAME
  need stress-ng
  local options
  read -ra options <<<"$(stressor_options "$1")"
  stress-ng --verify --metrics-brief --temp-path "$draft" "--$1" 2 --timeout 3 ${options[@]+"${options[@]}"} 2>&1 |
    tee "$reference/log"
  # One that skips itself says so and exits 0; it has tested nothing.
  grep -Eq " $1 +[1-9][0-9]* " "$reference/log" || { echo "$1 did nothing"; return 1; }
  silent find "$draft" -mindepth 1
}

check_stressors() {
  local name
  for name in $stressors; do
    case $name in
    # Only newer releases have them.
    metamix | unlink) stress-ng --stressors 2>/dev/null | grep -qw "$name" || continue ;;
    esac
    check "stress-ng-$name" 40 check_stressor "$name"
  done
}

# ---- fio ----

fio_verified() { # NAME OPTION…
  local job=("--name=$1" "--directory=$draft" --size=48m --fallocate=none "${@:2}")
  job+=(--verify=crc32c --verify_fatal=1 --verify_state_save=0)
  fio "${job[@]}" --do_verify=1 --end_fsync=1
  drop_caches
  fio "${job[@]}" --verify_only
}

check_fio() {
  need fio
  local engine
  for engine in psync mmap; do
    fio_verified "write-$engine" --ioengine=$engine --rw=write --bs=128k --numjobs=2
    fio_verified "random-$engine" --ioengine=$engine --rw=randwrite --bs=4k --numjobs=2
  done
  fio_verified direct --ioengine=psync --direct=1 --rw=randwrite --bs=16k
  # Writes while it verifies what it has written.
  fio_verified mixed --ioengine=psync --rw=randrw --bs=8k --verify_backlog=256
}

# ---- SQLite ----

sqlite_transactions() { # WORKER COUNT : the counter shows an update that was lost
  echo '.bail on'
  echo '.timeout 60000'
  local i
  for ((i = 0; i < $2; i++)); do
    echo "BEGIN IMMEDIATE;"
    echo "INSERT INTO line VALUES($1, $i, hex(randomblob(200)));"
    echo "UPDATE total SET n = n + 1;"
    echo "COMMIT;"
  done
}

sqlite_two_writers() { # MODE COUNT
  local database=$draft/$1.db first
  same "$(sqlite3 "$database" "PRAGMA journal_mode=$1;")" "$1" "journal mode"
  sqlite3 "$database" 'CREATE TABLE line(worker, n, pad, UNIQUE(worker, n)); CREATE TABLE total(n);
    INSERT INTO total VALUES(0);'
  sqlite_transactions 1 "$2" | sqlite3 "$database" &
  first=$!
  sqlite_transactions 2 "$2" | sqlite3 "$database"
  wait "$first"
  sqlite_is_right "$database" "$2"
  drop_caches
  sqlite_is_right "$database" "$2"
}

sqlite_is_right() { # DATABASE COUNT
  same "$(sqlite3 "$1" 'PRAGMA integrity_check;')" ok integrity
  same "$(sqlite3 "$1" 'SELECT count(*) FROM line;')" $((2 * $2)) lines
  same "$(sqlite3 "$1" 'SELECT n FROM total;')" $((2 * $2)) counter
}

check_sqlite() {
  need sqlite3
  sqlite_two_writers wal 2500
  sqlite_two_writers delete 600
  # A database changes its mode while it has content.
  same "$(sqlite3 "$draft/wal.db" 'PRAGMA journal_mode=delete;')" delete "journal mode"
  sqlite_is_right "$draft/wal.db" 2500
}

# ---- git ----

make_source_tree() { # DIRECTORY
  python3 - "$1" <<'EOF'
import os, random, sys
rng = random.Random(1)
for number in range(3000):
    folder = f"{sys.argv[1]}/{number % 40}/{number % 7}"
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/{number}.txt"
    with open(path, "w") as file:
        file.writelines(f"{rng.random()}\n" for _ in range(rng.randrange(60)))
    if number % 50 == 0:
        os.chmod(path, 0o755)
    if number % 100 == 0:
        os.symlink(f"{number}.txt", f"{folder}/link-{number}")
EOF
}

git_is_clean() { # REPOSITORY
  silent git -C "$1" status --porcelain
  git -C "$1" fsck --full --strict
}

check_git() {
  need git python3
  git init -q "$reference/origin"
  make_source_tree "$reference/origin"
  git -C "$reference/origin" add .
  git -C "$reference/origin" commit -qm first
  git clone -q "$reference/origin" "$draft/clone"
  git_is_clean "$draft/clone"
  git_history "$draft/clone"
  git -C "$draft/clone" gc -q --prune=now
  git_is_clean "$draft/clone"
  git -C "$draft/clone" push -q origin HEAD:refs/heads/back
  drop_caches
  git_is_clean "$draft/clone"
  git_of_a_version
}

git_history() { # REPOSITORY
  local i
  for i in $(seq 15); do
    echo "$i" >>"$1/changing"
    git -C "$1" mv "$i" "moved-$i"
    git -C "$1" rm -rq "$((i + 20))"
    git -C "$1" add .
    git -C "$1" commit -qm "change $i"
  done
  git -C "$1" checkout -qb side HEAD~5
  echo side >"$1/side"
  git -C "$1" add side
  git -C "$1" commit -qm side
  git -C "$1" merge -q -m merged -
  echo stashed >>"$1/side"
  git -C "$1" stash push -q
  git -C "$1" stash drop -q
  git -C "$1" worktree add -q "$1-tree" HEAD~3
  git -C "$1" worktree remove "$1-tree"
}

# What was written as a draft is still a repository as a version.
git_of_a_version() {
  local head
  head=$(git -C "$draft/clone" rev-parse HEAD)
  artifactfs commit t/git
  same "$(git -C "$versions/t/git:v0/clone" rev-parse HEAD)" "$head" "head of the version"
  git_is_clean "$versions/t/git:v0/clone"
  # And so is a draft that begins as that version.
  begin_again v0
  git_is_clean "$draft/clone"
  git -C "$draft/clone" checkout -q HEAD~4
  git_is_clean "$draft/clone"
  git -C "$draft/clone" gc -q --prune=now
  git_is_clean "$draft/clone"
}

# ---- rsync ----

make_odd_tree() { # DIRECTORY
  python3 - "$1" <<'EOF'
import os, sys
top = os.fsencode(sys.argv[1])
names = [b"plain", b"with space", b" lead and trail ", b"new\nline", b"tab\t", "žluťoučký 数据".encode(),
         b"not utf8 \xff\xfe\x80", b"x" * 255, b"-dash", b"*?[a]", b"back\\slash", b"quote'\"", b"\x01\x7f", b"...",
         b"a:b", b"#x~", b"$HOME `id`"]
for index, name in enumerate(names):
    folder = os.path.join(top, b"dir-" + name[:200])
    os.makedirs(folder)
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(os.urandom(index * 5000))
    os.chmod(path, [0o644, 0o600, 0o755, 0o444, 0o4755, 0o2750, 0o000, 0o777][index % 8])
    if index % 4 == 0:
        os.setxattr(path, b"user.note", name)
    os.utime(path, ns=(10**18 + index, [1, 10**9 - 1, 1234567890123456789, 4 * 10**18, 946684800 * 10**9][index % 5]))
    for link, target in [(b"link", name), (b"dangling", b"/nowhere/" + name)]:
        os.symlink(target, os.path.join(folder, link))
        os.utime(os.path.join(folder, link), ns=(5, 10**18 + index), follow_symlinks=False)
    os.chmod(folder, [0o755, 0o700, 0o1777, 0o2775, 0o555][index % 5])
many = os.path.join(top, b"hard")
os.makedirs(many + b"/deep/er")
for index in range(20):
    with open(many + b"/one-%d" % index, "wb") as file:
        file.write(b"%d" % index * 999)
    os.link(many + b"/one-%d" % index, many + b"/two-%d" % index)
    os.link(many + b"/one-%d" % index, many + b"/deep/er/three-%d" % index)
os.mkfifo(top + b"/fifo")
os.utime(top + b"/fifo", ns=(10**18, 10**18 + 5))
os.chown(top + b"/dir-plain/plain", 1, 2)
os.chown(top + b"/dir-plain/link", 2, 1, follow_symlinks=False)
for folder, _, _ in os.walk(top, topdown=False):
    os.utime(folder, ns=(10**18, 10**18 + 3))
EOF
}

rsync_sees_nothing() {
  silent rsync -aHXn --delete --itemize-changes -c "$reference/tree/" "$draft/tree/"
}

check_rsync() {
  need rsync python3 setfattr
  mkdir "$reference/tree"
  make_odd_tree "$reference/tree"
  rsync -aHX "$reference/tree/" "$draft/tree/"
  rsync_sees_nothing
  drop_caches
  rsync_sees_nothing
  # rsync compares times of equal seconds only.
  diff <(listing "$reference/tree") <(listing "$draft/tree")
  local number
  for number in $(seq 0 19); do
    [ "$draft/tree/hard/one-$number" -ef "$draft/tree/hard/deep/er/three-$number" ]
    same "$(stat -c %h "$draft/tree/hard/two-$number")" 3 "links of two-$number"
  done
  # A changed source goes over what is there.
  echo more >>"$reference/tree/hard/one-3"
  rm "$reference/tree/hard/two-5"
  mv "$reference/tree/dir-plain" "$reference/tree/away"
  rsync -aHX --delete --inplace "$reference/tree/" "$draft/tree/"
  rsync_sees_nothing
}

# Kind, mode, owner, time with its fraction, name; of what is no directory also links, length and target.
listing() { # DIRECTORY
  local all='%y %m %u:%g %T@ %p'
  find "$1" -mindepth 1 \( -type d -printf "$all\0" -o -printf "$all %n %s %l\0" \) | sed -z "s#$1##" | sort -z |
    tr '\0' '\n'
}

# ---- tar ----

make_tar_tree() { # DIRECTORY
  make_odd_tree "$1"
  python3 - "$1" <<'EOF'
import os, sys
def sparse(name, length, *at):
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        file.truncate(length)
        for offset in at:
            file.seek(offset)
            file.write(os.urandom(65536))
sparse("sparse", 64 << 20, 0, 5 << 20, 40 << 20)
sparse("all-hole", 100 << 20)
sparse("hole-last", 32 << 20, 1 << 20)
EOF
}

check_tar() {
  need tar python3
  mkdir "$reference/tree" "$draft/tree"
  make_tar_tree "$reference/tree"
  local options=(-S --xattrs --format=posix)
  tar "${options[@]}" -cf "$reference/tree.tar" -C "$reference/tree" .
  tar "${options[@]}" -xpf "$reference/tree.tar" -C "$draft/tree"
  silent tar "${options[@]}" --compare -f "$reference/tree.tar" -C "$draft/tree"
  diff <(listing "$reference/tree") <(listing "$draft/tree")
  # And from the draft into an archive, read there.
  tar "${options[@]}" -cf "$draft/again.tar" -C "$draft/tree" .
  silent tar "${options[@]}" --compare -f "$draft/again.tar" -C "$reference/tree"
  [ "$(stat -c %s "$draft/again.tar")" -lt $((4 << 20)) ] || { echo "tar found no holes"; return 1; }
  # Blocks are only certain when they are on disk.
  sync -f "$draft"
  sync -f "$reference"
  local file
  for file in sparse all-hole hole-last; do
    same "$(stat -c %b "$draft/tree/$file")" "$(stat -c %b "$reference/tree/$file")" "blocks of $file"
  done
}

# ---- pip ----

make_wheel() { # FILE : by hand, so that neither an index nor a build tool is needed
  python3 - "$1" <<'EOF'
import base64, hashlib, sys, zipfile
files = {f"suitesdemo/part{n}.py": f"VALUE = {n}\n" for n in range(300)}
files["suitesdemo/__init__.py"] = """
import importlib
def total():
    return sum(importlib.import_module(f'suitesdemo.part{n}').VALUE for n in range(300))
def main():
    print(total())
"""
info = "suitesdemo-1.0.dist-info"
files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: suitesdemo\nVersion: 1.0\n"
files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
files[f"{info}/entry_points.txt"] = "[console_scripts]\nsuitesdemo = suitesdemo:main\n"
def line(name, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(text)}\n"
files[f"{info}/RECORD"] = "".join(line(*item) for item in files.items()) + f"{info}/RECORD,,\n"
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
EOF
}

check_pip() {
  need python3
  local wheel=$reference/suitesdemo-1.0-py3-none-any.whl
  local pip=(-m pip --disable-pip-version-check install -q --no-index)
  make_wheel "$wheel"
  python3 -m venv "$reference/venv"
  "$reference/venv/bin/python" "${pip[@]}" --target "$draft/site" "$wheel"
  same "$(PYTHONPATH=$draft/site "$reference/venv/bin/python" -c 'import suitesdemo; suitesdemo.main()')" 44850 imported
  # A whole environment: programs, symlinks, and pip itself, run from the draft.
  python3 -m venv "$draft/venv"
  "$draft/venv/bin/python" "${pip[@]}" "$wheel"
  same "$("$draft/venv/bin/suitesdemo")" 44850 "run from the draft"
  "$draft/venv/bin/python" -m pip --disable-pip-version-check check
  "$draft/venv/bin/python" -m pip --disable-pip-version-check uninstall -qy suitesdemo
  refused ModuleNotFoundError "$draft/venv/bin/python" -c 'import suitesdemo'
}

# ---- checkpoints ----

check_checkpoints() {
  need python3
  python3 - "$draft" <<'EOF'
import hashlib, os, random, signal, sys
TIMES = 500
directory, path = sys.argv[1], sys.argv[1] + "/checkpoint.pt"

def save(number, rng):
    body = number.to_bytes(8, "big") + rng.randbytes(rng.randrange(400_000))
    with open(path + ".tmp", "wb") as file:
        file.write(hashlib.sha256(body).digest())
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

def load():
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        whole = file.read()
    assert len(whole) == length, f"{len(whole)} bytes read of {length}"
    assert hashlib.sha256(whole[32:]).digest() == whole[:32], f"a torn file of {length} bytes"
    return int.from_bytes(whole[32:40], "big")

def read_on():
    last = reads = 0
    while last < TIMES:
        now = load()
        assert now >= last, f"went back from {last} to {now}"
        last, reads = now, reads + 1
    print(reads, "reads", flush=True)
    assert reads > 50

def start(body):
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return child

rng = random.Random(1)
save(1, rng)
readers = [start(read_on) for _ in range(2)]
for number in range(2, TIMES + 1):
    save(number, rng)
assert all(os.waitpid(reader, 0)[1] == 0 for reader in readers), "a reader failed"
assert os.listdir(directory) == ["checkpoint.pt"], os.listdir(directory)
EOF
}

# ---- locks ----

check_locks() {
  need python3
  python3 - "$draft/file" <<'EOF'
import errno, fcntl, os, signal, sys, time
path = sys.argv[1]
open(path, "wb").write(bytes(100))

def flock(file, how):
    fcntl.flock(file, how)

def posix(file, how, *part):
    fcntl.lockf(file, how, *part)

def holder(lock, how, *part):
    """A process that holds a lock; ends when killed."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        file = open(path, "r+b")
        lock(file, how, *part)
        os.write(into, b"1")
        time.sleep(60)
        os._exit(0)
    assert os.read(out, 1) == b"1"
    os.close(out), os.close(into)
    return child

def may(lock, how, *part):
    with open(path, "r+b") as file:
        try:
            lock(file, how | fcntl.LOCK_NB, *part)
            return True
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EACCES), error
            return False

def kill(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

def free_soon(lock):
    # The lock goes with the last reference to the file, a moment after the process.
    until = time.monotonic() + 5
    while not may(lock, fcntl.LOCK_EX):
        assert time.monotonic() < until, f"{lock.__name__}: still held by a process that was killed"
        time.sleep(0.01)

for lock in (flock, posix):
    name = lock.__name__
    child = holder(lock, fcntl.LOCK_EX)
    assert not may(lock, fcntl.LOCK_EX), f"{name}: two exclusive locks"
    assert not may(lock, fcntl.LOCK_SH), f"{name}: shared beside exclusive"
    kill(child)
    free_soon(lock)
    child = holder(lock, fcntl.LOCK_SH)
    assert may(lock, fcntl.LOCK_SH), f"{name}: two shared locks refused"
    assert not may(lock, fcntl.LOCK_EX), f"{name}: exclusive beside shared"
    kill(child)
    free_soon(lock)

child = holder(posix, fcntl.LOCK_EX, 10, 20)
assert not may(posix, fcntl.LOCK_EX, 1, 25), "ranges that overlap"
assert may(posix, fcntl.LOCK_EX, 10, 30) and may(posix, fcntl.LOCK_EX, 20, 0), "ranges that do not overlap"
assert may(flock, fcntl.LOCK_EX), "the two kinds of locks meet"
kill(child)

# One who waits gets it when the holder dies.
for lock in (flock, posix):
    child = holder(lock, fcntl.LOCK_EX)
    waiter = os.fork()
    if waiter == 0:
        with open(path, "r+b") as file:
            lock(file, fcntl.LOCK_EX)
        os._exit(0)
    time.sleep(0.3)
    assert os.waitpid(waiter, os.WNOHANG) == (0, 0), f"{lock.__name__}: did not wait"
    kill(child)
    assert os.waitpid(waiter, 0)[1] == 0
EOF
}

# ---- holes ----

# Says what each operation did; run on the host and in the draft, the two must say the same.
# Collapsing and inserting ranges are left out: Linux passes neither on to a FUSE file system.
holes() { # DIRECTORY
  python3 - "$1" <<'EOF'
import ctypes, ctypes.util, errno, hashlib, os, subprocess, sys
libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
path = sys.argv[1] + "/file"
file = os.open(path, os.O_RDWR | os.O_CREAT)

def seek(offset, whence):
    try:
        return os.lseek(file, offset, whence)
    except OSError as error:
        return errno.errorcode[error.errno]

def parts():
    found, at = [], 0
    while isinstance(at, int):
        begin = seek(at, os.SEEK_DATA)
        if not isinstance(begin, int):
            return found + [begin]
        at = seek(begin, os.SEEK_HOLE)
        found.append((begin, at))
        if at == os.fstat(file).st_size:
            return found

def tell(what):
    # Blocks are only certain when they are on disk.
    os.fsync(file)
    stat = os.fstat(file)
    digest = hashlib.sha256(os.pread(file, stat.st_size, 0)).hexdigest()[:12]
    print(what, "size", stat.st_size, "blocks", stat.st_blocks, "data", parts(), digest)

def allocate(mode, offset, length):
    done = libc.fallocate64(file, mode, offset, length)
    return "done" if done == 0 else errno.errorcode[ctypes.get_errno()]

tell("new")
os.pwrite(file, b"a" * (1 << 20), 0)
tell("written")
os.ftruncate(file, 4 << 20)
tell("longer")
os.pwrite(file, b"b" * 8192, 3 << 20)
tell("island")
for offset, length in [(65536, 65536), (200_001, 50_000), (0, 4096), (3 << 20, 8192), (4 << 20, 4096), (4095, 2)]:
    tell(f"punch {offset} {length} {allocate(PUNCH_HOLE | KEEP_SIZE, offset, length)}")
print("punch without keep-size", allocate(PUNCH_HOLE, 0, 4096))
tell(f"zero {allocate(ZERO_RANGE, 300_000, 100_000)}")
tell(f"zero past the end {allocate(ZERO_RANGE, 5 << 20, 4096)}")
tell(f"allocate {allocate(0, 1 << 20, 1 << 20)}")
tell(f"allocate past the end {allocate(0, 6 << 20, 65536)}")
tell(f"allocate and keep the size {allocate(KEEP_SIZE, 8 << 20, 65536)}")
print("nothing", allocate(0, 0, 0), "negative", allocate(0, -1, 10))
for size in [7 << 20, 100, 1 << 20, 0, 12345, 10 << 20]:
    os.ftruncate(file, size)
    tell(f"truncate {size}")
for offset in [0, 12344, 12345, (10 << 20) - 1, 10 << 20, (10 << 20) + 1]:
    print("seek", offset, seek(offset, os.SEEK_DATA), seek(offset, os.SEEK_HOLE))
os.pwrite(file, b"c" * 5000, 5 << 20)
tell("in the middle")
subprocess.run(["cp", "--sparse=always", path, path + "-copy"], check=True)
subprocess.run(["cp", "--sparse=auto", path, path + "-auto"], check=True)
subprocess.run(["fallocate", "--dig-holes", path], check=True)
tell("dug")
for name in ["-copy", "-auto"]:
    file = os.open(path + name, os.O_RDWR)
    tell(name)
read_only = os.open(path, os.O_RDONLY)
print("read-only", libc.fallocate64(read_only, 0, 0, 10), errno.errorcode[ctypes.get_errno()])
EOF
}

check_holes() {
  need python3 fallocate
  holes "$reference" >"$reference/said"
  holes "$draft" >"$reference/said-draft"
  cat "$reference/said"
  diff "$reference/said" "$reference/said-draft"
}

# ---- corners ----

# Small things that are easily got wrong, by chapter; as with the holes, the host is the reference. Left out: pathconf,
# which no daemon is asked; extended attributes beside user., and O_TMPFILE, which are refused as programs expect it.
corners_program() {
  cat <<'EOF'
import ctypes, errno, mmap, os, shutil, socket, subprocess, sys, time
top, chapter = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(top)

def tell(what, act):
    try:
        said = act()
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(f"{what}:", said, flush=True)

def put(name, content=b"content"):
    with open(name, "wb") as file:
        file.write(content)

def get(name):
    with open(name, "rb") as file:
        return file.read()

def nameless():
    """What was removed lives on for who has it open, stands in it or mapped it."""
    put("file")
    file, handle = os.open("file", os.O_RDWR), os.open("file", os.O_PATH)
    os.unlink("file")
    tell("links", lambda: os.fstat(file).st_nlink)
    tell("chmod", lambda: (os.fchmod(file, 0o640), os.fstat(file).st_mode)[1])
    tell("chown", lambda: (os.fchown(file, 1, 2), os.fstat(file).st_uid)[1])
    tell("utime", lambda: (os.utime(file, ns=(5, 7)), os.fstat(file).st_mtime_ns)[1])
    tell("truncate", lambda: (os.ftruncate(file, 3), os.fstat(file).st_size)[1])
    tell("setxattr", lambda: os.setxattr(file, "user.a", b"b"))
    tell("getxattr", lambda: os.getxattr(file, "user.a"))
    tell("listxattr", lambda: os.listxattr(file))
    tell("reopen", lambda: get(f"/proc/self/fd/{file}"))
    tell("reopen and write", lambda: put(f"/proc/self/fd/{file}", b"again"))
    os.close(file)
    tell("stat by O_PATH", lambda: os.fstat(handle).st_size)
    with open(f"/proc/self/fd/{handle}", "rb"):
        tell("truncate while another reads", lambda: os.truncate(f"/proc/self/fd/{handle}", 2))
    tell("reopen by O_PATH", lambda: get(f"/proc/self/fd/{handle}"))
    put("mapped", b"m" * 8192)
    with open("mapped", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 8192)
    os.unlink("mapped")
    mapped[0:3] = b"new"
    mapped.flush()
    tell("mapped", lambda: mapped[0:5])
    os.mkdir("folder")
    folder = os.open("folder", os.O_RDONLY)
    os.rmdir("folder")
    tell("folder: links", lambda: os.fstat(folder).st_nlink)
    tell("folder: list", lambda: os.listdir(folder))
    tell("folder: create", lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.mkdir("here")
    os.chdir("here")
    os.rmdir("../here")
    tell("here: stat", lambda: os.stat(".").st_nlink)
    tell("here: list", lambda: os.listdir("."))
    tell("here: parent", lambda: os.path.samefile("..", top))

def times_of(name):
    return os.stat(name).st_mtime_ns, os.stat(name).st_atime_ns

def renames():
    def rename(old, new, flags):
        if libc.renameat2(-100, old, -100, new, flags):
            raise OSError(ctypes.get_errno(), "renameat2")
    put("a", b"A"), put("b", b"B"), os.makedirs("x/y"), put("x/in", b"I")
    tell("noreplace", lambda: rename(b"a", b"b", 1))
    tell("noreplace a new one", lambda: rename(b"a", b"c", 1))
    tell("exchange", lambda: (rename(b"b", b"c", 2), get("b"), get("c")))
    tell("exchange with a folder", lambda: (rename(b"b", b"x", 2), get("x"), get("b/in")))
    tell("exchange with nothing", lambda: rename(b"b", b"nothing", 2))
    tell("into itself", lambda: os.rename("b", "b/y/z"))
    tell("over a full one", lambda: (os.mkdir("e"), os.rename("e", "b")))

def names():
    for name in [b"n" * 255, b"n" * 256, b"\x01\n", b"\xff\xfe", b"a:b", b".artifact.json"]:
        tell(name[:9], lambda: (put(name), os.path.exists(name)))
    for length in [4095, 4096]:
        tell(f"symlink {length}", lambda: (os.symlink("t" * length, f"l{length}"), len(os.readlink(f"l{length}"))))
    tell("dangling, exclusive", lambda: (os.symlink("to", "d"), os.open("d", os.O_CREAT | os.O_EXCL | os.O_WRONLY)))
    tell("dangling, created", lambda: (put("d"), get("to")))
    tell("read and truncate", lambda: (os.close(os.open("to", os.O_RDONLY | os.O_TRUNC)), get("to")))
    tell("write a folder", lambda: os.open(".", os.O_WRONLY))
    tell("no folder", lambda: os.open("to", os.O_DIRECTORY))

def deep():
    """A path may be longer than one that most programs give at once; up to 4,000 bytes in a draft (see the manual)."""
    os.mkdir("deep")
    os.chdir("deep")
    def down():
        for _ in range(19):
            os.mkdir("e" * 200)
            os.chdir("e" * 200)
        put("bottom")
        return get("bottom"), os.listdir(".")
    tell("nineteen times 200", down)
    os.chdir(top)
    tell("removed", lambda: (subprocess.call(["rm", "-rf", "deep"]), os.path.exists("deep")))

def folders():
    os.mkdir("many")
    for number in range(10_000):
        put(f"many/{number}", b"")
    tell("listed", lambda: len(set(os.listdir("many"))))
    def remove():
        with os.scandir("many") as entries:
            return sum(os.unlink(entry.path) is None for entry in entries)
    tell("removed while it is read", lambda: (remove(), os.listdir("many"), os.rmdir("many")))
    os.makedirs("k/a"), os.mkdir("k/b"), put("k/f"), os.symlink("f", "k/l")
    tell("links", lambda: os.stat("k").st_nlink)
    entry = lambda e: (e.name, e.is_dir(), e.is_symlink(), e.inode() == os.lstat(e.path).st_ino)
    tell("entries", lambda: sorted(map(entry, os.scandir("k"))))
    tell("dots", lambda: (os.path.samefile("k", "k/."), os.path.samefile("k", "k/a/..")))

def times():
    os.mkdir("a"), put("f", b"12345678")
    def moved(act, *names):
        before = [os.stat(name) for name in names]
        time.sleep(0.05)
        act()
        after = [os.stat(name) for name in names]
        return [(b.st_mtime_ns > a.st_mtime_ns, b.st_ctime_ns > a.st_ctime_ns) for a, b in zip(before, after)]
    def map_write():
        with open("f", "r+b") as file, mmap.mmap(file.fileno(), 8) as mapped:
            mapped[0:1] = b"q"
            mapped.flush()
    tell("write", lambda: moved(lambda: put("f", b"longer than that"), "f", "."))
    tell("write to a map", lambda: moved(map_write, "f"))
    tell("link", lambda: moved(lambda: os.link("f", "g"), "f", "."))
    tell("rename", lambda: moved(lambda: os.rename("g", "a/g"), "f", ".", "a"))
    tell("unlink", lambda: moved(lambda: os.unlink("a/g"), "f", "a"))
    tell("chmod", lambda: moved(lambda: os.chmod("f", 0o600), "f"))
    tell("setxattr", lambda: moved(lambda: os.setxattr("f", "user.z", b"1"), "f"))
    os.utime("f", ns=(10**18, 10**18 + 10**9))
    tell("read", lambda: (get("f"), os.stat("f").st_atime_ns > 10**18))
    for stamp in [10**9 - 1, 4_100_000_000 * 10**9 + 7, 0]:
        tell(f"set to {stamp}", lambda: (os.utime("f", ns=(stamp, stamp)), times_of("f")))

def before_1970():
    put("f")
    for stamp in [-1, -5 * 10**9, -2_000_000_000 * 10**9]:
        tell(f"set to {stamp}", lambda: (os.utime("f", ns=(stamp, stamp)), times_of("f")))

def attributes():
    put("f"), os.mkdir("d"), os.symlink("f", "l")
    tell("on a folder", lambda: (os.setxattr("d", "user.d", b"1"), os.listxattr("d")))
    tell("empty", lambda: (os.setxattr("f", "user.empty", b""), os.getxattr("f", "user.empty")))
    tell("create", lambda: os.setxattr("f", "user.empty", b"", os.XATTR_CREATE))
    tell("replace", lambda: os.setxattr("f", "user.none", b"", os.XATTR_REPLACE))
    tell("none", lambda: os.getxattr("f", "user.none"))
    tell("3000 bytes", lambda: (os.setxattr("f", "user.big", bytes(3000)), len(os.getxattr("f", "user.big"))))
    tell("too many bytes", lambda: os.setxattr("f", "user.huge", bytes(65537)))
    tell("of a symlink", lambda: os.setxattr("l", "user.s", b"", follow_symlinks=False))
    tell("all", lambda: sorted(os.listxattr("f")))

def content():
    put("a", bytes(8192))
    with open("a", "r+b") as one, open("a", "r+b", buffering=0) as other:
        mapped = mmap.mmap(one.fileno(), 8192)
        mapped[100:103] = b"abc"
        tell("map seen by read", lambda: os.pread(other.fileno(), 3, 100))
        os.pwrite(other.fileno(), b"xyz", 100)
        tell("write seen in map", lambda: mapped[100:103])
        tell("direct", lambda: os.preadv(os.open("a", os.O_RDONLY | os.O_DIRECT), [mmap.mmap(-1, 4096)], 0))
    tell("append", lambda: (os.pwrite(os.open("a", os.O_WRONLY | os.O_APPEND), b"Z", 0), get("a")[-2:]))
    def far():
        with open("far", "w+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"end", 10 << 30)
            stat = os.fstat(file.fileno())
            return os.pread(file.fileno(), 9, 10 << 30), stat.st_size, stat.st_blocks < 99
    tell("far", far)
    tell("too far", lambda: os.truncate("far", 1 << 62))
    file, folder = os.open("a", os.O_RDONLY), os.open(".", os.O_RDONLY)
    tell("copy_file_range", lambda: os.copy_file_range(file, os.open("b", os.O_CREAT | os.O_RDWR), 5000))
    tell("copied", lambda: get("b") == get("a")[:5000])
    tell("sync", lambda: (os.fsync(file), os.fsync(folder), libc.syncfs(folder)))

def kinds():
    def pipe():
        os.mkfifo("p")
        reader, writer = os.open("p", os.O_RDONLY | os.O_NONBLOCK), os.open("p", os.O_WRONLY)
        os.write(writer, b"hi")
        return os.read(reader, 9)
    tell("fifo", pipe)
    def talk():
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("s"), server.listen(), client.connect("s")
            server.accept()[0].send(b"yo")
            return client.recv(9)
    tell("socket", talk)
    shutil.copy(shutil.which("sleep"), "sleep")
    tell("run", lambda: subprocess.call(["./sleep", "0"]))
    running = subprocess.Popen(["./sleep", "9"])
    time.sleep(0.2)
    tell("write what runs", lambda: os.open("sleep", os.O_WRONLY))
    tell("replace what runs", lambda: (put("new"), os.rename("new", "sleep"), get("sleep")))
    running.kill()

globals()[chapter]()
EOF
}

check_corners() { # CHAPTER
  need python3
  mkdir "$reference/top"
  python3 "$work/corners.py" "$reference/top" "$1" >"$reference/said" 2>&1
  python3 "$work/corners.py" "$draft" "$1" >"$reference/said-draft" 2>&1 || true
  diff "$reference/said" "$reference/said-draft"
}

# What opens, or asks about, a name that is being replaced finds the old file or the new one, never nothing.
check_replaced() {
  need python3
  python3 - "$draft" <<'EOF'
import collections, errno, os, sys, time
path = sys.argv[1] + "/file"
open(path, "w").close()
os.setxattr(path, "user.x", b"")

def replace():
    until = time.monotonic() + 8
    while time.monotonic() < until:
        with open(path + ".tmp", "w"):
            os.setxattr(path + ".tmp", "user.x", b"")
        os.rename(path + ".tmp", path)

def ask(what):
    try:
        what()
        return "found"
    except OSError as error:
        return errno.errorcode[error.errno]

child = os.fork()
if child == 0:
    replace()
    os._exit(0)
acts = {
    "open": lambda: os.close(os.open(path, os.O_RDONLY)),
    "stat": lambda: os.stat(path),
    "chmod": lambda: os.chmod(path, 0o644),
    "utime": lambda: os.utime(path),
    "getxattr": lambda: os.getxattr(path, "user.x"),
    "truncate": lambda: os.truncate(path, 1),
}
said = {name: collections.Counter() for name in acts}
while os.waitpid(child, os.WNOHANG) == (0, 0):
    for name, act in acts.items():
        said[name][ask(act)] += 1
for name, counts in said.items():
    print(name, dict(counts))
always = all(counts["found"] > 100 and set(counts) == {"found"} for counts in said.values())
assert always, "a name that was always there was not found"
EOF
}

# ---- users ----

as() { # USER COMMAND…
  setpriv --reuid="$1" --regid="$(id -g "$1")" --clear-groups "${@:2}"
}

check_users() {
  need setpriv
  local group
  group=$(id -gn nobody)
  chmod 1777 "$draft"
  cd "$draft"
  as nobody sh -c 'umask 022; echo mine >open; mkdir dir; ln -s open link; mkfifo fifo; umask 077; echo secret >secret'
  local name
  for name in open dir link fifo secret; do same "$(stat -c %U:%G "$name")" "nobody:$group" "owner of $name"; done
  same "$(stat -c %a open secret dir | xargs)" "644 600 755" modes
  same "$(cat secret)" secret "read by root"
  same "$(as nobody cat secret)" secret "read by its owner"
  same "$(as daemon cat open)" mine "read by another"
  users_without_rights
  users_with_groups
  users_root
}

users_without_rights() {
  local denied='Permission denied' not_yours='Operation not permitted'
  refused "$denied" as daemon cat secret
  refused "$denied" as daemon sh -c 'echo x >>open'
  refused "$denied" as daemon touch dir/file
  refused "$denied" as daemon truncate -s 0 open
  refused "$not_yours" as daemon chmod 777 open
  refused "$not_yours" as daemon chown daemon open
  refused "$not_yours" as nobody chown daemon open
  refused "$denied" as daemon touch -d 2001-01-01 open
  refused "$denied" as daemon setfattr -n user.x -v y open
  # The sticky bit of the draft's root.
  refused "$not_yours" as daemon rm -f open
  refused "$not_yours" as daemon mv open stolen
  refused "$not_yours" as daemon mv -T dir stolen
  as daemon sh -c 'echo his >his; mkdir his-dir'
  refused "$not_yours" as daemon mv -f his open
  refused "$not_yours" as nobody rmdir his-dir
  # What only the owner may enter.
  as nobody sh -c 'mkdir -m 700 private; echo x >private/file; chmod 644 private/file'
  refused "$denied" as daemon cat private/file
  refused "$denied" as daemon ls private
  # To enter without listing, and to list without entering.
  as nobody chmod 711 private
  same "$(as daemon cat private/file)" x "a file in a directory that may be entered"
  refused "$denied" as daemon ls private
  as nobody chmod 744 private
  same "$(as daemon ls private 2>/dev/null)" file "a directory that may be listed"
  refused "$denied" as daemon cat private/file
  # What was open stays open.
  same "$(as nobody sh -c 'exec 3<open; chmod 000 open; cat <&3')" mine "read through what was open"
  refused "$denied" as nobody cat open
}

users_with_groups() {
  as nobody sh -c 'umask 027; echo ours >ours'
  chgrp daemon ours
  same "$(as daemon cat ours)" ours "read by the group"
  refused 'Permission denied' as bin cat ours
  # A group that is not the first of the process.
  same "$(setpriv --reuid=bin --regid=bin --groups=daemon cat ours)" ours "read by a further group"
  mkdir shared
  chgrp daemon shared
  chmod 2777 shared
  as nobody sh -c 'umask 022; echo x >shared/file; mkdir shared/dir'
  same "$(stat -c %U:%G shared/file)" nobody:daemon "owner in a set-group-id directory"
  same "$(stat -c %U:%G:%a shared/dir)" nobody:daemon:2755 "directory in a set-group-id directory"
}

users_root() {
  rm open
  mv secret moved
  chown daemon:daemon moved
  same "$(as daemon cat moved)" secret "given away"
  refused 'Permission denied' as nobody cat moved
  # Writing takes the bits that would lend the owner's rights.
  as nobody sh -c 'echo x >program; chmod 6777 program'
  as daemon sh -c 'echo y >>program'
  same "$(stat -c %a program)" 777 "mode after another wrote"
}

# ---- many processes ----

check_workers() {
  need python3
  mkdir "$reference/journals"
  timeout 60 python3 "$work/workers.py" "$draft" "$reference/journals" 20
  timeout 60 python3 "$work/workers.py" "$draft" "$reference/journals"
  drop_caches
  timeout 60 python3 "$work/workers.py" "$draft" "$reference/journals"
}

workers_program() {
  cat <<'EOF'
"""Eight workers change one tree and keep journals; or, without a duration, the tree is compared with the journals."""
import os, pickle, random, sys, time
WORKERS, SHARED = 8, 3
top, journals = sys.argv[1:3]

class Worker:
    def __init__(self, number):
        self.number, self.rng, self.made = number, random.Random(number), 0
        # Files by path: a list of one, so that hard links share it. Folders; symlinks with their targets.
        self.files, self.folders, self.links = {}, [f"own-{number}"], {}
        self.exclusive, self.lines, self.counts = [], 0, {}
        os.makedirs(f"{top}/own-{number}", exist_ok=True)

    def name(self):
        self.made += 1
        folder = self.rng.choice(self.folders + [f"shared-{n}" for n in range(SHARED)])
        return f"{folder}/{self.number}-{self.made}"

    def some(self, of):
        return self.rng.choice(list(of)) if of else None

    def create(self):
        path, content = self.name(), self.rng.randbytes(self.rng.choice([0, 10, 5000, 70_000]))
        with open(f"{top}/{path}", "xb") as file:
            file.write(content)
        self.files[path] = [content]

    def append(self):
        if path := self.some(self.files):
            more = self.rng.randbytes(100)
            with open(f"{top}/{path}", "ab") as file:
                file.write(more)
            self.files[path][0] += more

    def cut(self):
        if path := self.some(self.files):
            length = self.rng.randrange(6000)
            os.truncate(f"{top}/{path}", length)
            self.files[path][0] = self.files[path][0][:length].ljust(length, b"\0")

    def rename(self):
        if path := self.some(self.files):
            new = self.name() if self.rng.random() < 0.6 else self.some(self.files)
            # Two names of one file: rename(2) does nothing.
            os.rename(f"{top}/{path}", f"{top}/{new}")
            if self.files.get(new) is not self.files[path]:
                self.files[new] = self.files.pop(path)

    def remove(self):
        if path := self.some(self.files):
            os.unlink(f"{top}/{path}")
            del self.files[path]

    def link(self):
        if path := self.some(self.files):
            new = self.name()
            os.link(f"{top}/{path}", f"{top}/{new}")
            self.files[new] = self.files[path]

    def symlink(self):
        path, target = self.name(), f"to/{self.made}"
        os.symlink(target, f"{top}/{path}")
        self.links[path] = target

    def folder(self):
        path = self.some(self.folders) + f"/d{self.made}"
        self.made += 1
        if path.count("/") < 6 and len(self.folders) < 30:
            os.mkdir(f"{top}/{path}")
            self.folders.append(path)

    def move_folder(self):
        path = self.some(self.folders[1:])
        if path is None:
            return
        self.made += 1
        new = f"{self.folders[0]}/m{self.made}"
        os.rename(f"{top}/{path}", f"{top}/{new}")
        moved = lambda at: new + at[len(path):] if (at + "/").startswith(path + "/") else at
        self.folders = [moved(at) for at in self.folders]
        self.files = {moved(at): content for at, content in self.files.items()}
        self.links = {moved(at): target for at, target in self.links.items()}

    def read(self):
        if path := self.some(self.files):
            with open(f"{top}/{path}", "rb") as file:
                assert file.read() == self.files[path][0], f"{path} reads wrong"

    def removed_while_open(self):
        path = self.name()
        with open(f"{top}/{path}", "w+b") as file:
            os.unlink(f"{top}/{path}")
            file.write(b"x" * 5000)
            file.seek(0)
            assert file.read() == b"x" * 5000 and os.fstat(file.fileno()).st_nlink == 0

    # What several do with one name.
    def win(self):
        temporary = f"{top}/shared-0/temporary-{self.number}"
        with open(temporary, "wb") as file:
            file.write(bytes([self.number]) * 9000)
        os.rename(temporary, f"{top}/shared-0/winner")

    def exclusive_create(self):
        number = len(os.listdir(f"{top}/exclusive"))
        try:
            with open(f"{top}/exclusive/{number}", "x"):
                self.exclusive.append(number)
        except FileExistsError:
            pass

    def log(self):
        with open(f"{top}/log", "a") as file:
            file.write(f"{self.number} {self.lines} {'.' * self.rng.randrange(300)}\n")
        self.lines += 1

    ACTS = [create] * 6 + [append] * 3 + [cut] * 2 + [rename] * 5 + [remove] * 4 + [link] * 2 + [read] * 4
    ACTS += [symlink, folder, move_folder, removed_while_open, win, exclusive_create, log]

    def run(self, until):
        while time.monotonic() < until:
            act = self.rng.choice(self.ACTS)
            if act is Worker.create and len(self.files) > 400:
                act = Worker.remove
            try:
                act(self)
            except BaseException as error:
                print(f"worker {self.number}: {act.__name__}: {error!r}", flush=True)
                raise
            self.counts[act.__name__] = self.counts.get(act.__name__, 0) + 1
        with open(f"{journals}/{self.number}", "wb") as file:
            pickle.dump((self.files, self.folders, self.links, self.exclusive, self.lines), file)
        if self.number == 0:
            print(self.counts, flush=True)

def work(seconds):
    for name in [f"shared-{n}" for n in range(SHARED)] + ["exclusive"]:
        os.makedirs(f"{top}/{name}", exist_ok=True)
    until, children = time.monotonic() + seconds, []
    for number in range(WORKERS):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                Worker(number).run(until)
                os._exit(0)
            except BaseException:
                os._exit(1)
    assert all([os.waitpid(child, 0)[1] == 0 for child in children]), "a worker failed"

def tree():
    files, folders, links = {}, set(), {}
    for at, below, names in os.walk(top):
        at = os.path.relpath(at, top)
        for name in below + names:
            path = os.path.normpath(f"{at}/{name}")
            if os.path.islink(f"{top}/{path}"):
                links[path] = os.readlink(f"{top}/{path}")
            elif name in below:
                folders.add(path)
            else:
                with open(f"{top}/{path}", "rb") as file:
                    files[path] = (file.read(), os.fstat(file.fileno()).st_nlink)
    return files, folders, links

def differ(what, expected, seen):
    if expected == seen:
        return 0
    for path in sorted(set(expected) | set(seen)):
        if isinstance(expected, set):
            if (path in expected) != (path in seen):
                print(what, path, "expected" if path in expected else "not expected")
        elif expected.get(path) != seen.get(path):
            short = lambda entry: entry if entry is None or isinstance(entry, str) else (len(entry[0]), entry[1])
            print(what, path, "expected", short(expected.get(path)), "seen", short(seen.get(path)))
    return 1

def compare():
    files, folders, links = tree()
    wins = files.pop("shared-0/winner", None)
    log = files.pop("log")[0].decode().splitlines()
    exclusive = {path.split("/")[1] for path in list(files) if path.startswith("exclusive/") and files.pop(path)}
    expected_files, expected_folders, expected_links = {}, {f"shared-{n}" for n in range(SHARED)} | {"exclusive"}, {}
    made, lines = [], []
    for number in range(WORKERS):
        with open(f"{journals}/{number}", "rb") as file:
            own, own_folders, own_links, own_exclusive, own_lines = pickle.load(file)
        counts = {}
        for content in own.values():
            counts[id(content)] = counts.get(id(content), 0) + 1
        expected_files |= {path: (content[0], counts[id(content)]) for path, content in own.items()}
        expected_folders |= set(own_folders)
        expected_links |= own_links
        made += own_exclusive
        lines += [f"{number} {line}" for line in range(own_lines)]
    wrong = differ("file", expected_files, files) + differ("folder", expected_folders, folders)
    wrong += differ("symlink", expected_links, links)
    wrong += differ("exclusive", {str(number) for number in made}, exclusive)
    assert len(set(made)) == len(made), "two made one file with O_EXCL"
    assert sorted(" ".join(line.split(" ")[:2]) for line in log) == sorted(lines), "lines of the log were lost"
    assert wins and len(wins[0]) == 9000, "no winner"
    assert wrong == 0, "the tree is not what the journals say"
    print(len(files), "files", len(folders), "folders", len(links), "symlinks are right")

work(float(sys.argv[3])) if len(sys.argv) > 3 else compare()
EOF
}

# ---- many drafts ----

# Writes, reads back and removes files until it is told to stop.
write_on() { # DRAFT STOP-FILE
  python3 - "$@" <<'EOF'
import os, random, sys
top, stop = sys.argv[1:]
rng, have, number = random.Random(top), {}, 0
while not os.path.exists(stop):
    number += 1
    path, content = f"{top}/{number % 50}/{number}", rng.randbytes(rng.randrange(100_000))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    have[path] = content
    old = rng.choice(list(have))
    with open(old, "rb") as file:
        assert file.read() == have[old], old
    if len(have) > 100:
        os.unlink(old)
        del have[old]
left = {os.path.join(at, name) for at, _, names in os.walk(top) for name in names}
assert left == set(have), left ^ set(have)
for path, content in have.items():
    with open(path, "rb") as file:
        assert file.read() == content, path
assert number > 100, number
print(number, "files")
EOF
}

commit_again() { # NUMBER : by the verb or by mv, in turn
  local tree=$reference/tree
  echo "$1" >"$tree/number"
  cp "$tree/number" "$tree/$1"
  head -c 2000000 /dev/urandom >"$tree/changed"
  mkdir -p "$draft"
  cp -r "$tree/." "$draft"
  case $(($1 % 2)) in
  0) artifactfs commit t/drafts -a "a$1" ;;
  1) mv -T "$draft" "$draft:a$1" ;;
  esac
  diff -r "$tree" "$versions/t/drafts:v$1"
  diff -r "$tree" "$versions/t/drafts:a$1"
  # An alias that moved may be believed for a second.
  local i
  for i in $(seq 30); do
    [ "$(cat "$versions/t/drafts:latest/number")" != "$1" ] || return 0
    sleep 0.1
  done
  echo "latest is not v$1 ($i)"
  return 1
}

check_drafts() {
  need python3
  local writers=() one other=$staging/t/drafts-beside number
  mkdir -p "$reference/tree" "$other-1" "$other-2"
  make_source_tree "$reference/tree/source"
  for one in 1 2; do
    write_on "$other-$one" "$reference/stop" &
    writers+=($!)
  done
  for number in $(seq 0 9); do commit_again "$number"; done
  touch "$reference/stop"
  for one in "${writers[@]}"; do wait "$one"; done
  rm -rf "$other-1" "$other-2"
  # Every one of them is still what it was.
  for number in $(seq 0 9); do
    same "$(cat "$versions/t/drafts:v$number/number")" "$number" "content of v$number"
    not test -e "$versions/t/drafts:v$number/$((number + 1))"
  done
  commit_waits_for_writers
}

commit_waits_for_writers() {
  mkdir "$draft"
  exec 7>"$draft/open"
  echo first >&7
  refused . artifactfs commit t/drafts
  echo second >&7
  exec 7>&-
  artifactfs commit t/drafts
  same "$(cat "$versions/t/drafts:v10/open")" $'first\nsecond' "what was written around a commit that was refused"
}

# ---- drafts of versions ----

# A draft that stands on a version, because it was committed or begun as one, is ordinary too: the same random changes
# are made to it and to a copy on the host, and each must do the same to both.
check_based() {
  need python3
  make_source_tree "$draft/tree"
  head -c 3000000 /dev/urandom >"$draft/tree/big"
  cp -r "$draft" "$reference/copy"
  local number
  for number in 0 1 2; do
    artifactfs commit t/based
    diff -r --no-dereference "$reference/copy" "$versions/t/based:v$number"
    if [ "$number" -eq 1 ]; then
      begin_again v1
      # Versions know no hard links; this copies none either.
      rm -rf "$reference/copy"
      cp -r "$draft" "$reference/copy"
    fi
    change_both "$draft" "$reference/copy" "$number"
    diff -r --no-dereference "$reference/copy" "$draft"
    drop_caches
    diff -r --no-dereference "$reference/copy" "$draft"
  done
  # The version that it stands on has not changed.
  begin_again v2
  diff -r --no-dereference "$versions/t/based:v2" "$draft"
  artifactfs verify
}

begin_again() { # VERSION
  artifactfs draft discard "t/${draft##*/}"
  artifactfs draft "t/${draft##*/}:$1"
  # Names are believed for a second; that none is believed too long is for the check `begun-again`.
  sleep 1.5
}

# A draft that was thrown away and begun again is the new one at once, also for who enters it by a path walked before.
check_begun_again() {
  mkdir "$draft/folder"
  echo content >"$draft/folder/file"
  artifactfs commit t/begun-again
  same "$(cd "$draft/folder" && cat file)" content "the first draft"
  artifactfs draft discard t/begun-again
  artifactfs draft t/begun-again:v0
  same "$(cd "$draft/folder" && cat file 2>&1)" content "the second draft"
}

change_both() { # DRAFT COPY SEED
  python3 - "$@" <<'EOF'
import errno, os, random, shutil, sys
tops, seed = sys.argv[1:3], int(sys.argv[3])
rng, made, counts = random.Random(seed), seed * 10_000, {}

def cut(at, size):
    os.truncate(at, size)

def write(at, offset, more):
    file = os.open(at, os.O_RDWR)
    os.pwrite(file, more, offset)
    os.close(file)

def append(at, more):
    with open(at, "ab") as file:
        file.write(more)

def replace(at, content):
    with open(at + ".tmp", "wb") as file:
        file.write(content)
    os.rename(at + ".tmp", at)

def executable(at):
    os.chmod(at, os.lstat(at).st_mode ^ 0o111)

def paths():
    """Files and folders of the copy; the draft has the same."""
    files, folders = [], []
    for at, below, names in os.walk(tops[1]):
        files += [os.path.relpath(f"{at}/{name}", tops[1]) for name in names if not os.path.islink(f"{at}/{name}")]
        folders += [os.path.relpath(f"{at}/{name}", tops[1]) for name in below]
    return sorted(files), sorted(folders)

def choose():
    global made
    made += 1
    file, other, folder, second = rng.choice(files), rng.choice(files), rng.choice(folders), rng.choice(folders)
    more, at = rng.randbytes(rng.choice([1, 100, 9000])), rng.choice([0, 10, 5000, 1_000_000])
    new = f"{folder}/new-{made}"
    return rng.choice([
        (cut, file, at), (write, file, at, more), (append, file, more), (replace, file, more), (executable, file),
        (os.unlink, file), (os.rename, file, "/" + new), (os.rename, file, "/" + other),
        (os.rename, folder, "/" + new), (os.rename, folder, "/" + second), (os.mkdir, new), (os.rmdir, folder),
        (os.link, file, "/" + new), (shutil.copyfile, file, "/" + new),
        (shutil.rmtree, folder) if made % 5 == 0 and "/" in folder else (os.symlink, new, "/" + file),
    ])

def run(top, act, *arguments):
    # The first is a path, and what begins with a slash is one; a symlink's first is its target.
    first = arguments[0] if act is os.symlink else f"{top}/{arguments[0]}"
    rest = [top + one if isinstance(one, str) else one for one in arguments[1:]]
    try:
        act(first, *rest)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]

for number in range(2000):
    if number % 10 == 0:
        files, folders = paths()
    chosen = choose()
    seen, expected = (run(top, *chosen) for top in tops)
    assert seen == expected, f"{chosen[0].__name__} {[str(one)[:60] for one in chosen[1:]]}: {seen} and not {expected}"
    name = f"{chosen[0].__name__} {seen}"
    counts[name] = counts.get(name, 0) + 1
print(counts)
assert sum(name.endswith("done") and count > 5 for name, count in counts.items()) >= 9, "hardly anything was done"
EOF
}

# An empty directory can be removed at once by whoever has closed its files, also when it is a draft.
check_removed() {
  need python3
  python3 - "$staging/t/removed-at-once" <<'EOF'
import os, sys
top = sys.argv[1]
for _ in range(20):
    os.mkdir(top)
    files = [open(f"{top}/{number}", "w") for number in range(300)]
    for number in range(300):
        os.unlink(f"{top}/{number}")
    for file in files:
        file.close()
    os.rmdir(top)
EOF
}

# ---- the end ----

check_sound() {
  artifactfs fsck
  artifactfs verify
  not grep -aiE 'panic|error' "$repo/daemon.log"
}

check_umount() {
  # Idle now, so it must go without force.
  artifactfs umount "$versions"
  not mountpoint -q "$staging"
  not mountpoint -q "$versions"
}

[ "$(id -u)" -eq 0 ] || { say "run it as root: it mounts, and changes users"; exit 1; }
[ -x "$binary" ] || { say "no such program: $binary"; exit 1; }
trap end EXIT
trap 'exit 130' INT TERM
begin
workers_program >"$work/workers.py"
corners_program >"$work/corners.py"
# Each check runs in a shell of its own, under timeout.
mapfile -t functions < <(compgen -A function)
export -f "${functions[@]}"
export pjdfstest_exceptions

check pjdfstest 120 check_pjdfstest
check fsx 240 check_fsx
check_stressors
check fio 120 check_fio
check sqlite 120 check_sqlite
check git 120 check_git
check rsync 60 check_rsync
check tar 60 check_tar
check pip 120 check_pip
check checkpoints 90 check_checkpoints
check locks 60 check_locks
check holes 60 check_holes
for chapter in renames names folders times attributes content kinds nameless deep before_1970; do
  check "corners-$chapter" 60 check_corners "$chapter"
done
check replaced 60 check_replaced
check users 60 check_users
check workers 150 check_workers
check drafts 150 check_drafts
check based 120 check_based
check begun-again 60 check_begun_again
check removed 60 check_removed
check sound 60 check_sound
check umount 60 check_umount

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
