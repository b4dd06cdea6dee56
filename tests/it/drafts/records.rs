//! What is kept about drafts: it lasts, and what cannot be read is not taken for nothing.

use std::fs;

use super::{committed, crash};
use crate::world::World;

/// A draft that stands on `p/a:v0`; what is in that is in no other version.
fn world_with_draft() -> World {
    let mut world = World::new();
    let source = world.tree("src", &[("f1", b"content 1"), ("d/f2", b"content 2")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    fs::write(source.join("f1"), b"other").unwrap();
    fs::write(source.join("d/f2"), b"another").unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    world.mount();
    world.ok(&["draft", "p/a:v0"]);
    world
}

#[test]
fn what_a_draft_stands_on_stays_though_the_daemon_is_killed_and_the_version_deleted() {
    let mut world = world_with_draft();
    crash(&world);
    world.ok(&["delete", "p/a:v0"]);
    let (read, staging) = world.mount();
    assert_eq!(fs::read(staging.join("p/a/f1")).unwrap(), b"content 1");
    fs::write(staging.join("p/a/more"), b"more").unwrap();
    world.ok(&["commit", "p/a"]);
    assert_eq!(committed(&read, "p/a:v2", "d/f2"), "content 2");
    // And so does what it stands on by its commit.
    crash(&world);
    world.ok(&["delete", "p/a:v2", "--delete-aliases"]);
    let (_, staging) = world.mount();
    assert_eq!(fs::read(staging.join("p/a/d/f2")).unwrap(), b"content 2");
    world.umount();
    world.sound();
}

#[test]
fn a_draft_whose_record_cannot_be_read_is_kept_and_named_and_comes_back_with_it() {
    let mut world = world_with_draft();
    let staging = world.path("staging");
    fs::create_dir_all(staging.join("q/other")).unwrap();
    world.umount();
    world.ok(&["delete", "p/a:v0"]);
    let path = world.repo().join("drafts/p/a/draft.json");
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let damages: [Option<Vec<u8>>; 4] = [
        Some(Vec::new()),
        Some(text.replace("\"since\":[", "\"since\":[{},").into_bytes()),
        Some(text.replace("\"format\":1", "\"format\":2").into_bytes()),
        None,
    ];
    for damage in damages {
        match &damage {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        world.mount();
        let refused = world.run(&["commit", "p/a"]);
        assert_eq!(refused.code, 13, "{damage:?}: {}", refused.err);
        assert!(refused.err.contains("draft.json"), "{damage:?}: {}", refused.err);
        assert!(fs::write(staging.join("p/a/new"), b"new").is_err(), "{damage:?}");
        let status = world.ok(&["status"]);
        assert!(status.contains("draft.json"), "{damage:?}: {status}");
        let listed = world.json(&["draft", "ls"]);
        assert_eq!(listed[0]["draft"], "p/a", "{damage:?}");
        assert!(listed[0]["error"].as_str().unwrap().contains("draft.json"), "{listed}");
        // Another draft is not concerned.
        fs::write(staging.join("q/other/file"), b"here").unwrap();
        world.ok(&["commit", "q/other"]);
        world.umount();
        fs::write(&path, &good).unwrap();
    }
    let (read, _) = world.mount();
    assert_eq!(fs::read(staging.join("p/a/f1")).unwrap(), b"content 1");
    fs::write(staging.join("p/a/new"), b"new").unwrap();
    world.ok(&["commit", "p/a"]);
    assert_eq!(committed(&read, "p/a:v2", "d/f2"), "content 2");
    world.umount();
    world.sound();
}

#[test]
fn a_draft_whose_record_cannot_be_read_can_be_thrown_away() {
    let mut world = world_with_draft();
    world.umount();
    fs::write(world.repo().join("drafts/p/a/draft.json"), b"{").unwrap();
    world.mount();
    world.ok(&["draft", "discard", "p/a"]);
    world.ok(&["draft", "p/a:v1"]);
    assert_eq!(fs::read(world.path("staging/p/a/f1")).unwrap(), b"other");
    world.umount();
    world.sound();
}
