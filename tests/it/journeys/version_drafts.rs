//! Drafts of versions: begun, copied, linked, changed, compared, restored, committed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, host, noise, same_tree, until, write};

/// Makes all chunks in the store unreadable, so that a read of content fails. Returns the hidden
/// packs.
fn hide_chunks(world: &World) -> Vec<PathBuf> {
    let mut hidden = Vec::new();
    for folder in fs::read_dir(world.repo().join("store/packs")).unwrap() {
        for entry in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "pack") && !is_of_nodes(&path) {
                fs::rename(&path, path.with_extension("hidden")).unwrap();
                hidden.push(path);
            }
        }
    }
    assert!(!hidden.is_empty());
    hidden
}

/// Returns whether a pack is one of trees. It begins with a tree of format 1 (`model/tree.rs`), as
/// nothing does that the tests put.
fn is_of_nodes(pack: &Path) -> bool {
    fs::read(pack).unwrap().first() == Some(&1)
}

fn bring_back(hidden: &[PathBuf]) {
    hidden.iter().for_each(|path| fs::rename(path.with_extension("hidden"), path).unwrap());
}

fn source(world: &World) -> PathBuf {
    let big = noise(1, 9_000_000);
    let source =
        world.tree("src", &[("a", b"one"), ("d/big", &big), ("d/e/f", b"two"), ("x", b"")]);
    fs::set_permissions(source.join("d/e/f"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("d/big", source.join("link")).unwrap();
    source
}

fn read_bytes(world: &World) -> u64 {
    let pid = world.daemon();
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find(|line| line.starts_with("rchar")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn making_a_draft_of_a_version_reads_no_content() {
    for way in ["draft", "cp -r", "cp -rl"] {
        let mut world = World::new();
        let source = source(&world);
        // The small files do not fit into a pack that also holds nodes.
        write(&source.join("small"), &noise(2, 1_200_000));
        world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
        let (read, staging) = world.mount();
        // The daemon opens packs when it reads them; there are none to open now.
        let hidden = hide_chunks(&world);
        let (from, draft) = (staging.join("p/a:v0"), staging.join("p/a"));
        let before = read_bytes(&world);
        match way {
            "draft" => drop(world.ok(&["draft", "p/a:v0"])),
            _ => host("cp", &[Path::new(&way[3..]), &from, &draft]),
        }
        let after = read_bytes(&world);
        assert!(after - before < 1_000_000, "{way}: {} bytes were read", after - before);
        assert_eq!(fs::metadata(draft.join("d/big")).unwrap().len(), 9_000_000, "{way}");
        // Names, modes and lengths can be changed, and committed, without content.
        fs::rename(draft.join("d"), draft.join("moved")).unwrap();
        fs::set_permissions(draft.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::hard_link(draft.join("moved/big"), draft.join("hard")).unwrap();
        fs::remove_file(draft.join("x")).unwrap();
        world.ok(&["commit", "p/a"]);
        bring_back(&hidden);
        let committed = read.join("p/a:v1");
        until("the version is there", || committed.exists());
        assert_eq!(fs::read(committed.join("hard")).unwrap(), noise(1, 9_000_000), "{way}");
        assert_eq!(fs::read(committed.join("moved/e/f")).unwrap(), b"two", "{way}");
        assert_ne!(fs::metadata(committed.join("a")).unwrap().mode() & 0o111, 0, "{way}");
        assert!(!committed.join("x").exists() && !committed.join("d").exists(), "{way}");
        same_tree(&committed, &draft);
        world.sound();
    }
}

#[test]
fn a_change_copies_up_and_stores_only_a_part_of_a_file() {
    let mut world = World::new();
    let bytes = noise(7, 60_000_000);
    let source = world.tree("src", &[("big", &bytes), ("other", &noise(8, 1000))]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let big = staging.join("p/a/big");
    OpenOptions::new().append(true).open(&big).unwrap().write_all(b"appended").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&big).unwrap();
    file.write_all_at(b"in the middle", 30_000_001).unwrap();
    drop(file);
    let on_host = world.repo().join("drafts/p/a/tree/big");
    let blocks = fs::metadata(&on_host).unwrap().blocks() * 512;
    assert!(blocks < 100_000, "{blocks} bytes were copied up");
    let mut expected = bytes;
    expected[30_000_001..30_000_014].copy_from_slice(b"in the middle");
    expected.extend_from_slice(b"appended");
    assert!(fs::read(&big).unwrap() == expected);
    let told = world.json(&["commit", "p/a"]);
    let stored = told["stored_bytes"].as_u64().unwrap();
    assert!(stored < 4_000_000, "{stored} bytes were stored");
    assert_eq!(told["files_read"], 1);
    until("the version is there", || read.join("p/a:v1").exists());
    assert!(fs::read(read.join("p/a:v1/big")).unwrap() == expected);
    // The new version is the draft's lower, and the upper has no bytes of it.
    assert_eq!(fs::metadata(&on_host).unwrap().blocks(), 0);
    assert!(fs::read(&big).unwrap() == expected);
    world.sound();
}

#[test]
fn appending_to_a_huge_file_costs_what_is_appended() {
    // A hundred gigabytes of zeros are one chunk, repeated.
    let mut world = World::new();
    let source = world.tree("src", &[]);
    File::create(source.join("huge")).unwrap().set_len(100 << 30).unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    host("cp", &[Path::new("-r"), &staging.join("p/a:v0"), &staging.join("p/a")]);
    let huge = staging.join("p/a/huge");
    OpenOptions::new().append(true).open(&huge).unwrap().write_all(b"the end").unwrap();
    let before = read_bytes(&world);
    let told = world.json(&["commit", "p/a"]);
    let read = read_bytes(&world) - before;
    assert!(read < 100_000_000, "{read} bytes were read");
    assert!(told["stored_bytes"].as_u64().unwrap() < 20_000_000, "{told}");
    let file = File::open(staging.join("p/a:v1/huge")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (100 << 30) + 7);
    let mut end = [1; 9];
    file.read_exact_at(&mut end, (100 << 30) - 2).unwrap();
    assert_eq!(&end, b"\0\0the end");
    world.sound();
}

#[test]
fn a_deleted_version_stays_while_it_is_the_lower_of_a_draft() {
    let mut world = World::new();
    let source = source(&world);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    fs::create_dir(staging.join("p/b")).unwrap();
    host("cp", &[Path::new("-r"), &staging.join("p/a:v0/d"), &staging.join("p/b/d")]);
    world.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    same_tree(&source, &staging.join("p/a"));
    world.umount();
    world.sound();
    let rebuilt = world.run(&["fsck", "--rebuild"]);
    assert_eq!(rebuilt.code, 0, "{}{}", rebuilt.out, rebuilt.err);
    world.mount();
    same_tree(&source, &staging.join("p/a"));
    same_tree(&source.join("d"), &staging.join("p/b/d"));
    world.ok(&["draft", "discard", "p/a"]);
    same_tree(&source.join("d"), &staging.join("p/b/d"));
    world.ok(&["draft", "discard", "p/b"]);
    world.umount();
    world.sound();
    assert_eq!(world.json(&["status"])["store_bytes"], 0);
}

#[test]
fn names_of_any_bytes_are_compared_through_the_daemon() {
    let mut world = World::new();
    let source = source(&world);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    write(&staging.join("p/a").join(OsStr::from_bytes(b"\xff")), b"new");
    let told = world.run(&["diff", "--draft", "p/a"]);
    assert_eq!(told.code, 1, "{}", told.err);
    assert!(told.out.starts_with("+ ") && told.out.ends_with("  3 B\n"), "{}", told.out);
}

#[test]
fn a_draft_is_compared_with_its_base_and_restored() {
    let mut world = World::new();
    let source = source(&world);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    assert_eq!(world.run(&["diff", "--draft", "p/a"]).code, 0);
    fs::remove_dir_all(draft.join("d/e")).unwrap();
    write(&draft.join("a"), b"changed");
    write(&draft.join("new"), b"new");
    fs::remove_file(draft.join("link")).unwrap();
    let told = world.run(&["diff", "--draft", "p/a"]);
    assert_eq!(told.code, 1);
    assert_eq!(told.out, "~ a  3 B -> 7 B\n- d/e/f  3 B\n- link\n+ new  3 B\n");
    let status = world.json(&["status"]);
    assert_eq!(status["drafts"][0]["changed"], 4);
    assert_eq!(status["drafts"][0]["base"], "p/a:v0");
    assert_eq!(status["drafts"][0]["files"], 4);
    assert_eq!(world.run(&["restore", "p/a/new"]).code, 10);
    assert_eq!(world.run(&["restore", "p/a/d/e/f"]).code, 10);
    for path in ["p/a/a", "p/a/d/e", "p/a/link"] {
        world.ok(&["restore", path]);
    }
    until("everything is back", || {
        fs::read(draft.join("a")).is_ok_and(|bytes| bytes == b"one")
            && fs::read(draft.join("d/e/f")).is_ok_and(|bytes| bytes == b"two")
            && draft.join("link").exists()
    });
    fs::remove_file(draft.join("new")).unwrap();
    same_tree(&source, &draft);
    assert_eq!(world.json(&["commit", "p/a"])["new_version"], false);
}

#[test]
fn a_commit_can_require_the_version_it_follows() {
    let mut world = World::new();
    let source = source(&world);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let other = world.tree("other", &[("b", b"2")]);
    world.ok(&["put", "-n", "p/a", other.to_str().unwrap()]);
    write(&staging.join("p/a/mine"), b"mine");
    let refused = world.run(&["commit", "p/a", "--expect", "v0"]);
    assert_eq!(refused.code, 11, "{}", refused.err);
    assert!(refused.err.contains("newest version of p/a is v1, not v0"), "{}", refused.err);
    assert_eq!(fs::read(staging.join("p/a/mine")).unwrap(), b"mine");
    // Versions are a sequence: without `--expect` a commit follows whatever is there.
    assert_eq!(world.json(&["commit", "p/a", "--expect", "v1"])["reference"], "p/a:v2");
    assert_eq!(world.json(&["draft", "ls"])[0]["base"], "p/a:v2");
    write(&staging.join("p/a/mine"), b"more");
    assert_eq!(world.json(&["commit", "p/a"])["reference"], "p/a:v3");
}

#[test]
fn a_commit_can_wait_for_writers() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let mut file = File::create(staging.join("p/a/model")).unwrap();
    let waiting = world.start(&["commit", "p/a", "--wait"]);
    assert_eq!(world.run(&["commit", "p/a", "--wait=1"]).code, 11);
    file.write_all(b"whole").unwrap();
    drop(file);
    let mut waiting = waiting;
    assert!(waiting.wait().unwrap().success());
    assert_eq!(fs::read(staging.join("p/a:v0/model")).unwrap(), b"whole");
}

#[test]
fn a_quiet_draft_is_committed_automatically() {
    let mut world = World::new();
    let (read, staging) = world.mount_with(&["--autocommit", "1"]);
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let mut file = File::create(staging.join("p/a/log")).unwrap();
    file.write_all(b"begun").unwrap();
    // Longer than the quiet time: a draft with an open file is not committed.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_500) {
        assert!(!read.join("p/a:v0").exists());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(file);
    until("it is committed", || read.join("p/a:v0/log").exists());
    write(&staging.join("p/a/more"), b"more");
    until("it is committed again", || read.join("p/a:v1/more").exists());
    assert_eq!(world.json(&["ls", "p/a"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_big_new_file_is_written_once() {
    for verb in ["commit", "mv"] {
        let mut world = World::new();
        let (read, staging) = world.mount();
        fs::create_dir_all(staging.join("p/a")).unwrap();
        let bytes = noise(3, 200_000_000);
        write(&staging.join("p/a/model"), &bytes);
        let written = || {
            let text = fs::read_to_string(format!("/proc/{}/io", world.daemon())).unwrap();
            let line = text.lines().find(|line| line.starts_with("wchar")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = written();
        match verb {
            "commit" => drop(world.ok(&["commit", "p/a"])),
            _ => fs::rename(staging.join("p/a"), staging.join("p/a:best")).unwrap(),
        }
        let wrote = written() - before;
        assert!(wrote < 2_000_000, "{verb}: {wrote} bytes were written again");
        until("the version is there", || read.join("p/a:v0").exists());
        assert!(fs::read(read.join("p/a:v0/model")).unwrap() == bytes);
        if verb == "commit" {
            // A write to the draft now does not reach the version.
            let file = OpenOptions::new().write(true).open(staging.join("p/a/model")).unwrap();
            file.write_all_at(b"changed", 1000).unwrap();
            drop(file);
            assert!(fs::read(staging.join("p/a/model")).unwrap()[1000..1007] == *b"changed");
        }
        assert!(fs::read(read.join("p/a:v0/model")).unwrap() == bytes);
        assert_eq!(world.run(&["verify"]).code, 0);
        world.sound();
    }
}

#[test]
fn prehashed_bytes_that_change_are_committed_as_changed() {
    for options in [&[][..], &["-o", "no_passthrough"]] {
        let mut world = World::new();
        let (read, staging) = world.mount_with(options);
        fs::create_dir_all(staging.join("p/a")).unwrap();
        let mut bytes = noise(11, 60_000_000);
        let mut file = File::create(staging.join("p/a/model")).unwrap();
        for part in bytes.chunks(1 << 20) {
            file.write_all(part).unwrap();
        }
        // Long enough to hash most of it; the result is the same however much is hashed.
        std::thread::sleep(Duration::from_millis(300));
        file.write_all_at(b"another thought", 20_000_000).unwrap();
        bytes[20_000_000..20_000_015].copy_from_slice(b"another thought");
        drop(file);
        world.ok(&["commit", "p/a"]);
        until("the version is there", || read.join("p/a:v0").exists());
        assert!(fs::read(read.join("p/a:v0/model")).unwrap() == bytes);
        world.tree("again", &[("model", &bytes)]);
        assert_eq!(world.json(&["put", "-n", "p/a", "again"])["new_version"], false);
        world.sound();
    }
}

#[test]
fn a_failed_commit_leaves_a_big_file_to_the_draft() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let bytes = noise(3, 20_000_000);
    write(&staging.join("p/a/a-big-one"), &bytes);
    symlink("/etc/passwd", staging.join("p/a/z")).unwrap();
    assert_eq!(world.run(&["commit", "p/a"]).code, 11);
    let on_host = world.repo().join("drafts/p/a/tree/a-big-one");
    assert_eq!(fs::metadata(&on_host).unwrap().nlink(), 1);
    let file = OpenOptions::new().write(true).open(staging.join("p/a/a-big-one")).unwrap();
    file.write_all_at(b"mine", 0).unwrap();
    drop(file);
    world.ok(&["commit", "p/a", "--allow-external-symlinks"]);
    let committed = staging.join("p/a:v0");
    assert_eq!(fs::read_link(committed.join("z")).unwrap(), Path::new("/etc/passwd"));
    assert!(fs::read(committed.join("a-big-one")).unwrap()[4..] == bytes[4..]);
    world.sound();
}

#[test]
fn contents_that_no_version_holds_are_reported_or_refused() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let draft = staging.join("p/a");
    host("mkfifo", &[&draft.join("fifo")]);
    let _socket = std::os::unix::net::UnixListener::bind(draft.join("socket")).unwrap();
    write(&draft.join("program"), b"#!/bin/sh\n");
    fs::set_permissions(draft.join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    let odd: &[u8] = b"not \xff UTF-8\n";
    write(&draft.join(OsStr::from_bytes(odd)), b"odd");
    let refused = world.run(&["commit", "p/a", "--strict"]);
    assert_eq!(refused.code, 11, "{}", refused.err);
    let ran = world.run(&["commit", "p/a"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for told in ["fifo is a FIFO", "socket is a socket", "program has a set-id bit"] {
        assert!(ran.err.contains(told), "{}", ran.err);
    }
    let committed = staging.join("p/a:v0");
    let names: Vec<_> = fs::read_dir(&committed).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::metadata(committed.join("program")).unwrap().mode() & 0o7111, 0o111);
    assert!(names.iter().any(|name| name.as_encoded_bytes() == odd));
    for target in ["/etc/passwd", "../outside"] {
        symlink(target, draft.join("leads-out")).unwrap();
        let refused = world.run(&["commit", "p/a"]);
        assert_eq!(refused.code, 11);
        assert!(refused.err.contains("leads-out leads out"), "{}", refused.err);
        fs::remove_file(draft.join("leads-out")).unwrap();
    }
}

fn attribute(path: &Path, name: &str) -> Option<String> {
    let ran = Command::new("getfattr")
        .args(["--only-values", "-n", &format!("user.artifact.{name}")])
        .arg(path)
        .output()
        .expect("the package attr is needed");
    ran.status.success().then(|| String::from_utf8(ran.stdout).unwrap())
}

fn set_attribute(path: &Path, name: &str, value: &str) -> bool {
    let name = format!("user.artifact.{name}");
    let ran = Command::new("setfattr").args(["-n", &name, "-v", value]).arg(path).output();
    ran.expect("the package attr is needed").status.success()
}

#[test]
fn attributes_say_what_a_version_is() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    let draft = staging.join("p/a");
    fs::create_dir_all(&draft).unwrap();
    write(&draft.join("f"), b"hello\n");
    assert!(set_attribute(&draft, "type", "model"));
    assert!(set_attribute(&draft, "description", "by attribute"));
    assert!(set_attribute(&draft, "metadata", r#"{"loss": 0.1}"#));
    assert!(set_attribute(&draft, "aliases", "best,first"));
    assert_eq!(attribute(&draft, "aliases").unwrap(), "best,first");
    assert_eq!(attribute(&draft, "name").unwrap(), "p/a");
    for (name, value) in
        [("metadata", "{"), ("aliases", "v7"), ("type", "a/b"), ("digest", "x"), ("tpye", "x")]
    {
        assert!(!set_attribute(&draft, name, value), "{name}={value}");
        let status = world.json(&["status"]);
        let troubles = status["troubles"].as_array().unwrap();
        let last = troubles.last().unwrap().as_str().unwrap();
        assert!(last.starts_with(&format!("user.artifact.{name} of draft p/a was not set: ")));
    }
    assert_eq!(world.json(&["commit", "p/a"])["reference"], "p/a:v0");
    let shown = world.json(&["show", "p/a:best"]);
    assert_eq!(shown["type"], "model");
    assert_eq!(shown["description"], "by attribute");
    assert_eq!(shown["metadata"]["loss"], 0.1);
    let version = staging.join("p/a:v0");
    assert_eq!(attribute(&version, "aliases").unwrap(), "best,first,latest");
    assert_eq!(attribute(&version, "version").unwrap(), "v0");
    assert_eq!(attribute(&version, "digest").unwrap(), shown["digest"].as_str().unwrap());
    assert_eq!(attribute(&version, "size").unwrap(), "6");
    assert!(attribute(&version, "created").unwrap().starts_with("20"));
    let digest = blake3::hash(b"hello\n").to_string();
    assert_eq!(attribute(&version.join("f"), "digest").unwrap(), digest);
    assert_eq!(attribute(&draft.join("f"), "digest"), None);
    assert!(set_attribute(&version, "description", "another"));
    assert!(set_attribute(&version, "aliases", "only,latest"));
    assert!(!set_attribute(&version, "type", "dataset"));
    assert!(!set_attribute(&version, "size", "7"));
    let shown = world.json(&["show", "p/a:only"]);
    assert_eq!(shown["description"], "another");
    assert_eq!(world.run(&["show", "p/a:best"]).code, 10);
    // The properties for the next version are used up.
    assert_eq!(attribute(&draft, "description"), None);
}

#[test]
fn a_kill_while_a_file_becomes_a_pack_leaves_both_whole() {
    let mut world = World::new();
    let mut versions: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..12u64 {
        let (read, staging) = world.mount();
        let model = staging.join("p/a/model");
        fs::create_dir_all(model.parent().unwrap()).unwrap();
        // The draft has what was written last, whatever became of the commit.
        let mut bytes = noise(round, 20_000_000);
        write(&model, &bytes);
        let daemon = world.daemon();
        let mut commit = world.start(&["commit", "p/a"]);
        std::thread::sleep(Duration::from_millis(round * 9));
        if round == 11 {
            // However slow the machine is, one commit ends.
            until("it is committed", || commit.try_wait().unwrap().is_some());
        }
        kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
        let acknowledged = commit.wait().unwrap().success();
        until("the mount is dead", || fs::read_dir(&read).is_err());
        let (read, _) = world.mount();
        let listed = world.run(&["--json", "ls", "p/a"]);
        // The artifact does not exist before its first version.
        let found = if listed.code == 10 {
            0
        } else {
            let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
            listed.as_array().map_or(0, Vec::len)
        };
        assert!(found == versions.len() || found == versions.len() + 1, "{round}: {found}");
        assert!(!acknowledged || found == versions.len() + 1, "{round}: an acknowledged commit");
        if found > versions.len() {
            versions.push((format!("p/a:v{}", found - 1), bytes.clone()));
        }
        assert!(fs::read(&model).unwrap() == bytes, "{round}: the draft");
        let file = OpenOptions::new().write(true).open(&model).unwrap();
        file.write_all_at(&noise(round + 100, 5_000_000), 3_000_000).unwrap();
        drop(file);
        bytes[3_000_000..8_000_000].copy_from_slice(&noise(round + 100, 5_000_000));
        assert!(fs::read(&model).unwrap() == bytes, "{round}: the draft, changed");
        for (version, bytes) in &versions {
            assert!(fs::read(read.join(version).join("model")).unwrap() == *bytes, "{version}");
        }
        world.umount();
        world.sound();
        assert_eq!(world.run(&["verify"]).code, 0);
    }
    assert!(!versions.is_empty(), "no commit came to its end");
}

#[test]
fn a_directory_opened_before_its_copy_up_is_synced_after_it() {
    let mut world = World::new();
    let source = source(&world);
    world.ok(&["put", source.to_str().unwrap(), "-n", "p/a"]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:latest"]);
    let directory = File::open(staging.join("p/a/d/e")).unwrap();
    fs::write(staging.join("p/a/d/e/new"), "x").unwrap();
    let (done, synced) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(directory.sync_all()));
    let synced = synced.recv_timeout(Duration::from_secs(30));
    synced.expect("a sync comes back").expect("the directory is on the disk");
    assert_eq!(fs::read(staging.join("p/a/d/e/new")).unwrap(), b"x");
}
