//! A silent store: it blocks only requests that need it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use crate::bucket::Bucket;
use crate::world::{World, noise, until, write};

/// The files of a directory: enough for a tree that is not read with its parent.
const FILES: usize = 3000;
/// More readers than the daemon has threads that may wait.
const CROWD: usize = 200;

#[test]
fn a_draft_on_a_silent_store_blocks_no_other_draft() {
    let bucket = Bucket::start();
    let mut world = World::with_store(bucket.environment(), "s3://b/x");
    let (_, drafts) = world.mount();
    for (name, folder) in [("p/a", "src/d"), ("p/b", "opened")] {
        fs::create_dir_all(world.path(folder)).unwrap();
        for number in 0..FILES {
            // Together they do not fit into a pack that also holds nodes.
            let content = [name.as_bytes(), &noise(number as u64, 1_000)].concat();
            write(&world.path(&format!("{folder}/f{number}")), &content);
        }
        let source = world.path(folder.split('/').next().unwrap());
        world.ok(&["put", "-n", name, source.to_str().unwrap()]);
        world.ok(&["draft", &format!("{name}:v0")]);
    }
    let plain = drafts.join("q/plain");
    fs::create_dir_all(plain.join("folder")).unwrap();
    write(&plain.join("folder/file"), b"plain");
    // The cache is empty, as after a long time.
    world.umount();
    fs::remove_dir_all(world.path("cache")).unwrap();
    world.mount();
    let opened = drafts.join("p/b");
    let files: Vec<_> =
        (0..CROWD).map(|n| File::open(opened.join(format!("f{n}"))).unwrap()).collect();
    bucket.hang(Some("GET"));
    let asked = bucket.count("GET");
    let below = drafts.join("p/a/d");
    let mut waiting = vec![thread::spawn({
        let new = below.join("new");
        move || fs::write(new, "x")
    })];
    for (number, mut file) in files.into_iter().enumerate() {
        let path = below.join(format!("f{number}"));
        waiting.push(thread::spawn(move || fs::metadata(path).map(drop)));
        waiting.push(thread::spawn(move || file.read_to_end(&mut Vec::new()).map(drop)));
    }
    until("the store gets a request", || bucket.count("GET") > asked);
    // All kinds of operations on a draft: names, attributes, content, links, durability.
    write(&plain.join("folder/new"), b"new");
    assert_eq!(fs::read(plain.join("folder/file")).unwrap(), b"plain");
    fs::rename(plain.join("folder/new"), plain.join("moved")).unwrap();
    symlink("moved", plain.join("link")).unwrap();
    assert_eq!(fs::read_link(plain.join("link")).unwrap().to_str(), Some("moved"));
    fs::hard_link(plain.join("moved"), plain.join("second")).unwrap();
    File::open(&plain).unwrap().sync_all().unwrap();
    File::open(plain.join("moved")).unwrap().sync_all().unwrap();
    fs::remove_file(plain.join("folder/file")).unwrap();
    fs::remove_dir(plain.join("folder")).unwrap();
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 3);
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o700)).unwrap();
    let ended: Vec<_> = (0..waiting.len()).filter(|n| waiting[*n].is_finished()).collect();
    assert!(ended.is_empty(), "they were blocked: {ended:?}");
    bucket.hang(None);
    for thread in waiting {
        thread.join().unwrap().unwrap();
    }
    assert!(fs::read(below.join("f17")).unwrap() == [b"p/a", &*noise(17, 1_000)].concat());
    world.umount();
    world.sound();
}
