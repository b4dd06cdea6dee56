# Drafts are committed, thrown away, begun again and removed, beside other programs that write.

setup() { debian python3 python3; }

checks() {
  check drafts 150 check_drafts
  check based 120 check_based
  check begun-again 60 check_begun_again
  check removed 60 check_removed
}

# Commits the tree, with something changed, by the verb and by mv in turn.
commit_again() { # NUMBER
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
  # The kernel may cache an alias for a second after it moved.
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
  program source_tree "$reference/tree/source"
  for one in 1 2; do
    program write_on "$other-$one" "$reference/stop" &
    writers+=($!)
  done
  for number in $(seq 0 9); do commit_again "$number"; done
  touch "$reference/stop"
  for one in "${writers[@]}"; do wait "$one"; done
  rm -rf "$other-1" "$other-2"
  # Later commits have changed no version.
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

# A draft that was committed, or begun as a version, holds only its differences from that version. It must still behave
# as a copy on the host does.
check_based() {
  need python3
  program source_tree "$draft/tree"
  head -c 3000000 /dev/urandom >"$draft/tree/big"
  cp -r "$draft" "$reference/copy"
  local number
  for number in 0 1 2; do
    artifactfs commit t/based
    diff -r --no-dereference "$reference/copy" "$versions/t/based:v$number"
    if [ "$number" -eq 1 ]; then
      begin_again v1
      # Versions hold no hard links, so the new copy must hold none either.
      rm -rf "$reference/copy"
      cp -r "$draft" "$reference/copy"
    fi
    program change_both "$draft" "$reference/copy" "$number"
    diff -r --no-dereference "$reference/copy" "$draft"
    drop_caches
    diff -r --no-dereference "$reference/copy" "$draft"
  done
  # The changes must not have reached the version.
  begin_again v2
  diff -r --no-dereference "$versions/t/based:v2" "$draft"
  artifactfs verify
}

# After a draft was thrown away and begun again, a path that was used before must lead into the new draft at once.
check_begun_again() {
  mkdir "$draft/folder"
  echo content >"$draft/folder/file"
  artifactfs commit t/begun-again
  same "$(cd "$draft/folder" && cat file)" content "the first draft"
  artifactfs draft discard t/begun-again
  artifactfs draft t/begun-again:v0
  same "$(cd "$draft/folder" && cat file 2>&1)" content "the second draft"
}

# A draft can be removed at once after its files were closed, as any empty directory can.
check_removed() {
  need python3
  program removed "$staging/t/removed-at-once"
}
