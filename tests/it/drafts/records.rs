//! Records of drafts: they are durable, and an unreadable one is not taken for none.

use std::fs;

use super::{committed, crash};
use crate::world::World;

/// Makes a draft of `p/a:v0`, whose content is in no other version.
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
fn the_lower_of_a_draft_survives_a_crash_and_a_deletion() {
    let mut world = world_with_draft();
    crash(&world);
    world.ok(&["delete", "p/a:v0"]);
    let (read, staging) = world.mount();
    assert_eq!(fs::read(staging.join("p/a/f1")).unwrap(), b"content 1");
    fs::write(staging.join("p/a/more"), b"more").unwrap();
    world.ok(&["commit", "p/a"]);
    assert_eq!(committed(&read, "p/a:v2", "d/f2"), "content 2");
    // So does its lower after a commit.
    crash(&world);
    world.ok(&["delete", "p/a:v2", "--delete-aliases"]);
    let (_, staging) = world.mount();
    assert_eq!(fs::read(staging.join("p/a/d/f2")).unwrap(), b"content 2");
    world.umount();
    world.sound();
}

#[test]
fn a_draft_with_an_unreadable_record_is_kept_and_reported() {
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
        // Another draft is not affected.
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
fn a_draft_with_an_unreadable_record_can_be_discarded() {
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
