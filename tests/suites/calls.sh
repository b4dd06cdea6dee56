# Programs in Python make system calls that file systems easily get wrong.

setup() {
  debian python3 python3
  debian fallocate util-linux
}

checks() {
  check locks 60 check_locks
  check holes 60 check_holes
  local chapter
  for chapter in renames names folders times attributes content kinds nameless deep before_1970; do
    check "corners-$chapter" 60 check_corners "$chapter"
  done
}

check_locks() {
  need python3
  program locks "$draft/file"
}

# What the program prints in the draft must be what it prints on the host.
check_holes() {
  need python3 fallocate
  program holes "$reference" >"$reference/said"
  program holes "$draft" >"$reference/said-draft"
  cat "$reference/said"
  diff "$reference/said" "$reference/said-draft"
}

check_corners() { # CHAPTER
  need python3
  mkdir "$reference/top"
  program corners "$reference/top" "$1" >"$reference/said" 2>&1
  # If it fails in the draft, the difference shows where.
  program corners "$draft" "$1" >"$reference/said-draft" 2>&1 || true
  diff "$reference/said" "$reference/said-draft"
}
