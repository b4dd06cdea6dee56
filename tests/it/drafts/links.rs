//! Clean marks, and all ways to change a file without passing its directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{committed, crash};
use crate::world::World;

/// Makes the kernel forget every name.
fn forget_names() {
    fs::write("/proc/sys/vm/drop_caches", b"2").unwrap();
}

/// The events between a new hard link and a write through it.
const BETWEEN: [&str; 4] = ["nothing", "caches", "restart", "crash"];

fn pass(world: &mut World, between: &str) {
    match between {
        "caches" => forget_names(),
        "restart" => {
            world.umount();
            world.mount();
        }
        "crash" => {
            crash(world);
            world.mount();
        }
        _ => {}
    }
}

#[test]
fn a_write_through_a_hard_link_is_committed_under_all_names() {
    for between in BETWEEN {
        for empty in [false, true] {
            let mut world = World::new();
            let (read, staging) = world.mount();
            let draft = staging.join("p/a");
            fs::create_dir_all(draft.join("d1/deep")).unwrap();
            fs::create_dir_all(draft.join("d2")).unwrap();
            let first = if empty { "" } else { "old content\n" };
            fs::write(draft.join("d1/deep/f"), first).unwrap();
            fs::write(draft.join("d2/x"), "x").unwrap();
            world.ok(&["commit", "p/a"]);
            // The link is made when everything is marked clean: only the second directory is seen
            // to change.
            fs::hard_link(draft.join("d1/deep/f"), draft.join("d2/g")).unwrap();
            pass(&mut world, between);
            fs::write(draft.join("d2/g"), "NEW content\n").unwrap();
            world.ok(&["commit", "p/a"]);
            let what = format!("{between}, empty {empty}");
            for path in ["d1/deep/f", "d2/g"] {
                assert_eq!(
                    fs::read_to_string(draft.join(path)).unwrap(),
                    "NEW content\n",
                    "{what}"
                );
                assert_eq!(committed(&read, "p/a:v1", path), "NEW content\n", "{what} {path}");
            }
            // The link was made before the mark, and committed: still two names of one file.
            pass(&mut world, between);
            fs::write(draft.join("d1/deep/f"), "NEWER content\n").unwrap();
            world.ok(&["commit", "p/a"]);
            for path in ["d1/deep/f", "d2/g"] {
                assert_eq!(committed(&read, "p/a:v2", path), "NEWER content\n", "{what} {path}");
            }
            world.umount();
            world.sound();
        }
    }
}

#[test]
fn a_hard_link_to_a_file_of_the_lower_is_one_file_with_it() {
    let mut world = World::new();
    let source = world.tree("src", &[("d1/f", b"old"), ("d2/x", b"x"), ("d3/y", b"y")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    fs::hard_link(draft.join("d1/f"), draft.join("d2/g")).unwrap();
    world.ok(&["commit", "p/a"]);
    forget_names();
    // A mode belongs to the inode, as bytes do.
    fs::set_permissions(draft.join("d2/g"), fs::Permissions::from_mode(0o755)).unwrap();
    world.ok(&["commit", "p/a"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o111;
    assert_eq!(committed(&read, "p/a:v2", "d1/f"), "old");
    assert_ne!(mode(&read.join("p/a:v2/d1/f")), 0);
    forget_names();
    // The directory of the first name gets another name and another parent.
    fs::rename(draft.join("d1"), draft.join("d3/moved")).unwrap();
    forget_names();
    fs::write(draft.join("d2/g"), "new").unwrap();
    world.ok(&["commit", "p/a"]);
    assert_eq!(committed(&read, "p/a:v3", "d3/moved/f"), "new");
    // With one name left it is an ordinary file, and its directory is clean again.
    fs::remove_file(draft.join("d2/g")).unwrap();
    world.ok(&["commit", "p/a"]);
    forget_names();
    fs::write(draft.join("d3/moved/f"), "last").unwrap();
    world.ok(&["commit", "p/a"]);
    assert_eq!(committed(&read, "p/a:v5", "d3/moved/f"), "last");
    assert_eq!(world.json(&["commit", "p/a"])["files_read"], 0);
    world.umount();
    world.sound();
}

#[test]
fn a_restore_follows_no_symlink_that_was_put_in_its_way() {
    let mut world = World::new();
    let source = world.tree("src", &[("d/f", b"from the version")]);
    let victim = world.tree("victim", &[("f", b"precious, outside of the draft")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    fs::remove_dir_all(draft.join("d")).unwrap();
    std::os::unix::fs::symlink(&victim, draft.join("d")).unwrap();
    assert_ne!(world.run(&["restore", "p/a/d/f"]).code, 0);
    // The same by hand, while no daemon has the drafts open: a symlink out replaces a directory.
    fs::create_dir(draft.join("e")).unwrap();
    fs::write(draft.join("e/f"), b"in the draft").unwrap();
    let inside = fs::File::open(draft.join("e")).unwrap();
    let on_host = world.repo().join("drafts/p/a/tree/e");
    fs::remove_dir_all(&on_host).unwrap();
    std::os::unix::fs::symlink(&victim, &on_host).unwrap();
    // Through the open directory, so that the kernel does not resolve the symlink before us.
    let mode = rustix::fs::Mode::from_raw_mode(0o777);
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC;
    let none = rustix::fs::AtFlags::empty();
    assert!(rustix::fs::openat(&inside, "f", flags, mode).is_err());
    assert!(rustix::fs::chmodat(&inside, "f", mode, none).is_err());
    assert!(rustix::fs::unlinkat(&inside, "f", none).is_err());
    assert!(rustix::fs::mkdirat(&inside, "new", mode).is_err());
    drop(inside);
    assert!(!victim.join("new").exists());
    assert_eq!(fs::read(victim.join("f")).unwrap(), b"precious, outside of the draft");
    assert_eq!(fs::metadata(victim.join("f")).unwrap().permissions().mode() & 0o777, 0o644);
    world.ok(&["restore", "p/a/d"]);
    assert_eq!(fs::read(draft.join("d/f")).unwrap(), b"from the version");
}

#[test]
fn renames_and_links_between_drafts_are_refused() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    for draft in ["p/a", "p/b", "q/a"] {
        fs::create_dir_all(staging.join(draft).join("dir")).unwrap();
        fs::write(staging.join(draft).join("file"), draft).unwrap();
    }
    let across = |done: std::io::Result<()>| {
        assert_eq!(done.unwrap_err().kind(), std::io::ErrorKind::CrossesDevices);
    };
    for other in ["p/b", "q/a"] {
        for name in ["file", "dir"] {
            across(fs::rename(staging.join("p/a").join(name), staging.join(other).join("new")));
        }
        across(fs::hard_link(staging.join("p/a/file"), staging.join(other).join("new")));
        assert!(!staging.join(other).join("new").exists());
        assert_eq!(fs::read_to_string(staging.join(other).join("file")).unwrap(), other);
    }
    assert_eq!(fs::read_to_string(staging.join("p/a/file")).unwrap(), "p/a");
}
