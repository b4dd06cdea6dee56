//! Bad input: the exit code, and a message with what was wanted, what was found, and a hint.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use artifactfs::registry::engine::redb::RedbEngine;
use artifactfs::registry::engine::{self, Durability};

use crate::world::{World, noise, write};

/// Runs a command that must fail with `code` and print `words`, to stderr only.
fn refuses(world: &World, args: &[&str], code: i32, words: &[&str]) {
    let ran = world.run(args);
    assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.err);
    assert!(ran.out.is_empty(), "{args:?} prints to stdout: {}", ran.out);
    for word in words {
        assert!(ran.err.contains(word), "{args:?}: no {word:?} in: {}", ran.err);
    }
    let json = world.run(&[&["--json"], args].concat());
    assert_eq!(json.code, code);
    if code != 2 {
        let told: serde_json::Value = serde_json::from_str(&json.err).expect(&json.err);
        assert!(told["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

#[test]
fn invalid_names_are_refused() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    let source = source.to_str().unwrap();
    let long = format!("p/{}", "x".repeat(300));
    for name in ["a", "p/", "/a", "p/a/b", "p/ü", "../a", "p/..", "p/a b", ".p/a", &long, "p/-a\0"]
    {
        if name.contains('\0') {
            continue;
        }
        refuses(&world, &["put", "-n", name, source], 3, &["hint"]);
    }
    refuses(&world, &["put", "-n", "p/a:v3", source], 3, &["names one"]);
    refuses(&world, &["put", "-n", "p/a", "-a", "v3", source], 3, &["\"v3\"", "version"]);
    refuses(&world, &["put", "-n", "p/a", "-a", "a/b", source], 3, &["hint"]);
    refuses(&world, &["put", "-n", "p/a", "-t", "x:y", source], 3, &["type"]);
    refuses(&world, &["show", "nothing"], 3, &["project/artifact"]);
    // A name may begin with a dash; `--name=` keeps it from being a flag.
    world.ok(&["put", "--name=p/-a", source]);
    world.ok(&["show", "p/-a"]);
}

#[test]
fn missing_things_are_reported() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    refuses(&world, &["show", "q/a"], 10, &["no project q", "hint"]);
    refuses(&world, &["show", "p/b"], 10, &["no artifact p/b", "hint"]);
    refuses(&world, &["show", "p/a:v7"], 10, &["no version v7", "hint"]);
    refuses(&world, &["get", "p/a:best"], 10, &["no alias best", "hint"]);
    refuses(&world, &["ls", "p/a:v0/none"], 10, &["has no none"]);
    refuses(&world, &["put", "-n", "p/a", "missing"], 10, &["missing"]);
    refuses(&world, &["commit", "p/a"], 10, &["no draft p/a"]);
    refuses(&world, &["umount", "src"], 10, &["not mounted"]);
    refuses(&world, &["umount", "/proc"], 11, &["not of artifactfs"]);
    refuses(&world, &["mount", "nowhere"], 10, &["mkdir"]);
    let repo = world.path("elsewhere");
    let output = world.command(&["ls"]).env("ARTIFACTFS_REPO", "x").output().unwrap();
    assert!(output.status.success(), "the flag beats the environment");
    let mut other = std::process::Command::new(env!("CARGO_BIN_EXE_artifactfs"));
    let output = other.arg("--repo").arg(&repo).arg("ls").output().unwrap();
    assert_eq!(output.status.code(), Some(10));
    assert!(String::from_utf8_lossy(&output.stderr).contains("artifactfs init"));
}

#[test]
fn contradictory_requests_are_refused() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    let source = source.to_str().unwrap();
    refuses(&world, &["put"], 2, &["Usage"]);
    refuses(&world, &["frobnicate"], 2, &["frobnicate"]);
    refuses(&world, &["put", "-n", "p/a", "--metadata", "[1]", source], 2, &["JSON object"]);
    refuses(&world, &["put", "-n", "p/a", "--metadata", "{", source], 2, &["JSON object"]);
    refuses(&world, &["put", "-n", "p/a", "--metadata", "@none", source], 10, &["none"]);
    refuses(&world, &["put", "-n", "p/a", "--include", "a[", source], 2, &["glob"]);
    refuses(&world, &["prune", "p", "--older-than", "soon"], 2, &["duration"]);
    refuses(&world, &["mount", "-o", "magic", "src"], 2, &["magic", "known"]);
    world.ok(&["put", "-n", "p/a", source]);
    refuses(&world, &["update", "p/a"], 2, &["nothing to update"]);
    refuses(&world, &["update", "p/a", "--set", "x"], 2, &["KEY=VALUE"]);
    let big = format!("{{\"k\": \"{}\"}}", "x".repeat(1 << 20));
    write(&world.path("big.json"), big.as_bytes());
    refuses(&world, &["update", "p/a", "--metadata", "@big.json"], 2, &["the most"]);
}

