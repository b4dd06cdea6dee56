//! Random operations on a draft of a version, and on a plain directory beside it. Results and
//! content must be equal, through commits and restarts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::random::Random;
use crate::world::{World, noise, same_tree, until, write};

const ROUNDS: usize = 10;
const OPERATIONS: usize = 600;

/// Returns a path of few names, so that operations collide.
fn path(random: &mut Random) -> PathBuf {
    let names = ["a", "b", "c", "d", "e", "f"];
    let depth = 1 + random.below(3);
    (0..depth).map(|_| names[random.below(names.len())]).collect()
}

#[derive(Debug, Clone)]
enum Operation {
    Create(PathBuf, u64, usize),
    Write(PathBuf, u64, u64, usize),
    Append(PathBuf, u64, usize),
    Truncate(PathBuf, u64),
    Punch(PathBuf, u64, u64, bool),
    Remove(PathBuf),
    RemoveDirectory(PathBuf),
    RemoveAll(PathBuf),
    Make(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    NoReplace(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Symlink(PathBuf),
    Mode(PathBuf, u32),
    Copy(PathBuf, PathBuf),
    Read(PathBuf, u64, usize),
    List(PathBuf),
}

fn operation(random: &mut Random) -> Operation {
    use Operation as O;
    let (one, two) = (path(random), path(random));
    let seed = random.below(1 << 30) as u64;
    let small = random.below(3) > 0;
    let length = random.below(if small { 9_000 } else { 400_000 });
    let offset = random.below(if small { 20_000 } else { 1_500_000 }) as u64;
    match random.below(34) {
        0..4 => O::Create(one, seed, length),
        4..8 => O::Write(one, seed, offset, length),
        8 => O::Append(one, seed, length),
        9 | 10 => O::Truncate(one, offset),
        11 => O::Punch(one, offset, 1 + length as u64, seed.is_multiple_of(2)),
        12..15 => O::Remove(one),
        15 => O::RemoveDirectory(one),
        16 => O::RemoveAll(one),
        17..19 => O::Make(one),
        19..23 => O::Rename(one, two),
        23 => O::Exchange(one, two),
        24 => O::NoReplace(one, two),
        25 => O::Link(one, two),
        26 => O::Symlink(one),
        27 => O::Mode(one, if seed.is_multiple_of(2) { 0o755 } else { 0o644 }),
        28 => O::Copy(one, two),
        29..32 => O::Read(one, offset, length),
        _ => O::List(one),
    }
}

fn errno(result: io::Result<Vec<u8>>) -> Result<Vec<u8>, Option<i32>> {
    result.map_err(|e| e.raw_os_error())
}

fn apply(root: &Path, operation: &Operation) -> Result<Vec<u8>, Option<i32>> {
    use Operation as O;
    let at = |path: &PathBuf| root.join(path);
    let open = |path: &PathBuf| OpenOptions::new().write(true).open(at(path));
    let done = |result: io::Result<()>| result.map(|()| Vec::new());
    let rename = |one: &PathBuf, two: &PathBuf, flags| {
        done(renameat_with(CWD, at(one), CWD, at(two), flags).map_err(io::Error::from))
    };
    errno(match operation {
        O::Create(path, seed, length) => done(fs::write(at(path), noise(*seed, *length))),
        O::Write(path, seed, offset, length) => {
            done(open(path).and_then(|file| file.write_all_at(&noise(*seed, *length), *offset)))
        }
        O::Append(path, seed, length) => {
            let file = OpenOptions::new().append(true).open(at(path));
            done(file.and_then(|mut file| io::Write::write_all(&mut file, &noise(*seed, *length))))
        }
        O::Truncate(path, length) => done(open(path).and_then(|file| file.set_len(*length))),
        O::Punch(path, offset, length, zero) => done(open(path).and_then(|file| {
            let flags = match zero {
                true => FallocateFlags::ZERO_RANGE,
                false => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            };
            fallocate(&file, flags, *offset, *length).map_err(io::Error::from)
        })),
        O::Remove(path) => done(fs::remove_file(at(path))),
        O::RemoveDirectory(path) => done(fs::remove_dir(at(path))),
        O::RemoveAll(path) => done(fs::remove_dir_all(at(path))),
        O::Make(path) => done(fs::create_dir(at(path))),
        O::Rename(one, two) => done(fs::rename(at(one), at(two))),
        O::Exchange(one, two) => rename(one, two, RenameFlags::EXCHANGE),
        O::NoReplace(one, two) => rename(one, two, RenameFlags::NOREPLACE),
        O::Link(one, two) => done(fs::hard_link(at(one), at(two))),
        O::Symlink(path) => done(symlink("target", at(path))),
        O::Mode(path, mode) => match fs::symlink_metadata(at(path)) {
            Ok(meta) if !meta.is_symlink() => {
                done(fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)))
            }
            other => other.map(|_| Vec::new()),
        },
        O::Copy(one, two) => match fs::symlink_metadata(at(one)) {
            Ok(meta) if meta.is_file() && !same_file(&at(one), &at(two)) => {
                done(fs::copy(at(one), at(two)).map(drop))
            }
            other => other.map(|_| Vec::new()),
        },
        O::Read(path, offset, length) => File::open(at(path)).and_then(|file| {
            let mut bytes = vec![0; *length];
            let count = file.read_at(&mut bytes, *offset)?;
            bytes.truncate(count);
            Ok(bytes)
        }),
        O::List(path) => fs::read_dir(at(path)).and_then(|entries| {
            let mut names = Vec::new();
            for entry in entries {
                names.push(entry?.file_name().into_encoded_bytes());
            }
            names.sort();
            Ok(names.join(&b'/'))
        }),
    })
}

