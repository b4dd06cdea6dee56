# After all other suites the repository is sound, and the mounts go.

setup() { :; }

checks() {
  check sound 60 check_sound
  check umount 60 check_umount
}

check_sound() {
  artifactfs fsck
  artifactfs verify
  not grep -aiE 'panic|error' "$repo/daemon.log"
}

check_umount() {
  # No check uses the mounts any more, so they must go without force.
  artifactfs umount "$versions"
  not mountpoint -q "$staging"
  not mountpoint -q "$versions"
}
