//! Random changes to drafts of a version and to plain files, which must stay equal. The host file
//! systems keep holes, tails and small files in different ways. `ARTIFACTFS_SEED` selects other
//! changes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate};

use super::crash;
use crate::random::Random;
use crate::world::{World, host, noise};

/// A file system of its own, unmounted with the test.
pub struct Disk {
    pub target: PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.target).status();
    }
}

impl Disk {
    /// Makes a world whose repository lies on a disk of its own, made by `make` and mounted with
    /// `options`.
    pub fn world(make: &str, options: &str, mebibytes: u64) -> (World, Self) {
        assert!(rustix::process::geteuid().is_root(), "mounting needs root");
        let world = World::new();
        let target = world.path("disk");
        fs::create_dir(&target).unwrap();
        let mut mount = Command::new("mount");
        match make.split_once(' ') {
            Some((program, arguments)) => {
                let image = world.path("image");
                File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
                let arguments: Vec<_> = arguments.split(' ').map(Path::new).collect();
                host(program, &[&arguments[..], &[&image]].concat());
                mount.arg("-o").arg(options).arg(&image).arg(&target);
            }
            None => {
                mount.args(["-t", make, "-o", options, make]).arg(&target);
            }
        }
        let mounted = mount.current_dir(world.dir.path()).output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        let disk = Self { target };
        fs::remove_dir_all(world.repo()).unwrap();
        let repo = disk.target.join("repo");
        std::os::unix::fs::symlink(&repo, world.repo()).unwrap();
        world.ok(&["init", repo.to_str().unwrap()]);
        (world, disk)
    }
}

/// Lengths around what a host keeps in an inode, in a block, in a cluster and in an extent.
const LENGTHS: &[usize] = &[1, 50, 100, 700, 2_000, 4_095, 4_097, 5_168, 16_384, 70_000, 300_001];

#[derive(Debug, Clone, Copy)]
enum Change {
    Write(u64, u64, usize),
    Append(u64, usize),
    Length(u64),
    Allocate(u64, u64, bool),
    Punch(u64, u64),
    Zero(u64, u64),
}

fn change(random: &mut Random, length: u64) -> Change {
    let offset = random.below(length * 2 + 64);
    let many = 1 + random.below(length.min(9_000) + 64);
    let seed = random.below(1 << 30);
    match random.below(12) {
        0..4 => Change::Write(seed, offset, many as usize),
        4 | 5 => Change::Append(seed, many as usize),
        6 | 7 => Change::Length(offset),
        8 => Change::Allocate(offset, many, seed.is_multiple_of(2)),
        9 | 10 => Change::Punch(offset, many),
        _ => Change::Zero(offset, many),
    }
}

fn apply(path: &Path, change: Change) -> Result<(), String> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| e.to_string())?;
    let keep = FallocateFlags::KEEP_SIZE;
    let end = file.metadata().map_err(|e| e.to_string())?.len();
    match change {
        Change::Write(seed, offset, many) => file.write_all_at(&noise(seed, many), offset),
        Change::Append(seed, many) => file.write_all_at(&noise(seed, many), end),
        Change::Length(length) => file.set_len(length),
        Change::Allocate(offset, many, longer) => {
            let flags = if longer { FallocateFlags::empty() } else { keep };
            fallocate(&file, flags, offset, many).map_err(Into::into)
        }
        Change::Punch(offset, many) => {
            fallocate(&file, FallocateFlags::PUNCH_HOLE | keep, offset, many).map_err(Into::into)
        }
        Change::Zero(offset, many) => {
            fallocate(&file, FallocateFlags::ZERO_RANGE | keep, offset, many).map_err(Into::into)
        }
    }
    .map_err(|e| e.to_string())
}

fn same(draft: &Path, plain: &Path, what: &str) {
    for (index, _) in LENGTHS.iter().enumerate() {
        let name = index.to_string();
        let (left, right) = (fs::read(draft.join(&name)), fs::read(plain.join(&name)));
        let (left, right) = (left.unwrap(), right.unwrap());
        assert_eq!(left.len(), right.len(), "{what}: length of {name}");
        let differs = left.iter().zip(&right).position(|(left, right)| left != right);
        assert_eq!(differs, None, "{what}: {name} differs from this byte on");
    }
}

