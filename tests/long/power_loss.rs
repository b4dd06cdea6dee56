//! A hundred power losses. The file system under repository and drafts is shut down at a random
//! moment of writing and committing, then mounted again and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::random::Random;
use crate::world::{World, host, noise, until};

const POINTS: u64 = 100;
/// The most operations before the wait for a loss begins, however slow the machine is ...
const STEPS_BEFORE: usize = 8;
/// ... and the longest wait, in microseconds.
const LOSS_WITHIN: usize = 500_000;
const DISK_BYTES: u64 = 1 << 30;
const DRAFT: &str = "p/a";

type Files = BTreeMap<String, Vec<u8>>;

/// Everything that must be there after a loss.
#[derive(Default, Clone)]
struct Promised {
    /// The acknowledged versions, by number.
    versions: BTreeMap<String, Files>,
    /// The draft as its writer sees it.
    files: Files,
    /// The files of the draft that were fsynced and not touched since.
    synced: BTreeSet<String>,
    /// The whole contents that the checkpoint ever had.
    checkpoints: BTreeSet<Vec<u8>>,
    /// A flag: the last operation renames the draft to a version, and its files are in one of them.
    moving: bool,
}

impl Promised {
    /// Keeps what the last operation did not touch, since it may or may not have happened.
    fn keep_promised(&mut self, before: Self) {
        self.versions.retain(|version, _| before.versions.contains_key(version));
        let (synced, files) = (&before.synced, &before.files);
        self.synced.retain(|name| synced.contains(name) && files.get(name) == self.files.get(name));
    }
}

struct Disk {
    image: PathBuf,
    target: PathBuf,
}

impl Disk {
    fn new(world: &World) -> Self {
        assert!(rustix::process::geteuid().is_root(), "mounting a loop device needs root");
        let disk = Self { image: world.path("image"), target: world.path("disk") };
        File::create(&disk.image).unwrap().set_len(DISK_BYTES).unwrap();
        host("mkfs.ext4", &[Path::new("-q"), &disk.image]);
        fs::create_dir(&disk.target).unwrap();
        disk.mount();
        disk
    }

    fn mount(&self) {
        host("mount", &[Path::new("-o"), Path::new("loop"), &self.image, &self.target]);
    }

    /// Returns whether no loop device has the image.
    fn is_free(&self) -> bool {
        let ran = Command::new("losetup").arg("-j").arg(&self.image).output().unwrap();
        ran.status.success() && ran.stdout.is_empty()
    }

    /// Shuts the file system down. What is not in the journal by now is lost.
    fn lose_power(&self) {
        let ran = Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.target).output();
        let ran = ran.expect("the package xfsprogs is needed");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.target).status();
    }
}

