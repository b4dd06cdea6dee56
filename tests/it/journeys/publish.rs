//! Logged directories: mounted, read, and under aliases that move.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::world::{World, noise, same_tree, until, write};

#[test]
fn a_directory_is_logged_and_read_as_files() {
    let mut world = World::new();
    let (read, _) = world.mount();
    let source = world.tree("src", &[("a/b/c.txt", b"hello"), ("zero", b""), ("run", b"#!")]);
    fs::create_dir(source.join("empty")).unwrap();
    fs::set_permissions(source.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a/b/c.txt", source.join("link")).unwrap();
    symlink("nowhere", source.join("dangling")).unwrap();
    write(&source.join(OsStr::from_bytes(b"\xff\n weird -name")), b"bytes");
    write(&source.join("big"), &noise(1, 9_000_000));
    world.ok(&["put", "-n", "p/mnist", "-a", "best", source.to_str().unwrap()]);
    for name in ["mnist:v0", "mnist:latest", "mnist:best", "mnist@v0", "mnist@best"] {
        same_tree(&source, &read.join("p").join(name));
    }
    let mode = |name: &str| fs::metadata(read.join("p/mnist:v0").join(name)).unwrap().mode();
    assert_eq!(mode("run") & 0o777, 0o555);
    assert_eq!(mode("zero") & 0o777, 0o444);
    assert!(fs::read_dir(read.join("p/mnist:v0/empty")).unwrap().next().is_none());
    let mut listed: Vec<_> =
        fs::read_dir(read.join("p")).unwrap().map(|e| e.unwrap().file_name()).collect();
    listed.sort();
    assert_eq!(listed, ["mnist:best", "mnist:latest", "mnist:v0"]);
}

#[test]
fn a_reader_keeps_its_version_when_the_alias_moves() {
    let mut world = World::new();
    let source = world.tree("src", &[("data", b"one")]);
    let source = source.to_str().unwrap();
    world.ok(&["put", "-n", "p/a", source]);
    let (read, _) = world.mount();
    let path = read.join("p/a:latest/data");
    let mut open = File::open(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one");
    write(&world.path("src/data"), b"two, longer");
    world.ok(&["put", "-n", "p/a", source]);
    until("the alias moves", || fs::read(&path).unwrap() == b"two, longer");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one");
    assert_eq!(fs::read(read.join("p/a:v0/data")).unwrap(), b"one");
}

#[test]
fn a_directory_listed_before_the_first_version_shows_it_later() {
    let mut world = World::new();
    let source = world.tree("src", &[("data", b"one")]);
    let (read, _) = world.mount();
    assert!(fs::read_dir(&read).unwrap().next().is_none());
    assert!(fs::metadata(read.join("p/a:v0")).is_err());
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    until("the version appears", || fs::metadata(read.join("p/a:v0/data")).is_ok());
    until("the project is listed", || fs::read_dir(&read).unwrap().count() == 1);
    world.ok(&["alias", "add", "p/a", "good", "better"]);
    until("aliases are listed", || fs::read_dir(read.join("p")).unwrap().count() == 4);
}

#[test]
fn the_description_of_a_version_is_a_file_in_it() {
    let mut world = World::new();
    let source = world.tree("src", &[("data", b"one")]);
    let put = ["put", "-n", "p/a", "-d", "first", "--metadata", r#"{"rows": {"train": 3}}"#];
    world.ok(&[&put[..], &[source.to_str().unwrap()]].concat());
    let (read, _) = world.mount();
    let told = || -> serde_json::Value {
        let text = fs::read(read.join("p/a:latest/.artifact.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_eq!(told()["metadata"]["rows"]["train"], 3);
    assert_eq!(told()["aliases"], serde_json::json!(["latest"]));
    let names: Vec<_> = fs::read_dir(read.join("p/a:v0")).unwrap().collect();
    assert_eq!(names.len(), 1, "it is not listed");
    world.ok(&["update", "p/a", "--set", "lr=0.1", "--unset", "rows", "-d", "second, longer"]);
    until("the new description shows", || told()["description"] == "second, longer");
    assert_eq!(told()["metadata"], serde_json::json!({ "lr": 0.1 }));
}
