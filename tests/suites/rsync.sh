# rsync copies a tree of odd files from the host into a draft, and must then find no difference.

setup() {
  debian rsync rsync
  debian python3 python3
}

checks() { check rsync 60 check_rsync; }

rsync_sees_nothing() {
  silent rsync -aHXn --delete --itemize-changes -c "$reference/tree/" "$draft/tree/"
}

check_rsync() {
  need rsync python3
  mkdir "$reference/tree"
  program odd_tree "$reference/tree"
  rsync -aHX "$reference/tree/" "$draft/tree/"
  rsync_sees_nothing
  drop_caches
  rsync_sees_nothing
  # rsync does not compare the fractions of times.
  diff <(listing "$reference/tree") <(listing "$draft/tree")
  local number
  for number in $(seq 0 19); do
    [ "$draft/tree/hard/one-$number" -ef "$draft/tree/hard/deep/er/three-$number" ]
    same "$(stat -c %h "$draft/tree/hard/two-$number")" 3 "links of two-$number"
  done
  # A changed source is copied over the first copy.
  echo more >>"$reference/tree/hard/one-3"
  rm "$reference/tree/hard/two-5"
  mv "$reference/tree/dir-plain" "$reference/tree/away"
  rsync -aHX --delete --inplace "$reference/tree/" "$draft/tree/"
  rsync_sees_nothing
}