/// Makes one operation on the draft; an error is the loss.
fn step(world: &World, draft: &Path, random: &mut Random, known: &mut Promised) -> io::Result<()> {
    let name = format!("{}/f{}", ["x", "y", "z"][random.below(3)], random.below(8));
    let path = draft.join(&name);
    let seed = random.below(1u64 << 40);
    let length = [10, 5_000, 100_000, 400_000][random.below(4)];
    fs::create_dir_all(path.parent().unwrap())?;
    match random.below(12) {
        0..4 => {
            known.synced.remove(&name);
            known.files.remove(&name);
            let bytes = noise(seed, if random.below(12) == 0 { 9_000_000 } else { length });
            let mut file = File::create(&path)?;
            file.write_all(&bytes)?;
            let sync = random.below(2) == 0;
            if sync {
                file.sync_all()?;
            }
            known.files.insert(name.clone(), bytes);
            if sync {
                known.synced.insert(name);
            }
        }
        4 | 5 => {
            let Some(bytes) = known.files.get_mut(&name) else { return Ok(()) };
            known.synced.remove(&name);
            let patch = noise(seed, length / 3);
            let at = random.below(bytes.len() + 1000);
            let end = at + patch.len();
            let mut after = bytes.clone();
            after.resize(after.len().max(end), 0);
            after[at..end].copy_from_slice(&patch);
            let file = OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(&patch, at as u64)?;
            file.sync_data()?;
            *bytes = after;
            known.synced.insert(name);
        }
        6 => {
            known.synced.remove(&name);
            if known.files.contains_key(&name) {
                fs::remove_file(&path)?;
                known.files.remove(&name);
            }
        }
        7..10 => {
            // As torch.save is used: a temporary file is fsynced, then renamed over the last one.
            let bytes = noise(seed, length);
            let mut file = File::create(draft.join("checkpoint.tmp"))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            known.checkpoints.insert(bytes.clone());
            known.synced.remove("checkpoint");
            known.files.remove("checkpoint");
            fs::rename(draft.join("checkpoint.tmp"), draft.join("checkpoint"))?;
            File::open(draft)?.sync_all()?;
            known.files.insert("checkpoint".to_owned(), bytes);
            known.synced.insert("checkpoint".to_owned());
        }
        10 => {
            let ran = world.run(&["--json", "commit", DRAFT]);
            if ran.code != 0 {
                return Err(io::Error::other(ran.err));
            }
            let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
            let version = told["reference"].as_str().unwrap().to_owned();
            known.versions.insert(version, known.files.clone());
        }
        _ => {
            let last = format!("{DRAFT}:best");
            known.moving = true;
            fs::rename(draft, draft.with_file_name("a:best"))?;
            let ran = world.run(&["--json", "show", &last]);
            if ran.code != 0 {
                return Err(io::Error::other(ran.err));
            }
            let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
            let version = format!("{DRAFT}:{}", told["version"].as_str().unwrap());
            known.versions.insert(version, known.files.clone());
            let ran = world.run(&["draft", &last]);
            if ran.code != 0 {
                return Err(io::Error::other(ran.err));
            }
            // Everything in a draft's lower is durable.
            known.synced = known.files.keys().cloned().collect();
        }
    }
    Ok(())
}

fn files_below(root: &Path) -> Files {
    let mut found = Files::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn look(point: u64, read: &Path, draft: &Path, known: &mut Promised) {
    for (version, files) in &known.versions {
        let found = files_below(&read.join(version));
        assert!(
            found.keys().eq(files.keys()),
            "{point}: {version} has {:?}, not {:?}",
            found.keys(),
            files.keys()
        );
        assert!(found == *files, "{point}: {version} has other content");
    }
    let found = if draft.exists() { files_below(draft) } else { Files::new() };
    let moved = (known.moving && !draft.exists()).then(|| files_below(&read.join("p/a:best")));
    let kept = moved.as_ref().unwrap_or(&found);
    for name in &known.synced {
        let bytes = kept.get(name).unwrap_or_else(|| panic!("{point}: {name} was fsynced"));
        let wanted = &known.files[name];
        let first = bytes.iter().zip(wanted).position(|(found, wanted)| found != wanted);
        assert!(
            bytes == wanted,
            "{point}: {name} is not what was fsynced: {} bytes, not {}; they differ at {first:?}",
            bytes.len(),
            wanted.len()
        );
    }
    for name in found.keys() {
        let ours = name.split_once('/').is_some_and(|(folder, file)| {
            ["x", "y", "z"].contains(&folder)
                && file.strip_prefix('f').is_some_and(|n| n.len() == 1)
        });
        assert!(ours || name.starts_with("checkpoint"), "{point}: an unknown name: {name}");
    }
    if let Some(bytes) = found.get("checkpoint") {
        assert!(known.checkpoints.contains(bytes), "{point}: a torn checkpoint");
    }
    // The draft goes on with what is there, which is durable: it was read from the disk.
    known.files = found;
    if known.files.remove("checkpoint.tmp").is_some() {
        fs::remove_file(draft.join("checkpoint.tmp")).unwrap();
    }
    known.synced = known.files.keys().cloned().collect();
    known.checkpoints.extend(known.files.get("checkpoint").cloned());
}

/// Deletes old versions, so that a check of all stays quick.
fn forget_old(world: &World, known: &mut Promised) {
    while known.versions.len() > 6 {
        let number = |version: &String| version.rsplit_once('v').unwrap().1.parse::<u64>().unwrap();
        let oldest = known.versions.keys().min_by_key(|v| number(v)).unwrap().clone();
        world.ok(&["delete", &oldest, "--delete-aliases"]);
        known.versions.remove(&oldest);
    }
}

/// Returns the process that serves a mount, by its command line: the repository cannot be read.
fn daemon_of(mount: &Path) -> Option<i32> {
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let last = line.split(|b| *b == 0).rfind(|part| !part.is_empty())?;
        let serves = line.windows(10).any(|part| part == b"foreground");
        (serves && last == mount.as_os_str().as_encoded_bytes()).then_some(pid)
    })
}