#[test]
fn existing_things_in_the_way_are_reported() {
    let mut world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    world.ok(&["put", "-n", "p/a", "-t", "model", source.to_str().unwrap()]);
    let put = ["put", "-n", "p/a", "-t", "dataset", source.to_str().unwrap()];
    refuses(&world, &put, 11, &["has type model"]);
    refuses(&world, &["init"], 11, &["repository already"]);
    refuses(&world, &["init", "other", "--store", "ftp://host"], 2, &["unknown scheme", "s3://"]);
    refuses(&world, &["init", "other", "--store", "nonsense"], 2, &["URL of a store"]);
    refuses(&world, &["mount", "src"], 11, &["not empty"]);
    let (read, _) = world.mount();
    fs::create_dir(world.path("m2")).unwrap();
    fs::create_dir(world.path("s2")).unwrap();
    refuses(&world, &["mount", read.to_str().unwrap()], 11, &["mount point already"]);
    refuses(&world, &["mount", "m2", "--staging", "s2"], 11, &["one staging mount"]);
    let busy = fs::File::open(read.join("p/a:v0/a")).unwrap();
    refuses(&world, &["umount", read.to_str().unwrap()], 11, &["in use", "--lazy"]);
    drop(busy);
    world.umount();
}

#[test]
fn unreadable_files_are_reported() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1"), ("secret", b"2")]);
    fs::set_permissions(source.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    if !rustix::process::geteuid().is_root() {
        refuses(&world, &["put", "-n", "p/a", source.to_str().unwrap()], 12, &["secret"]);
    }
    fs::set_permissions(source.join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    // A file that is still being written is read again, then refused.
    let path = source.join("growing");
    write(&path, &noise(1, 20_000_000));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, b"more").unwrap();
            }
        });
        let ran = world.run(&["put", "-n", "p/a", source.to_str().unwrap()]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(ran.code, 11, "{}", ran.err);
        assert!(ran.err.contains("growing changes while it is read"), "{}", ran.err);
    });
    assert_eq!(world.run(&["show", "p/a"]).code, 10, "nothing is visible");
    assert_eq!(world.json(&["status"])["store_bytes"], 0, "nothing is left");
    world.sound();
}

