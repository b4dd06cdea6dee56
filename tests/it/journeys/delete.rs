//! Deleting and pruning, also under readers.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use crate::world::{World, noise, until, write};

#[test]
fn a_deletion_spares_aliases_and_numbers_are_never_reused() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    let source_text = source.to_str().unwrap();
    world.ok(&["put", "-n", "p/a", "-a", "best", source_text]);
    let refused = world.run(&["delete", "p/a:v0"]);
    assert_eq!(refused.code, 11);
    assert!(refused.err.contains("best, latest") && refused.err.contains("--delete-aliases"));
    world.ok(&["delete", "p/a:best", "--delete-aliases"]);
    assert_eq!(world.run(&["show", "p/a:v0"]).code, 10);
    assert_eq!(world.json(&["status"])["store_bytes"], 0);
    let again = world.json(&["put", "-n", "p/a", source_text]);
    assert_eq!(again["reference"], "p/a:v1");
}

#[test]
fn latest_can_be_removed_and_set_like_any_alias() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    write(&source.join("a"), b"2");
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    world.ok(&["alias", "rm", "p/a:v1", "latest"]);
    assert_eq!(world.run(&["show", "p/a"]).code, 10);
    world.ok(&["alias", "set", "p/a:v0", "latest", "old"]);
    assert_eq!(world.json(&["show", "p/a"])["reference"], "p/a:v0");
    assert_eq!(world.run(&["alias", "rm", "p/a:v0", "never"]).code, 10);
}

#[test]
fn pruning_deletes_versions_without_alias_and_announces_bytes() {
    let world = World::new();
    let source = world.tree("src", &[]);
    for version in 0..6u64 {
        write(&source.join("data"), &noise(version, 100_000));
        world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    }
    world.ok(&["alias", "add", "p/a:v1", "keep"]);
    let dry = world.json(&["prune", "p/a", "--keep-last", "2", "--dry-run"]);
    let doomed = serde_json::json!(["p/a:v0", "p/a:v2", "p/a:v3"]);
    assert_eq!(dry["versions"], doomed);
    let none = world.json(&["prune", "p", "--older-than", "1d"]);
    assert_eq!(none["versions"], serde_json::json!([]));
    let before = world.json(&["status"])["store_bytes"].as_u64().unwrap();
    let done = world.json(&["prune", "p/a", "--keep-last", "2"]);
    assert_eq!((&done["versions"], &done["freed_bytes"]), (&doomed, &dry["freed_bytes"]));
    let after = world.json(&["status"])["store_bytes"].as_u64().unwrap();
    assert_eq!(before - after, done["freed_bytes"].as_u64().unwrap());
    world.sound();
}

#[test]
fn a_reader_of_a_deleted_version_gets_its_bytes_or_an_error() {
    let mut world = World::new();
    let bytes = noise(11, 40_000_000);
    let source = world.tree("src", &[("big", &bytes), ("small", b"still")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    // Another artifact keeps part of the same packs.
    world.ok(&["put", "-n", "p/b", source.join("small").to_str().unwrap()]);
    let (read, _) = world.mount();
    let file = File::open(read.join("p/a:v0/big")).unwrap();
    let mut head = vec![0; 100_000];
    file.read_exact_at(&mut head, 0).unwrap();
    world.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    until("the name is gone", || fs::metadata(read.join("p/a:v0")).is_err());
    let mut again = vec![0; 4_096];
    file.read_exact_at(&mut again, 0).unwrap();
    assert_eq!(again, bytes[..4_096], "what the kernel holds stays");
    let mut stale = 0;
    for at in (0..bytes.len() - 4_096).step_by(1_000_003) {
        match file.read_exact_at(&mut again, at as u64) {
            Ok(()) => assert_eq!(again, bytes[at..at + 4_096]),
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::StaleNetworkFileHandle, "{e}");
                stale += 1;
            }
        }
    }
    assert!(stale > 0, "most of it was never read before it went");
    assert_eq!(fs::read(read.join("p/b:v0/small")).unwrap(), b"still");
}

#[test]
fn concurrent_deletions_free_everything_between_them() {
    let world = World::new();
    let source = world.tree("src", &[]);
    for version in 0..8u64 {
        for file in 0..20u64 {
            let shared = if file % 2 == 0 { file } else { version * 100 + file };
            write(&source.join(file.to_string()), &noise(shared, 40_000));
        }
        world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    }
    let start = |version| {
        let reference = format!("p/a:v{version}");
        let mut command = world.command(&["delete", &reference, "--delete-aliases"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let deletions: Vec<_> = (0..7).map(start).collect();
    for deletion in deletions {
        let ran = crate::world::ran(deletion.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    world.sound();
    let shown = world.json(&["show", "p/a"]);
    assert_eq!(world.json(&["status"])["store_bytes"], shown["stored_bytes"]);
    assert_eq!(world.run(&["verify"]).code, 0);
}
