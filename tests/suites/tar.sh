# tar unpacks a tree of odd and sparse files into a draft and packs it there again.

setup() {
  debian tar tar
  debian python3 python3
}

checks() { check tar 60 check_tar; }

check_tar() {
  need tar python3
  mkdir "$reference/tree" "$draft/tree"
  program odd_tree "$reference/tree"
  program sparse_files "$reference/tree"
  local options=(-S --xattrs --format=posix)
  tar "${options[@]}" -cf "$reference/tree.tar" -C "$reference/tree" .
  tar "${options[@]}" -xpf "$reference/tree.tar" -C "$draft/tree"
  silent tar "${options[@]}" --compare -f "$reference/tree.tar" -C "$draft/tree"
  diff <(listing "$reference/tree") <(listing "$draft/tree")
  # The archive that tar makes of the draft is compared with the host's tree.
  tar "${options[@]}" -cf "$draft/again.tar" -C "$draft/tree" .
  silent tar "${options[@]}" --compare -f "$draft/again.tar" -C "$reference/tree"
  [ "$(stat -c %s "$draft/again.tar")" -lt $((4 << 20)) ] || { echo "tar found no holes"; return 1; }
  # A file system knows its blocks only after they are on disk.
  sync -f "$draft"
  sync -f "$reference"
  local file
  for file in sparse all-hole hole-last; do
    same "$(stat -c %b "$draft/tree/$file")" "$(stat -c %b "$reference/tree/$file")" "blocks of $file"
  done
}