/// Returns whether a daemon may still serve the mount: it is neither dead nor gone.
fn is_served(mount: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.contains(&format!(" {} ", mount.display())) && fs::read_dir(mount).is_ok()
}

#[test]
fn everything_acknowledged_survives_a_power_loss() {
    let mut world = World::new();
    let disk = Disk::new(&world);
    fs::remove_dir_all(world.repo()).unwrap();
    let repo = disk.target.join("repo");
    std::os::unix::fs::symlink(&repo, world.repo()).unwrap();
    world.ok(&["init", repo.to_str().unwrap()]);
    // The daemon's log is not lost with the disk.
    std::os::unix::fs::symlink(world.path("daemon.log"), repo.join("daemon.log")).unwrap();
    let mut known = Promised::default();
    let mut steps = 0;
    let mut commits = 0;
    let mut ended = 0;
    for point in 0..POINTS {
        let mut random = Random(point);
        let (read, staging) = world.mount();
        let draft = staging.join(DRAFT);
        look(point, &read, &draft, &mut known);
        forget_old(&world, &mut known);
        fs::create_dir_all(&draft).unwrap();
        File::open(&staging).unwrap();
        let before = known.versions.len();
        let delay = Duration::from_micros(random.below(LOSS_WITHIN) as u64);
        let steps_before = random.below(STEPS_BEFORE + 1);
        let losing = AtomicBool::new(false);
        let (stepped, steps_made) = channel::<()>();
        std::thread::scope(|scope| {
            let (losing, disk) = (&losing, &disk);
            let loss = scope.spawn(move || {
                steps_made.iter().take(steps_before).for_each(drop);
                std::thread::sleep(delay);
                losing.store(true, Ordering::SeqCst);
                disk.lose_power();
            });
            while !loss.is_finished() {
                known.moving = false;
                let before = known.clone();
                let done = step(&world, &draft, &mut random, &mut known);
                if losing.load(Ordering::SeqCst) {
                    // ext4 itself may acknowledge an fsync that the shutdown overtakes (8 of 60
                    // losses, without anything of ours above it). Only what was acknowledged before
                    // the shutdown began was promised.
                    known.keep_promised(before);
                    break;
                }
                if done.is_err() {
                    break;
                }
                steps += 1;
                // The receiver is gone if the thread already waits for the loss.
                let _ = stepped.send(());
            }
            drop(stepped);
        });
        commits += known.versions.len() - before;
        // A daemon that has ended by itself, for want of a disk, counts as killed.
        match daemon_of(&read).and_then(Pid::from_raw) {
            Some(daemon) => kill_process(daemon, Signal::KILL).unwrap(),
            None => ended += 1,
        }
        until("nobody serves the mount", || !is_served(&read));
        for target in std::mem::take(&mut world.mounts) {
            // The mount is gone if the daemon detached it itself.
            let _ = Command::new("umount").arg("-l").arg(&target).output().unwrap();
        }
        until("the disk is idle", || {
            Command::new("umount").arg(&disk.target).output().unwrap().status.success()
        });
        // Another mount namespace may hold the disk a moment longer. A mount would then give the
        // file system that was shut down.
        until("the disk is released", || disk.is_free());
        disk.mount();
        world.sound();
    }
    eprintln!("{POINTS} losses, {steps} operations, {commits} commits acknowledged");
    eprintln!("{ended} times the daemon had ended by itself");
    assert!(commits > 20 && steps > 300, "too little happened: {steps} steps, {commits} commits");
}
