//! A real full disk: an ext4 of 24 MiB in a file. The tests need root, as CI has.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{World, host, noise};

/// A small file system, unmounted with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(world: &World) -> Self {
        assert!(rustix::process::geteuid().is_root(), "mounting a loop device needs root");
        let image = world.path("image");
        fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        host("mkfs.ext4", &[Path::new("-q"), &image]);
        let target = world.path("disk");
        fs::create_dir(&target).unwrap();
        host("mount", &[Path::new("-o"), Path::new("loop"), &image, &target]);
        Self(target)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Makes a world whose repository and store lie on the small disk.
fn small_world() -> (World, SmallDisk) {
    let world = World::new();
    let disk = SmallDisk::new(&world);
    let store = format!("file:{}", disk.0.join("store").display());
    fs::remove_dir_all(world.repo()).unwrap();
    let repo = disk.0.join("repo");
    std::os::unix::fs::symlink(&repo, world.repo()).unwrap();
    world.ok(&["init", repo.to_str().unwrap(), "--store", &store]);
    (world, disk)
}

#[test]
fn a_put_on_a_full_disk_changes_nothing() {
    let (world, disk) = small_world();
    let small = world.tree("small", &[("a", &noise(1, 2_000_000))]);
    world.ok(&["put", "-n", "p/a", small.to_str().unwrap()]);
    let before = world.json(&["status"])["store_bytes"].clone();
    let big = world.tree("big", &[("b", &noise(2, 40_000_000))]);
    let refused = world.run(&["put", "-n", "p/a", big.to_str().unwrap()]);
    assert_eq!(refused.code, 14, "{}", refused.err);
    assert_eq!(world.json(&["ls", "p/a"]).as_array().unwrap().len(), 1);
    assert_eq!(world.run(&["verify"]).code, 0);
    world.sound();
    assert_eq!(world.json(&["status"])["store_bytes"], before, "what was written is freed");
    let fits = world.tree("fits", &[("c", &noise(3, 6_000_000))]);
    world.ok(&["put", "-n", "p/a", fits.to_str().unwrap()]);
    // Another program fills the disk to the last byte: the put is refused, and works once there is
    // room.
    let ballast = disk.0.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write(&[1; 4096]).is_ok_and(|count| count > 0) {}
    let other = world.tree("other", &[("d", &noise(4, 500_000))]);
    let refused = world.run(&["put", "-n", "p/a", other.to_str().unwrap()]);
    assert_eq!(refused.code, 14, "{}", refused.err);
    drop(file);
    fs::remove_file(&ballast).unwrap();
    world.ok(&["put", "-n", "p/a", other.to_str().unwrap()]);
    assert_eq!(world.run(&["verify"]).code, 0);
    world.sound();
}

#[test]
fn writes_to_a_full_disk_fail_and_succeed_once_there_is_room() {
    let (mut world, _disk) = small_world();
    let (read, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let draft = staging.join("p/a");
    fs::write(draft.join("kept"), noise(1, 1_000_000)).unwrap();
    world.ok(&["commit", "p/a"]);
    // Small files, since a big one would become a pack in place.
    fs::create_dir(draft.join("many")).unwrap();
    let block = noise(2, 1 << 20);
    let error = (0..40)
        .find_map(|number| {
            let mut file = fs::File::create(draft.join(format!("many/{number}"))).ok()?;
            file.write_all(&number.to_string().into_bytes()).and(file.write_all(&block)).err()
        })
        .expect("24 MiB are full");
    assert_eq!(error.raw_os_error(), Some(28), "{error}");
    let refused = world.run(&["commit", "p/a"]);
    assert_eq!(refused.code, 14, "{}", refused.err);
    assert_eq!(fs::read(read.join("p/a:v0/kept")).unwrap(), noise(1, 1_000_000));
    assert_eq!(world.json(&["ls", "p/a"]).as_array().unwrap().len(), 1);
    fs::remove_dir_all(draft.join("many")).unwrap();
    fs::write(draft.join("more"), b"more").unwrap();
    world.ok(&["commit", "p/a"]);
    crate::world::until("the version is there", || read.join("p/a:v1/more").exists());
    world.umount();
    world.sound();
}
