# Eight processes change one tree at random, and it must be what their journals say.

setup() { debian python3 python3; }

checks() { check workers 150 check_workers; }

check_workers() {
  need python3
  mkdir "$reference/journals"
  local workers=(timeout 60 python3 "$suites/programs/workers.py" "$draft" "$reference/journals")
  "${workers[@]}" 20
  "${workers[@]}"
  drop_caches
  "${workers[@]}"
}
