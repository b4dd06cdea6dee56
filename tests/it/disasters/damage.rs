//! Bit rot: damaged content gives EIO and never wrong bytes, and its paths are named.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::world::{World, noise};

fn packs(world: &World) -> Vec<PathBuf> {
    let mut packs = Vec::new();
    for folder in fs::read_dir(world.repo().join("store/packs")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            packs.extend(path.extension().is_some_and(|e| e == "pack").then_some(path));
        }
    }
    packs
}

fn two_versions() -> (World, Vec<u8>) {
    let world = World::new();
    let bytes = noise(1, 12_000_000);
    let source = world.tree("src", &[("big", &bytes), ("small", b"fine")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    fs::write(source.join("small"), b"fine too").unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    (world, bytes)
}

fn solo(world: &World) -> PathBuf {
    let packs = packs(world);
    let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
    packs.into_iter().find(|path| length(path) == 12_000_000).expect("a big file is its own pack")
}

#[test]
fn a_flipped_bit_damages_one_file_and_is_reported() {
    let (mut world, bytes) = two_versions();
    let pack = solo(&world);
    assert_eq!(fs::read(&pack).unwrap(), bytes, "its body is byte for byte the file");
    let at = 6_000_000;
    let file = OpenOptions::new().write(true).open(&pack).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let (read, _) = world.mount();
    for version in ["a:v0", "a:v1"] {
        let root = read.join("p").join(version);
        assert!(fs::read(root.join("small")).unwrap().starts_with(b"fine"));
        let error = fs::read(root.join("big")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
    }
    let open = fs::File::open(read.join("p/a:v0/big")).unwrap();
    let mut head = vec![0; 1_000_000];
    open.read_exact_at(&mut head, 0).unwrap();
    assert_eq!(head, bytes[..1_000_000], "the rest of the file is read");
    let log = fs::read_to_string(world.repo().join("daemon.log")).unwrap();
    assert!(log.contains("damaged"), "{log}");
    let verified = world.run(&["verify"]);
    assert_eq!(verified.code, 13);
    for name in ["p/a:v0/big", "p/a:v1/big"] {
        assert!(verified.out.contains(name), "{}", verified.out);
    }
    assert!(!verified.out.contains("small"));
    assert_eq!(world.run(&["get", "p/a", "--root", "out"]).code, 13);
    assert!(!world.path("out/big").exists(), "no file with wrong bytes is left");
}

/// Damages a chunk after the daemon verified it. Verified chunks are remembered, so that random
/// reads need not hash them whole again, but not beyond a change of their pack.
#[test]
fn verified_chunks_are_verified_again_if_their_pack_changed() {
    let mut world = World::new();
    // More than the cache of chunks in memory holds.
    let bytes = noise(1, 48 << 20);
    let source = world.tree("src", &[("big", &bytes)]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, _) = world.mount();
    let file = fs::File::open(read.join("p/a:v0/big")).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
    let page = |offset: usize| {
        let mut page = vec![0; 4096];
        file.read_exact_at(&mut page, offset as u64).map(|()| page == bytes[offset..offset + 4096])
    };
    for offset in (0..bytes.len()).step_by(64 << 10) {
        assert!(page(offset).unwrap());
    }
    let pack = packs(&world).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
    let pack = OpenOptions::new().write(true).open(pack.unwrap()).unwrap();
    pack.write_all_at(&[bytes[20_480] ^ 0x40], 20_480).unwrap();
    assert_eq!(page(20_480).unwrap_err().raw_os_error(), Some(5));
    assert!(page((40 << 20) + 20_480).unwrap(), "undamaged chunks are read");
    pack.write_all_at(&bytes[20_480..20_481], 20_480).unwrap();
    assert!(page(20_480).unwrap(), "repaired bytes are read");
}

#[test]
fn a_truncated_or_missing_pack_is_found() {
    let (world, _) = two_versions();
    let pack = solo(&world);
    OpenOptions::new().write(true).open(&pack).unwrap().set_len(5_000_000).unwrap();
    assert_eq!(world.run(&["verify", "p/a:v0"]).code, 13);
    fs::remove_file(&pack).unwrap();
    let checked = world.run(&["fsck"]);
    assert_eq!(checked.code, 13);
    assert!(checked.out.contains("missing"), "{}", checked.out);
    let verified = world.json_of_failed(&["verify"]);
    assert_eq!(verified["damaged_paths"], 2);
    // Undamaged files are read.
    world.ok(&["get", "p/a", "--root", "out", "--include", "small"]);
    assert_eq!(fs::read(world.path("out/small")).unwrap(), b"fine too");
}

#[test]
fn the_object_table_is_rebuilt_from_the_store() {
    let (world, bytes) = two_versions();
    world.ok(&["fsck", "--rebuild"]);
    world.sound();
    world.ok(&["get", "p/a:v0", "--root", "out"]);
    assert_eq!(fs::read(world.path("out/big")).unwrap(), bytes);
    // Packs that the registry does not list are found, and stay until a command removes them.
    let lying = packs(&world)[0].parent().unwrap().join(format!("{}.pack", "ab".repeat(16)));
    fs::write(&lying, b"stray").unwrap();
    assert_eq!(world.run(&["fsck"]).code, 13);
    // The pack was in the folder of another prefix; its name decides which folder is right.
    let home = world.repo().join("store/packs/ab");
    fs::create_dir_all(&home).unwrap();
    let stray = home.join(lying.file_name().unwrap());
    fs::rename(&lying, &stray).unwrap();
    world.ok(&["fsck", "--repair"]);
    assert!(stray.exists());
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    fs::File::open(&stray).unwrap().set_modified(old).unwrap();
    world.ok(&["fsck", "--remove-unknown"]);
    world.sound();
}

#[test]
fn a_lost_put_index_costs_only_time() {
    let (world, _) = two_versions();
    for file in fs::read_dir(world.repo().join("puts")).unwrap() {
        fs::write(file.unwrap().path(), b"AFSPUT2\n\xff\xff").unwrap();
    }
    let told = world.json(&["put", "-n", "p/a", world.path("src").to_str().unwrap()]);
    assert_eq!(told["new_version"], false);
}
