# A program replaces a file by a rename while others read it. They find the old file or the new one, and never none.

setup() { debian python3 python3; }

checks() {
  check checkpoints 90 check_checkpoints
  check replaced 60 check_replaced
}

check_checkpoints() {
  need python3
  program checkpoints "$draft"
}

check_replaced() {
  need python3
  program replaced "$draft"
}
