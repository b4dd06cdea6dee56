# git works in a clone that is a draft, in the version that the draft becomes, and in a draft of that version.

setup() {
  debian git git
  debian python3 python3
}

checks() { check git 120 check_git; }

git_is_clean() { # REPOSITORY
  silent git -C "$1" status --porcelain
  git -C "$1" fsck --full --strict
}

check_git() {
  need git python3
  git init -q "$reference/origin"
  program source_tree "$reference/origin"
  git -C "$reference/origin" add .
  git -C "$reference/origin" commit -qm first
  git clone -q "$reference/origin" "$draft/clone"
  git_is_clean "$draft/clone"
  git_history "$draft/clone"
  git -C "$draft/clone" gc -q --prune=now
  git_is_clean "$draft/clone"
  git -C "$draft/clone" push -q origin HEAD:refs/heads/back
  drop_caches
  git_is_clean "$draft/clone"
  git_of_a_version
}

git_history() { # REPOSITORY
  local i
  for i in $(seq 15); do
    echo "$i" >>"$1/changing"
    git -C "$1" mv "$i" "moved-$i"
    git -C "$1" rm -rq "$((i + 20))"
    git -C "$1" add .
    git -C "$1" commit -qm "change $i"
  done
  git -C "$1" checkout -qb side HEAD~5
  echo side >"$1/side"
  git -C "$1" add side
  git -C "$1" commit -qm side
  git -C "$1" merge -q -m merged -
  echo stashed >>"$1/side"
  git -C "$1" stash push -q
  git -C "$1" stash drop -q
  git -C "$1" worktree add -q "$1-tree" HEAD~3
  git -C "$1" worktree remove "$1-tree"
}

git_of_a_version() {
  local head
  head=$(git -C "$draft/clone" rev-parse HEAD)
  artifactfs commit t/git
  same "$(git -C "$versions/t/git:v0/clone" rev-parse HEAD)" "$head" "head of the version"
  git_is_clean "$versions/t/git:v0/clone"
  begin_again v0
  git_is_clean "$draft/clone"
  git -C "$draft/clone" checkout -q HEAD~4
  git_is_clean "$draft/clone"
  git -C "$draft/clone" gc -q --prune=now
  git_is_clean "$draft/clone"
}