fn summary(result: &Result<Vec<u8>, Option<i32>>) -> String {
    match result {
        Ok(bytes) => format!("{} bytes", bytes.len()),
        Err(errno) => io::Error::from_raw_os_error(errno.unwrap_or(0)).to_string(),
    }
}

fn same_file(one: &Path, two: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(two)) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => false,
    }
}

/// Returns kind, executable bit, length and number of names of everything below `root`.
fn shape(root: &Path) -> BTreeMap<PathBuf, (u32, bool, u64, u64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            let (kind, file) = (meta.mode() & 0o170_000, meta.is_file());
            let told = (kind, file && meta.mode() & 0o111 != 0);
            let size = if meta.is_dir() { 0 } else { meta.len() };
            let names = if file { meta.nlink() } else { 1 };
            if meta.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, (told.0, told.1, size, names));
        }
    }
    found
}

fn first_version(world: &World, random: &mut Random) -> PathBuf {
    let source = world.tree("mirror", &[]);
    for _ in 0..60 {
        let path = source.join(path(random));
        if fs::create_dir_all(path.parent().unwrap()).is_err() || path.is_dir() {
            continue;
        }
        let length = [0, 1, 4_096, 70_000, 3_000_000, 6_000_000][random.below(6)];
        write(&path, &noise(random.below(99) as u64, length));
        if random.below(4) == 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    source
}

fn random_operations(seed: u64, options: &[&str]) {
    let mut random = Random(seed);
    let mut world = World::new();
    let mirror = first_version(&world, &mut random);
    world.ok(&["put", "-n", "p/a", mirror.to_str().unwrap()]);
    let (read, staging) = world.mount_with(options);
    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    for round in 0..ROUNDS {
        for number in 0..OPERATIONS {
            let operation = operation(&mut random);
            let (expected, found) = (apply(&mirror, &operation), apply(&draft, &operation));
            let (told, wanted) = (summary(&found), summary(&expected));
            assert!(
                found == expected,
                "{seed} {round}.{number}: {operation:?}: {told}, not {wanted}"
            );
        }
        assert_eq!(shape(&draft), shape(&mirror), "{seed} {round}");
        same_tree(&mirror, &draft);
        match random.below(4) {
            0 => {
                let told = world.json(&["commit", "p/a"]);
                let version = told["reference"].as_str().unwrap().to_owned();
                until("the version is there", || read.join(&version).exists());
                same_tree(&mirror, &read.join(version));
                assert_eq!(shape(&draft), shape(&mirror), "{seed} {round} committed");
                same_tree(&mirror, &draft);
                assert_eq!(world.json(&["draft", "ls"])[0]["changed"], 0);
                assert_eq!(world.json(&["commit", "p/a"])["new_version"], false);
            }
            1 => {
                let daemon = Pid::from_raw(world.daemon()).unwrap();
                kill_process(daemon, Signal::KILL).unwrap();
                until("the mount is dead", || fs::read_dir(&read).is_err());
                world.mount_with(options);
                same_tree(&mirror, &draft);
            }
            _ => {}
        }
    }
    world.ok(&["commit", "p/a"]);
    same_tree(&mirror, &draft);
    let totals = world.json(&["show", "p/a"]);
    let files = shape(&mirror);
    let regular = files.values().filter(|told| told.0 == 0o100_000);
    assert_eq!(totals["files"], regular.clone().count(), "{totals}");
    assert_eq!(totals["size_bytes"], regular.map(|told| told.2).sum::<u64>());
    // Equal content has an equal tree, however it was made.
    world.ok(&["put", "-n", "p/b", mirror.to_str().unwrap()]);
    let (one, two) = (world.json(&["show", "p/a"]), world.json(&["show", "p/b"]));
    assert_eq!(one["digest"], two["digest"]);
    assert_eq!(one["size_bytes"], two["size_bytes"]);
    world.umount();
    world.ok(&["draft", "discard", "p/a"]);
    assert_eq!(world.run(&["verify"]).code, 0);
    world.sound();
}

#[test]
fn a_draft_of_a_version_behaves_like_a_plain_directory() {
    random_operations(1, &[]);
}

#[test]
fn a_draft_without_passthrough_behaves_like_a_plain_directory() {
    random_operations(2, &["-o", "no_passthrough"]);
}
