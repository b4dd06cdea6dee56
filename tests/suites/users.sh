# Users and groups have the rights in a draft that they have in a directory of the host.

setup() {
  debian setpriv util-linux
  debian setfattr attr
}

checks() { check users 60 check_users; }

as() { # USER COMMAND…
  setpriv --reuid="$1" --regid="$(id -g "$1")" --clear-groups "${@:2}"
}

check_users() {
  need setpriv setfattr
  local group
  group=$(id -gn nobody)
  chmod 1777 "$draft"
  cd "$draft"
  as nobody sh -c 'umask 022; echo mine >open; mkdir dir; ln -s open link; mkfifo fifo; umask 077; echo secret >secret'
  local name
  for name in open dir link fifo secret; do same "$(stat -c %U:%G "$name")" "nobody:$group" "owner of $name"; done
  same "$(stat -c %a open secret dir | xargs)" "644 600 755" modes
  same "$(cat secret)" secret "read by root"
  same "$(as nobody cat secret)" secret "read by its owner"
  same "$(as daemon cat open)" mine "read by another"
  users_without_rights
  users_with_groups
  users_root
}

users_without_rights() {
  local denied='Permission denied' not_yours='Operation not permitted'
  refused "$denied" as daemon cat secret
  refused "$denied" as daemon sh -c 'echo x >>open'
  refused "$denied" as daemon touch dir/file
  refused "$denied" as daemon truncate -s 0 open
  refused "$not_yours" as daemon chmod 777 open
  refused "$not_yours" as daemon chown daemon open
  refused "$not_yours" as nobody chown daemon open
  refused "$denied" as daemon touch -d 2001-01-01 open
  refused "$denied" as daemon setfattr -n user.x -v y open
  # The draft's root has the sticky bit.
  refused "$not_yours" as daemon rm -f open
  refused "$not_yours" as daemon mv open stolen
  refused "$not_yours" as daemon mv -T dir stolen
  as daemon sh -c 'echo his >his; mkdir his-dir'
  refused "$not_yours" as daemon mv -f his open
  refused "$not_yours" as nobody rmdir his-dir
  # Only the owner may enter this directory.
  as nobody sh -c 'mkdir -m 700 private; echo x >private/file; chmod 644 private/file'
  refused "$denied" as daemon cat private/file
  refused "$denied" as daemon ls private
  # Others may first enter it and not list it, and then list it and not enter it.
  as nobody chmod 711 private
  same "$(as daemon cat private/file)" x "a file in a directory that may be entered"
  refused "$denied" as daemon ls private
  as nobody chmod 744 private
  same "$(as daemon ls private 2>/dev/null)" file "a directory that may be listed"
  refused "$denied" as daemon cat private/file
  # A file that is open stays readable after its mode changed.
  same "$(as nobody sh -c 'exec 3<open; chmod 000 open; cat <&3')" mine "read through what was open"
  refused "$denied" as nobody cat open
}

users_with_groups() {
  as nobody sh -c 'umask 027; echo ours >ours'
  chgrp daemon ours
  same "$(as daemon cat ours)" ours "read by the group"
  refused 'Permission denied' as bin cat ours
  # The group may be one of the further groups of the process.
  same "$(setpriv --reuid=bin --regid=bin --groups=daemon cat ours)" ours "read by a further group"
  mkdir shared
  chgrp daemon shared
  chmod 2777 shared
  as nobody sh -c 'umask 022; echo x >shared/file; mkdir shared/dir'
  same "$(stat -c %U:%G shared/file)" nobody:daemon "owner in a set-group-id directory"
  same "$(stat -c %U:%G:%a shared/dir)" nobody:daemon:2755 "directory in a set-group-id directory"
}

users_root() {
  rm open
  mv secret moved
  chown daemon:daemon moved
  same "$(as daemon cat moved)" secret "given away"
  refused 'Permission denied' as nobody cat moved
  # A write removes the set-id bits, which would give the owner's rights to the new content.
  as nobody sh -c 'echo x >program; chmod 6777 program'
  as daemon sh -c 'echo y >>program'
  same "$(stat -c %a program)" 777 "mode after another wrote"
}
