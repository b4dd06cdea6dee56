#!/usr/bin/env bash
# Makes an archive of golden repositories: they have every kind of record and file in docs/FORMAT.md.
#   tests/golden/make.sh BINARY      writes tests/golden/N.tar.zst and N.json; N is `generation` below
# Run it as root when a format has changed, with what is new added and `generation` raised. It never
# replaces an archive. Needs /dev/fuse, python3, git, zstd, setfattr, chattr, and $TMPDIR on ext4, xfs or btrfs.
set -euo pipefail
generation=3
# Some records name the host: a fixed one.
[ "$(uname -n)" = golden ] || exec unshare --uts bash -c 'hostname golden && exec "$0" "$@"' "$0" "$@"

binary=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
[ ! -e "$here/$generation.tar.zst" ] || { echo "$generation.tar.zst is there: raise generation" >&2; exit 2; }
work=$(mktemp -d)
# References and put indexes hold absolute paths, so what they name is in a fixed place. The test puts it there.
place=/tmp/artifactfs-golden-$generation
rm -rf "$place"
mkdir "$place"
server=
finish() {
  umount -l "$work"/*/mnt "$work"/*/staging 2>/dev/null || true
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work" "$place"
}
trap finish EXIT
umask 022
export HOME=$work XDG_CACHE_HOME=$work LC_ALL=C.UTF-8 TZ=UTC
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_REGION=us-east-1
unset "${!ARTIFACTFS_@}"
# Runs record their commands, which shall not name a folder of this host.
mkdir "$work/bin"
ln -s "$binary" "$work/bin/artifactfs"
export PATH=$work/bin:$PATH

# One of the repositories, each with a cache of its own.
use() { export ARTIFACTFS_REPO=$work/$1/repo ARTIFACTFS_CACHE_DIR=$work/$1/cache; }
afs() { artifactfs --quiet "$@" >/dev/null; }
noise() { python3 -c 'import hashlib, sys; sys.stdout.buffer.write(hashlib.shake_128(sys.argv[1].encode()).digest(int(sys.argv[2])))' "$@"; }
# Long, without equal chunks, and compressed to nothing: lines of 4 KiB, padded.
padded() { python3 -c 'import sys; [print(f"{n:4095d}") for n in range(int(sys.argv[1]))]' "$1"; }

# What is stored: files of every kind, one of them cut into chunks, with names of any bytes.
source=$place/source
mkdir -p "$source/folder/deep" "$source/hollow"
echo 'a golden repository' >"$source/readme.txt"
printf '#!/bin/sh\ntrue\n' >"$source/run.sh"
chmod 755 "$source/run.sh"
: >"$source/empty"
ln -s ../readme.txt "$source/folder/link"
echo leaf >"$source/folder/deep/leaf"
echo 'a name in Latin-1' >"$source/"$'caf\xe9'
echo 'a name of two lines' >"$source/"$'two\nlines'
{ noise chunked 150000; padded 500; head -c 2500000 /dev/zero; } >"$source/chunked"
# Of a file that was just written, a put index has no record.
sleep 3
mkdir -p "$place/external/folder"
echo 'is elsewhere' >"$place/external/one"
echo 'is elsewhere too' >"$place/external/folder/two"

# A repository with its store in a directory.
mkdir -p "$work/local/mnt" "$work/local/staging"
use local
cd "$place"
afs init --name golden
afs serve init --admin ann
afs user create bob --role reader
afs key create --user bob --role reader --note job --expires 36500d
afs key create --user bob --project lab --project secret --note 'for two projects'
afs user disable bob
# It had users before anything was put, so each project is a zone.
afs project set lab --visibility public
afs project set secret --visibility private
afs project member add secret bob --role admin
afs put -n secret/data source
afs put -n lab/data -t dataset -a first -d $'the first words\nin two lines' --tag raw --ttl 36500d \
  --metadata '{"rows": 3, "share": 0.25, "none": null, "nested": {"list": [1, "two", true]}, "nan": NaN}' source
