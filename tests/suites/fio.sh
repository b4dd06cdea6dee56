# fio writes in several ways and verifies checksums, also after the kernel's cache was dropped.

setup() { debian fio fio; }

checks() { check fio 120 check_fio; }

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
  # This job verifies some blocks while it writes others.
  fio_verified mixed --ioengine=psync --rw=randrw --bs=8k --verify_backlog=256
}
