//! Commits: what they must not take from a draft, nor put into a version.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use crate::bucket::Bucket;
use crate::world::{World, noise, until};

/// Makes a draft of a version with one file, and changes one byte of it.
fn changed(world: &mut World) -> (std::path::PathBuf, Vec<u8>) {
    let mut bytes = noise(1, 20_000);
    let source = world.tree("src", &[("f", &bytes)]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let file = OpenOptions::new().write(true).open(staging.join("p/a/f")).unwrap();
    file.write_all_at(b"X", 10).unwrap();
    bytes[10] = b'X';
    (staging.join("p/a"), bytes)
}

#[test]
fn the_lower_of_a_draft_outlives_its_version() {
    for linked in [true, false] {
        let mut world = World::new();
        let (draft, mut bytes) = changed(&mut world);
        let open = match linked {
            true => fs::hard_link(draft.join("f"), draft.join("g")).map(|()| None).unwrap(),
            false => Some(File::open(draft.join("f")).unwrap()),
        };
        world.ok(&["commit", "p/a"]);
        world.ok(&["delete", "p/a:v0"]);
        for number in 1..4 {
            fs::write(draft.join("more"), noise(number, 100_000)).unwrap();
            world.ok(&["commit", "p/a"]);
            world.ok(&["delete", &format!("p/a:v{number}")]);
        }
        world.ok(&["gc", "--garbage", "0"]);
        // Only the content of the file stays, not every version since.
        let record = fs::read(world.repo().join("drafts/p/a/draft.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(record["sources"].as_array().unwrap().len(), 2, "{record}");
        drop(open);
        world.umount();
        world.mount();
        assert!(fs::read(draft.join("f")).unwrap() == bytes, "linked: {linked}");
        let file = OpenOptions::new().write(true).open(draft.join("f")).unwrap();
        file.write_all_at(b"Y", 12_000).unwrap();
        drop(file);
        bytes[12_000] = b'Y';
        world.ok(&["commit", "p/a"]);
        world.ok(&["get", "p/a", "--root", "out"]);
        assert!(fs::read(world.path("out/f")).unwrap() == bytes, "linked: {linked}");
        world.umount();
        world.sound();
    }
}

#[test]
fn zeroing_beyond_the_end_brings_no_old_bytes_back() {
    let mut world = World::new();
    let (draft, before) = changed(&mut world);
    let zeros = FallocateFlags::ZERO_RANGE;
    for (number, (offset, length)) in
        [(0, 30_000), (5_000, 20_000), (19_999, 5_000), (4_096, 15_904)].into_iter().enumerate()
    {
        let name = format!("f{number}");
        fs::copy(draft.join("f"), draft.join(&name)).unwrap();
        let plain = world.path(&name);
        fs::write(&plain, &before).unwrap();
        for path in [&plain, &draft.join(&name)] {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            fallocate(&file, zeros, offset, length).unwrap();
        }
        let same = || fs::read(&plain).unwrap() == fs::read(draft.join(&name)).unwrap();
        assert!(same(), "{offset} {length}");
    }
    let file = OpenOptions::new().write(true).open(draft.join("f")).unwrap();
    fallocate(&file, zeros, 0, 30_000).unwrap();
    drop(file);
    assert!(fs::read(draft.join("f")).unwrap() == vec![0; 30_000]);
}

/// Makes files and writes to them at once, until `stop` is set.
fn write_on(folder: &Path, stop: &AtomicBool) {
    fs::create_dir(folder).unwrap();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let mut file = File::create(folder.join(format!("f{number}"))).unwrap();
        file.write_all(b"0123456789").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_new_file_is_in_no_version_until_its_writer_closes_it() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    let draft = staging.join("p/a");
    fs::create_dir_all(&draft).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (folder, stop) = (draft.join(writer.to_string()), &stop);
            scope.spawn(move || write_on(&folder, stop));
        }
        for round in 0..8 {
            world.ok(&["commit", "p/a", "--wait=30"]);
            let out = format!("out{round}");
            world.ok(&["get", "p/a", "--root", &out]);
            for folder in fs::read_dir(world.path(&out)).unwrap() {
                for file in fs::read_dir(folder.unwrap().path()).unwrap() {
                    let file = file.unwrap();
                    assert_eq!(file.metadata().unwrap().len(), 10, "{round}: {:?}", file.path());
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    world.ok(&["commit", "p/a", "--wait=30"]);
    world.umount();
    world.sound();
}

#[test]
fn a_removed_open_file_is_readable_until_it_is_closed() {
    let mut world = World::new();
    let bytes = [noise(1, 300_000), noise(2, 300_000)];
    let source = world.tree("src", &[("same", &bytes[0]), ("changed", &bytes[1])]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    let changed = OpenOptions::new().write(true).open(draft.join("changed")).unwrap();
    changed.write_all_at(b"X", 10).unwrap();
    let files = ["same", "changed"].map(|name| File::open(draft.join(name)).unwrap());
    let mut expected = bytes.clone();
    expected[1][10] = b'X';
    for name in ["same", "changed"] {
        fs::remove_file(draft.join(name)).unwrap();
    }
    let refused = world.run(&["commit", "p/a", "--wait=0"]);
    assert!(refused.err.contains("has a file that was removed open"), "{}", refused.err);
    drop(changed);
    for number in 0..3 {
        fs::write(draft.join("more"), noise(10 + number, 100_000)).unwrap();
        world.ok(&["commit", "p/a"]);
        world.ok(&["delete", "--delete-aliases", &format!("p/a:v{number}")]);
    }
    world.ok(&["gc", "--garbage", "0"]);
    for (file, expected) in files.iter().zip(&expected) {
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == *expected);
    }
    drop(files);
    fs::write(draft.join("more"), noise(20, 100_000)).unwrap();
    world.ok(&["commit", "p/a"]);
    world.ok(&["delete", "--delete-aliases", "p/a:v3"]);
    let status = world.json(&["status"]);
    assert!(status["store_bytes"].as_u64().unwrap() < 110_000, "nothing else stays: {status}");
    world.umount();
    world.sound();
}

#[test]
fn a_running_commit_outlives_its_mount() {
    let bucket = Bucket::start();
    let mut world = World::with_store(bucket.environment(), "s3://b/x");
    let (_, staging) = world.mount();
    let bytes = noise(1, 5_000_000);
    fs::create_dir_all(staging.join("p/a")).unwrap();
    fs::write(staging.join("p/a/f"), &bytes).unwrap();
    bucket.hang(Some("PUT"));
    let told = fs::rename(staging.join("p/a"), staging.join("p/a:best")).unwrap_err();
    assert_eq!(told.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
    let ran = world.run(&["umount", world.path("mnt").to_str().unwrap()]);
    assert!(ran.code == 0 && ran.err.contains("is being committed"), "{} {}", ran.code, ran.err);
    world.mounts.clear();
    let left = world.json(&["status"])["left"].to_string();
    assert!(left.contains("\"commits\":true"), "{left}");
    let (mnt, drafts) = (world.path("mnt"), world.path("staging"));
    let args = ["mount", mnt.to_str().unwrap(), "--staging", drafts.to_str().unwrap()];
    let refused = world.run(&args);
    assert!(refused.err.contains("which commits a draft"), "{} {}", refused.code, refused.err);
    bucket.hang(None);
    until("the daemon has ended", || world.json(&["status"])["left"] == serde_json::json!([]));
    world.ok(&["get", "p/a:best", "--root", "out"]);
    assert!(fs::read(world.path("out/f")).unwrap() == bytes);
    world.mount();
    assert!(!staging.join("p/a").exists(), "the committed draft is gone");
    world.umount();
    world.sound();
}

#[test]
fn a_draft_of_the_greatest_depth_is_committed() {
    let mut world = World::new();
    let (read, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let mut deep = staging.join("p/a");
    let longest = 4_095;
    while deep.as_os_str().len() + 100 < longest - 20 {
        deep.push("d".repeat(99));
        fs::create_dir(&deep).unwrap();
    }
    let (small, big) = (deep.join("s"), deep.join("b"));
    let last = deep.join("l".repeat(longest - deep.as_os_str().len() - 1));
    fs::write(&small, "one").unwrap();
    fs::write(&big, noise(1, 9_000_000)).unwrap();
    fs::write(&last, "two").unwrap();
    let on_host = world.repo().join("drafts/p/a/tree");
    let below = |path: &Path| path.strip_prefix(staging.join("p/a")).unwrap().to_owned();
    assert!(on_host.join(below(&last)).as_os_str().len() > longest, "longer than in the mount");
    world.ok(&["commit", "p/a"]);
    let file = OpenOptions::new().write(true).open(&big).unwrap();
    file.write_all_at(b"X", 5_000_000).unwrap();
    drop(file);
    fs::remove_file(&small).unwrap();
    world.ok(&["commit", "p/a"]);
    let mut changed = noise(1, 9_000_000);
    changed[5_000_000] = b'X';
    assert!(fs::read(&big).unwrap() == changed);
    let version = |number: u64, path: &Path| read.join(format!("p/a:v{number}")).join(below(path));
    assert_eq!(fs::read(version(0, &small)).unwrap(), b"one");
    assert!(fs::read(version(0, &big)).unwrap() == noise(1, 9_000_000));
    assert!(fs::read(version(1, &big)).unwrap() == changed);
    assert_eq!(fs::read(version(1, &last)).unwrap(), b"two");
    assert!(!version(1, &small).exists());
    world.umount();
    world.sound();
}
