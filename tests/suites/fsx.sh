# fsx reads and writes one file in many ways at random and compares it with a copy in memory.

setup() { crate fsx 0.3.2; }

checks() { check fsx 240 check_fsx; }

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
  # Two of them run at a time, so that the daemon always serves more than one. $FSX_SEEDS is their number.
  # shellcheck disable=SC2016
  seq "${FSX_SEEDS:-20}" | xargs -P 2 -I SEED sh -c 'fsx -q -f "$1/fsx.toml" -N 20000 -P "$1" -S SEED "$2/SEED" || {
    echo "seed SEED failed"; exit 1; }' fsx "$reference" "$draft"
}