afs put -n lab/copy --ttl never source
echo 'the second text' >source/readme.txt
afs put -n lab/data -a best --tag checked source
afs alias protect lab/data best
afs alias protect lab/data future
afs update --artifact lab/data -d 'about the artifact' --tag kept --ttl 36000d
noise deleted 30000 >source/only-here
afs put -n lab/data source
noise added 5000 >source/only-here
afs put -n lab/data source
afs put -n lab/elsewhere --reference "file://$place/external" --reference "renamed=file://$place/external/one"
printf '{"columns": ["id", "label", "score"], "data": [[%s, "cat", 0.93], [2, "dog", null]], "ncols": 3, "nrows": 2}' 1 >one.table.json
printf '{"columns": ["id", "label", "score"], "data": [[%s, "cat", NaN]], "ncols": 3, "nrows": 1}' 3 >two.table.json
mkdir -p tables/parts && mv ./*.table.json tables/parts
afs put -n lab/tables -t table tables
afs table partition lab/tables parts joined

# Groups: sealed, sealed and begun again, and open with two parts.
for group in sealed again; do
  afs put --upsert --group $group -n lab/$group source/folder
  afs put --upsert --group $group -n lab/$group source/run.sh
  afs finish -n lab/$group --group $group -a whole
done
afs put --upsert --group again -n lab/again source/readme.txt
afs put --upsert --group open -n lab/parts source/folder
afs put --upsert --group open -n lab/parts source/run.sh

# Runs: finished, with all that a run can have; failed; crashed; and begun by a script. A sweep of two of them.
afs mount --staging "$work/local/staging" "$work/local/mnt"
afs sweep create lab --id sweep --metric accuracy --goal maximize
mkdir code
cat >code/train.sh <<'SCRIPT'
#!/bin/sh
set -e
cat "$ARTIFACTFS_ROOT/lab/data:best/readme.txt" >model
artifactfs -q put -n lab/model -t model -a trained model
artifactfs -q run log --summary accuracy=0.5 --summary 'classes=["cat", "dog"]'
artifactfs -q run log --step 1 --metric loss=0.75 --metric rate=NaN
artifactfs -q run log --step 2 --metric loss=0.5
SCRIPT
chmod 755 code/train.sh
(
  cd code
  export GIT_{AUTHOR,COMMITTER}_{NAME,EMAIL}=golden GIT_{AUTHOR,COMMITTER}_DATE='2025-01-01T00:00:00Z'
  git init -q -b main .
  git add train.sh
  git commit -qm code
  sed -i '2i# changed since the commit' train.sh
  afs run -p lab --id finished --name baseline --group runs --job-type train --sweep sweep --save-code \
    --config rate=0.1 --config 'layers=[1, 2]' -- ./train.sh
)
afs run -p lab --id failed --sweep sweep -- sh -c 'artifactfs -q run log --summary accuracy=0.25; exit 3' || true
afs run -p lab --id crashed -- sh -c 'kill -9 $$' || true
afs run start -p lab --id script
afs run log script --metric loss=1
afs run finish script --exit-code 0

# Drafts: of a version, with every kind of change; committed and changed again; and without a version.
afs draft lab/data:best
draft=$work/local/staging/lab/data
echo 'other bytes in the middle' | dd of="$draft/chunked" bs=4096 seek=100 conv=notrunc status=none
truncate -s -4096 "$draft/chunked"
rm "$draft/run.sh"
rm -r "$draft/folder/deep" && mkdir "$draft/folder/deep" && echo new >"$draft/folder/deep/new"
mv "$draft/hollow" "$draft/renamed"
ln "$draft/readme.txt" "$draft/linked.txt"
ln -s readme.txt "$draft/link"
chmod +x "$draft/empty"
truncate -s 1M "$draft/sparse"
setfattr -n user.mine -v 'an attribute' "$draft/empty"
mkdir "$work/local/staging/lab/fresh"
padded 3000 >"$work/local/staging/lab/fresh/whole"
mkdir "$work/local/staging/lab/begun"
echo begun >"$work/local/staging/lab/begun/file"
for name in type=model description='never committed' metadata='{"begun": true}' aliases=three,four; do
  setfattr -n "user.artifact.${name%%=*}" -v "${name#*=}" "$work/local/staging/lab/begun"
done
# A commit makes a pack of the long file itself.
afs commit lab/fresh
echo more >"$work/local/staging/lab/fresh/more"

afs delete lab/data:v2
# Packs with dead bytes between living ones: freed at once, too few for `gc`, left for it, and not freed because
# the disk failed.
mkdir mixed
for dead in now:20000 later:800 last:20000 failed:21000; do
  name=lab/dead-${dead%:*}
  noise "living $dead" 8000 >mixed/living
  noise "dead $dead" "${dead#*:}" >mixed/dead
  afs put -n "$name" mixed
  rm mixed/dead
  afs put -n "$name" mixed
  case $dead in
    now:*) afs delete "$name:v0" ;;
    later:*) afs delete "$name:v0" --purge later && afs gc ;;
    last:*) afs delete "$name:v0" --purge later ;;
    failed:*)
      pack=$(find "$ARTIFACTFS_REPO/store" -name '*.pack' -size +28999c -size -29999c)
      chattr +i "$pack"
      afs delete "$name:v0" 2>"$work/errors" || true
      chattr -i "$pack"
      ;;
  esac
done
afs umount "$work/local/mnt"

# A repository with its store in a bucket: compressed objects, a cache, a draft, a put that was killed.
mkdir -p "$work/cloud/mnt" "$work/cloud/staging" "$work/cloud/bucket/golden/data"
cp -r external/* "$work/cloud/bucket/golden/data"
exec 3< <(exec "$here/bucket.py" "$work/cloud/bucket")
server=$!
read -ru 3 port
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
use cloud
afs init --store s3://golden/store
afs put -n lab/data source
afs put -n lab/pinned source/folder
echo 'the third text' >source/readme.txt
afs put -n lab/data -a best source
afs put -n lab/bucket --reference s3://golden/data
afs put -n lab/unproven --no-checksum --reference one=s3://golden/data/one
afs delete lab/data:v0 --purge later
afs cache pin lab/pinned
afs mount -o prefetch=none --staging "$work/cloud/staging" "$work/cloud/mnt"
cat "$work/cloud/mnt/lab/bucket:v0/one" >/dev/null
dd if="$work/cloud/mnt/lab/data:best/chunked" bs=4096 count=1 status=none >/dev/null
afs draft lab/data:best
echo drafted >"$work/cloud/staging/lab/data/readme.txt"
# The put has stored new content, but not the tree. It pins content that was stored before.
mkdir killed
cp source/chunked killed/known
padded 2500 >killed/new
noise killed 20000 >killed/small
touch "$work/cloud/bucket/.hang"
artifactfs --quiet put -n lab/killed killed >/dev/null &
killed=$!
disown "$killed"
timeout 60 sh -c 'until [ -e "$0" ]; do sleep 0.05; done' "$work/cloud/bucket/.hung"
# Meanwhile the content is registered.
sleep 1
kill -9 "$killed"
while kill -0 "$killed" 2>/dev/null; do sleep 0.05; done
afs umount "$work/cloud/mnt"
rm -r "$work"/cloud/bucket/.??* killed
# The next command finds that its process is dead, which another host could not.
afs gc

# A repository that knows of its damage: one object that is damaged, and a pack that is lost.
use damaged
afs init
afs put -n lab/damaged external/one
# The tree of the version whose file is lost is in another pack.
mkdir lost
cp external/folder/two lost
afs put -n lab/before lost
echo 'is kept' >lost/three
afs put -n lab/lost lost
afs delete lab/before:v0 --delete-aliases
rm -r lost
store=$ARTIFACTFS_REPO/store/packs
sed -i 's/is elsewhere/is DAMAGED!!/' "$(grep -rlx 'is elsewhere' "$store")"
rm "$(grep -rlx 'is elsewhere too' "$store")"
afs verify 2>"$work/errors" || true
afs fsck --repair 2>"$work/errors" || true

# The archive holds holes, attributes, devices and times. Sockets and locks belong to processes that are gone.
cd "$work"
rm -f ./*/repo/{lock,*.sock}
mkdir place
cp -a "$place"/{source,external} place
tar --format=posix --sparse --hole-detection=seek --xattrs --xattrs-include='user.*' --numeric-owner \
  --sort=name -cf - local cloud damaged place | zstd -q -19 --long=27 >archive

