//! A commit that fails costs nothing that was there before.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::committed;
use super::hosts::Disk;
use crate::world::noise;

#[test]
fn a_commit_on_a_full_disk_fails_and_takes_no_room() {
    let (mut world, disk) = Disk::world("mkfs.ext4 -q -m 0", "loop", 128);
    let (read, staging) = world.mount();
    let draft = staging.join("p/a");
    fs::create_dir_all(&draft).unwrap();
    let big = noise(1, 40 << 20);
    // It becomes a pack in place, before the small files turn out not to fit.
    fs::write(draft.join("big"), &big).unwrap();
    let room = || rustix::fs::statvfs(&disk.target).unwrap();
    let mut count = 0;
    while room().f_bavail * room().f_frsize > 16 << 20 {
        fs::write(draft.join(format!("small{count}")), noise(100 + count, 2 << 20)).unwrap();
        count += 1;
    }
    let before = room().f_bavail;
    let refused = world.run(&["commit", "p/a"]);
    assert_eq!(refused.code, 14, "{}", refused.err);
    let lost = before.saturating_sub(room().f_bavail) * room().f_frsize;
    assert!(lost < 6 << 20, "{lost} bytes are gone");
    let on_host = world.repo().join("drafts/p/a/tree/big");
    assert_eq!(fs::metadata(&on_host).unwrap().nlink(), 1, "it belongs to no pack any more");
    // All files can be changed at once, also the big one; that makes room.
    let file = OpenOptions::new().write(true).open(draft.join("big")).unwrap();
    file.write_all_at(b"changed", 0).unwrap();
    drop(file);
    for number in 1..count {
        fs::remove_file(draft.join(format!("small{number}"))).unwrap();
    }
    world.ok(&["commit", "p/a"]);
    committed(&read, "p/a:v0", "small0");
    assert!(fs::read(read.join("p/a:v0/small0")).unwrap() == noise(100, 2 << 20));
    let mut expected = big;
    expected[..7].copy_from_slice(b"changed");
    assert!(fs::read(read.join("p/a:v0/big")).unwrap() == expected);
    assert_eq!(world.run(&["verify"]).code, 0);
    world.umount();
    world.sound();
}
