# Functions for the suites: tools, programs, trees, and assertions. In the shell of a check, $draft is a draft that the
# check may fill. $reference is a directory of the host for what it is compared with.

artifactfs() { "$binary" --repo "$repo" "$@"; }

# Prints a line that is shown even if the check passes.
note() { echo "note: $*"; }

# ---- tools ----

# Fails if a tool is missing, so that no check passes without its tool.
need() { # TOOL…
  local tool
  for tool; do command -v "$tool" >/dev/null || { echo "$tool is missing"; return 1; }; done
}

# Installs a package of Debian if the command is missing.
debian() { # COMMAND PACKAGE
  command -v "$1" >/dev/null || debian_install "$2"
}

debian_install() { # PACKAGE
  # The index is fetched once in a run.
  [ -e "$work/apt-index" ] || apt-get update -q
  touch "$work/apt-index"
  apt-get install -yq "$1"
}

# Installs a crate whose program has its name.
crate() { # CRATE VERSION
  [ -x "$tools/bin/$1" ] || cargo install --locked "$1" --version "$2" --root "$tools"
}

# Runs a program beside the suites.
program() { # NAME [ARGUMENT…]
  python3 "$suites/programs/$1.py" "${@:2}"
}

# ---- assertions ----

same() { # A B WHAT
  [ "$1" = "$2" ] || { echo "$3: '$1' is not '$2'"; return 1; }
}

# Fails if the command fails or prints anything.
silent() { # COMMAND…
  local said
  said=$("$@" 2>&1) || { echo "$* failed: $said"; return 1; }
  same "$said" "" "$*"
}

# Fails if the command succeeds. After a plain `!` a shell under -e goes on.
not() { # COMMAND…
  if "$@"; then echo "should not be: $*"; return 1; fi
}

# Fails unless the command fails with a message that matches.
refused() { # PATTERN COMMAND…
  local pattern=$1 said
  shift
  if said=$("$@" 2>&1); then echo "not refused: $*"; return 1; fi
  grep -q "$pattern" <<<"$said" || { echo "$*: $said"; return 1; }
}

# ---- drafts and trees ----

# Drops what the kernel caches, so that it reads from the daemon again.
drop_caches() {
  sync -f "$draft"
  echo 3 >/proc/sys/vm/drop_caches
}

# Throws the draft away and begins it again as a version.
begin_again() { # VERSION
  artifactfs draft discard "t/${draft##*/}"
  artifactfs draft "t/${draft##*/}:$1"
  # The kernel caches names for a second. The check `begun-again` judges whether it caches none for longer.
  sleep 1.5
}

# Prints kind, mode, owner, time with its fraction, and name of all below a directory.
# It adds links, length and target of each entry that is no directory.
listing() { # DIRECTORY
  local all='%y %m %u:%g %T@ %p'
  find "$1" -mindepth 1 \( -type d -printf "$all\0" -o -printf "$all %n %s %l\0" \) | sed -z "s#$1##" | sort -z |
    tr '\0' '\n'
}