# What is in it, as its own release sees it in a copy.
mkdir copy
tar --xattrs --xattrs-include='user.*' -I zstd -xf archive -C copy
kill "$server"
exec 3< <(exec "$here/bucket.py" "$work/copy/cloud/bucket")
server=$!
read -ru 3 port
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
python3 - "$work/copy" "$here/list.py" >"$work/expected" <<'PYTHON'
import json
import os
import subprocess
import sys

copy, list_py = sys.argv[1:]
COMMANDS = """
user ls
key ls
project ls
group ls
draft ls
runs ls lab
runs show finished --metrics
runs show failed --metrics
runs show crashed --metrics
runs show script --metrics
run used finished
run logged finished
logged-by lab/model
used-by lab/data:best
lineage lab/model
sweep ls lab
sweep show sweep
sweep best sweep --artifacts
show --artifact lab/data
table show lab/tables:latest/joined.partitioned-table.json
diff lab/data:first lab/data:best
diff --draft lab/data
""".split("\n")[1:-1]


def run(*command):
    return json.loads(subprocess.run(command, check=False, stdout=subprocess.PIPE).stdout)


def look(name, commands):
    """Returns what commands say about a repository, and a list of the files of its mounts."""
    folder = f"{copy}/{name}"
    os.environ["ARTIFACTFS_REPO"], os.environ["ARTIFACTFS_CACHE_DIR"] = f"{folder}/repo", f"{folder}/cache"
    said = {}

    def ask(command):
        said[command] = run("artifactfs", "--json", *command.split())
        return said[command]

    ask("ls")
    versions = []
    for artifact in [entry["artifact"] for entry in ask("ls lab")]:
        ask(f"alias ls {artifact}")
        for version in ask(f"ls {artifact}"):
            versions.append(version["reference"])
            ask(f"show {version['reference']}")
            ask(f"ls {version['reference']}")
    for command in commands:
        ask(command)
    if name == "damaged":
        return {"commands": said}
    mount, staging = f"{folder}/mnt", f"{folder}/staging"
    subprocess.run(["artifactfs", "-q", "mount", "--staging", staging, mount], check=True, stdout=subprocess.DEVNULL)
    files = run(list_py, *(f"{mount}/{version}" for version in versions))
    drafts = sorted(name for name in os.listdir(f"{staging}/lab") if ":" not in name)
    drafts = {draft: run(list_py, f"{staging}/lab/{draft}") for draft in drafts}
    subprocess.run(["artifactfs", "-q", "umount", mount], check=True, stdout=subprocess.DEVNULL)
    return {"commands": said, "files": files, "drafts": drafts}


expected = {"local": look("local", COMMANDS), "cloud": look("cloud", []), "damaged": look("damaged", [])}
json.dump(expected, sys.stdout, indent=1)
print()
PYTHON
mv expected "$here/$generation.json"
mv archive "$here/$generation.tar.zst"