/// Makes random changes to files of a draft and to plain ones, and compares them. A change that the
/// host lacks is made to the plain file only if the draft could make it.
fn changes_are_kept(make: &str, options: &str, mebibytes: u64, stands: bool) {
    let seed = std::env::var("ARTIFACTFS_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(1);
    let mut random = Random(seed);
    let (mut world, _disk) = Disk::world(make, options, mebibytes);
    let plain = world.path("plain");
    fs::create_dir(&plain).unwrap();
    for (index, length) in LENGTHS.iter().enumerate() {
        fs::write(plain.join(index.to_string()), noise(index as u64, *length)).unwrap();
    }
    world.ok(&["put", "-n", "p/a", plain.to_str().unwrap()]);
    let (_, staging) = world.mount();
    let draft = staging.join("p/a");
    if stands {
        world.ok(&["draft", "p/a:v0"]);
    } else {
        let refused = world.run(&["draft", "p/a:v0"]);
        assert!(refused.err.contains("its file system"), "{make}: {}", refused.err);
        host("cp", &[Path::new("-r"), &staging.join("p/a:v0"), &draft]);
    }
    for round in 0..4 {
        for step in 0..60 {
            let index = random.below(LENGTHS.len() as u64) as usize;
            let change = change(&mut random, LENGTHS[index] as u64);
            let what =
                format!("{make} {options}, seed {seed}, round {round} step {step} {change:?}");
            let name = index.to_string();
            if apply(&draft.join(&name), change).is_ok() {
                apply(&plain.join(&name), change).expect(&what);
            }
        }
        let what = format!("{make} {options}, seed {seed}, round {round}");
        same(&draft, &plain, &what);
        match round {
            0 => {
                rustix::fs::sync();
                world.umount();
                world.mount();
            }
            1 => {
                crash(&world);
                world.mount();
            }
            _ => {}
        }
        same(&draft, &plain, &what);
        world.ok(&["commit", "p/a"]);
        same(&draft, &plain, &what);
        let _ = fs::remove_dir_all(world.path("out"));
        world.ok(&["get", "p/a", "--root", "out"]);
        same(&world.path("out"), &plain, &format!("the version, {what}"));
        // A removed file stays removed, and can be made again.
        fs::remove_file(draft.join("3")).unwrap();
        fs::rename(draft.join("4"), draft.join("3")).unwrap();
        fs::rename(draft.join("3"), draft.join("4")).unwrap();
        fs::copy(plain.join("3"), draft.join("3")).unwrap();
    }
    world.umount();
    world.sound();
}

#[test]
fn drafts_keep_writes_on_ext4() {
    changes_are_kept("mkfs.ext4 -q", "loop", 64, true);
}

#[test]
fn drafts_keep_writes_on_ext4_with_inline_data_and_small_blocks() {
    changes_are_kept("mkfs.ext4 -q -O inline_data -I 512", "loop", 64, true);
    changes_are_kept("mkfs.ext4 -q -b 1024", "loop", 64, true);
}

#[test]
fn drafts_keep_writes_on_ext4_with_clusters() {
    changes_are_kept("mkfs.ext4 -q -O bigalloc -C 65536", "loop", 128, true);
}

#[test]
fn drafts_keep_writes_on_btrfs() {
    changes_are_kept("mkfs.btrfs -q -f", "loop", 256, true);
}

#[test]
fn drafts_keep_writes_on_btrfs_with_compression() {
    changes_are_kept("mkfs.btrfs -q -f", "loop,compress-force=zstd", 256, true);
}

#[test]
fn drafts_keep_writes_on_btrfs_without_copy_on_write() {
    changes_are_kept("mkfs.btrfs -q -f", "loop,nodatacow", 256, true);
}

#[test]
fn drafts_keep_writes_on_xfs() {
    changes_are_kept("mkfs.xfs -q -f -m reflink=1", "loop", 320, true);
}

#[test]
fn drafts_keep_writes_on_tmpfs() {
    changes_are_kept("tmpfs", "size=256m", 0, true);
}

#[test]
fn drafts_keep_writes_on_overlayfs_without_whiteouts() {
    let layers = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| {
        let path = layers.path().join(name);
        fs::create_dir(&path).unwrap();
        path.display().to_string()
    };
    let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    changes_are_kept("overlay", &options, 0, false);
}

/// Makes a repository inside a draft of another one. The outer mount keeps `user.artifactfs.`
/// attributes for itself, and refuses ours.
#[test]
fn a_repository_in_the_draft_of_another_has_plain_drafts() {
    let mut outer = World::new();
    let (_, staging) = outer.mount();
    let place = staging.join("p/inner");
    fs::create_dir_all(&place).unwrap();
    let mut inner = World::new();
    fs::remove_dir_all(inner.repo()).unwrap();
    std::os::unix::fs::symlink(place.join("repo"), inner.repo()).unwrap();
    inner.ok(&["init", place.join("repo").to_str().unwrap()]);
    let source = inner.tree("src", &[("d/f", b"one"), ("big", &noise(1, 3_000_000))]);
    inner.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, drafts) = inner.mount();
    let refused = inner.run(&["draft", "p/a:v0"]);
    assert!(refused.err.contains("cannot be based on versions"), "{}", refused.err);
    fs::create_dir_all(drafts.join("p")).unwrap();
    host("cp", &[Path::new("-r"), &read.join("p/a:v0"), &drafts.join("p/b")]);
    fs::write(drafts.join("p/b/more"), "two").unwrap();
    inner.ok(&["commit", "p/b"]);
    assert_eq!(fs::read(read.join("p/b:v0/d/f")).unwrap(), b"one");
    assert_eq!(fs::read(read.join("p/b:v0/more")).unwrap(), b"two");
    inner.umount();
    inner.sound();
}