#[test]
fn a_repository_of_another_format_is_reported() {
    let world = World::new();
    let path = world.repo().join("repository.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
    refuses(&world, &["ls"], 15, &["format 9", "hint"]);
    fs::write(&path, "{").unwrap();
    refuses(&world, &["ls"], 13, &["damaged"]);
}

#[test]
fn missing_rights_are_reported() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let binary = home.path().join("artifactfs");
    fs::copy(env!("CARGO_BIN_EXE_artifactfs"), &binary).unwrap();
    let source = home.path().join("src");
    fs::create_dir(&source).unwrap();
    write(&source.join("secret"), b"1");
    fs::set_permissions(source.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let as_nobody = |args: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(&binary).arg("--repo").arg(home.path().join("repo")).args(args);
        crate::world::ran(command.output().unwrap())
    };
    assert_eq!(as_nobody(&["init"]).code, 0);
    let ran = as_nobody(&["put", "-n", "p/a", source.to_str().unwrap()]);
    assert_eq!(ran.code, 12, "{}", ran.err);
    assert!(ran.err.contains("secret"), "{}", ran.err);
    assert_eq!(as_nobody(&["show", "p/a"]).code, 10, "nothing is visible");
    // Without the helper, or the right to the device, `mount` names the one that is missing.
    let mount = home.path().join("mnt");
    fs::create_dir(&mount).unwrap();
    fs::set_permissions(&mount, fs::Permissions::from_mode(0o777)).unwrap();
    let ran = as_nobody(&["mount", mount.to_str().unwrap()]);
    let said = ran.err.contains("fusermount3") || ran.err.contains("/dev/fuse");
    assert!(ran.code != 0 && said, "{}: {}", ran.code, ran.err);
}

#[test]
fn a_daemon_of_another_release_is_named() {
    use std::io::{Read, Write};
    let world = World::new();
    world.ok(&["ls"]);
    // As another release would: it holds the lock, and speaks another protocol.
    let lock = fs::File::options().write(true).open(world.repo().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let socket =
        std::os::unix::net::UnixListener::bind(world.repo().join("artifactfs.sock")).unwrap();
    let other = std::thread::spawn(move || {
        for stream in socket.incoming().flatten().take(2) {
            let mut stream = stream;
            let mut request = [0; 4096];
            if stream.read(&mut request).unwrap_or(0) > 0 {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
                stream.write_all(answer).unwrap();
            }
        }
    });
    refuses(&world, &["ls"], 15, &["not one of artifactfs"]);
    other.join().unwrap();
}

#[test]
fn a_mount_point_without_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let place = world.dir.path().join(std::ffi::OsStr::from_bytes(b"mnt\xff"));
    fs::create_dir(&place).unwrap();
    let ran = crate::world::ran(world.command(&["mount"]).arg(&place).output().unwrap());
    assert!(ran.code == 3 && ran.err.contains("UTF-8"), "{}: {}", ran.code, ran.err);
}

#[test]
fn a_closed_stderr_does_not_change_the_exit_code() {
    let world = World::new();
    let mut command = world.command(&["show", "p/nothing"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(command.stderr(writer).status().unwrap().code(), Some(10));
}

#[test]
fn help_that_nobody_reads_to_its_end_is_no_error() {
    let world = World::new();
    for args in [&["--help"][..], &["ls", "--help"], &["put", "--version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = world.command(args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = world.command(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(14), "{args:?}");
    }
}

#[test]
fn a_registry_of_another_format_is_refused_with_a_hint() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    for name in ["p/a", "p/b"] {
        world.ok(&["put", "-n", name, source.to_str().unwrap()]);
    }
    // Writes all records in one format; `None` restores the format that each had.
    let mut written = BTreeMap::new();
    let mut turn = |format: Option<u8>| {
        let path = world.repo().join("registry.redb");
        let engine = RedbEngine::open(&path).unwrap();
        engine::write(&engine, Durability::Immediate, |transaction| {
            for (key, mut value) in transaction.scan(&[0], &[255], usize::MAX)? {
                if let Some(first) = value.first_mut() {
                    let own = *written.entry(key.clone()).or_insert(*first);
                    *first = format.unwrap_or(own);
                    transaction.put(&key, &value)?;
                }
            }
            Ok(())
        })
        .unwrap();
    };
    turn(Some(1));
    refuses(&world, &["ls", "p"], 15, &["records of format 1", "older release", "put"]);
    turn(Some(4));
    refuses(&world, &["ls", "p"], 15, &["records of format 4", "newer release"]);
    turn(None);
    assert_eq!(world.json(&["ls", "p"]).as_array().unwrap().len(), 2);
}
