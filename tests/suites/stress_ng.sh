# stress-ng runs one kind of system calls in several processes and verifies some of their results.

# fiemap is left out because Linux has no FIEMAP in FUSE. verity, inode-flags and bind-mount do nothing on ext4 either.
# mmapfork, mmapmany and the like use anonymous memory and no file.
stressors='access aio aiol chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fanotify
  fcntl file-ioctl filename flock fpunch fsize fstat getdent handle hdd inotify io iomix lease link locka lockf lockofd
  metamix mknod mmap msync open readahead rename revio seek sendfile splice stackmmap symlink sync-file touch unlink
  utime xattr'

setup() { debian stress-ng stress-ng; }

checks() {
  local name
  for name in $stressors; do
    if too_old_for "$name"; then
      note "stress-ng is too old for the stressor $name" >&2
    else
      check "stress-ng-$name" 40 check_stressor "$name"
    fi
  done
}

# Returns whether the installed release lacks a stressor. Only newer releases have these two.
too_old_for() { # STRESSOR
  case $1 in
  metamix | unlink) command -v stress-ng >/dev/null && ! grep -qw "$1" <<<"$(stress-ng --stressors 2>&1)" ;;
  *) return 1 ;;
  esac
}

stressor_options() { # STRESSOR
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

check_stressor() { # STRESSOR
  need stress-ng
  local options
  read -ra options <<<"$(stressor_options "$1")"
  stress-ng --verify --metrics-brief --temp-path "$draft" "--$1" 2 --timeout "${STRESS_SECONDS:-3}" "${options[@]}" 2>&1 |
    tee "$reference/log"
  # A stressor that skips itself says so and exits with 0, but it has tested nothing.
  grep -Eq " $1 +[1-9][0-9]* " "$reference/log" || { echo "$1 did nothing"; return 1; }
  silent find "$draft" -mindepth 1
}
