//! A store that does not answer holds up who asks it, and nobody else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use crate::bucket::Bucket;
use crate::world::{World, until, write};

/// Files of a directory: enough for a tree that is not read with the one above it.
const FILES: usize = 3000;

#[test]
fn a_draft_on_a_store_that_does_not_answer_holds_up_no_other_draft() {
    let bucket = Bucket::start();
    let mut world = World::new();
    fs::remove_dir_all(world.repo()).unwrap();
    world.env = bucket.environment();
    world.ok(&["init", "--store", "s3://b/x"]);
    fs::create_dir_all(world.path("src/d")).unwrap();
    for number in 0..FILES {
        write(&world.path(&format!("src/d/f{number}")), number.to_string().as_bytes());
    }
    world.ok(&["put", "-n", "p/a", world.path("src").to_str().unwrap()]);
    let (_, drafts) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let plain = drafts.join("q/plain");
    fs::create_dir_all(plain.join("folder")).unwrap();
    write(&plain.join("folder/file"), b"plain");
    // A cold daemon, as on another morning.
    world.umount();
    fs::remove_dir_all(world.path("cache")).unwrap();
    world.mount();
    bucket.hang(Some("GET"));
    let asked = bucket.count("GET");
    let below = drafts.join("p/a/d");
    let paths = [below.join("f17"), below.join("f18"), below.join("new")];
    let waiting: Vec<_> = paths
        .iter()
        .map(|path| {
            let path = path.clone();
            thread::spawn(move || match path.ends_with("new") {
                true => fs::write(path, "x"),
                false => fs::metadata(path).map(drop),
            })
        })
        .collect();
    until("the store is asked", || bucket.count("GET") > asked);
    // Whatever one does with a draft: names, attributes, content, links, durability.
    write(&plain.join("folder/new"), b"new");
    assert_eq!(fs::read(plain.join("folder/file")).unwrap(), b"plain");
    fs::rename(plain.join("folder/new"), plain.join("moved")).unwrap();
    symlink("moved", plain.join("link")).unwrap();
    assert_eq!(fs::read_link(plain.join("link")).unwrap().to_str(), Some("moved"));
    fs::hard_link(plain.join("moved"), plain.join("second")).unwrap();
    fs::File::open(&plain).unwrap().sync_all().unwrap();
    fs::File::open(plain.join("moved")).unwrap().sync_all().unwrap();
    fs::remove_file(plain.join("folder/file")).unwrap();
    fs::remove_dir(plain.join("folder")).unwrap();
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 3);
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(waiting.iter().all(|thread| !thread.is_finished()), "they were held up");
    bucket.hang(None);
    for thread in waiting {
        thread.join().unwrap().unwrap();
    }
    assert_eq!(fs::read_to_string(below.join("f17")).unwrap(), "17");
    world.umount();
    world.sound();
}
