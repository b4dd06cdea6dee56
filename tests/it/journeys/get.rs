//! Versions written to a folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::world::{World, noise, same_tree, write};

#[test]
fn a_version_comes_back_and_a_second_get_keeps_intact_files() {
    let world = World::new();
    let big = noise(5, 10_000_000);
    let source = world.tree("src", &[("a", b"1"), ("d/big", &big), ("x", b"run")]);
    fs::set_permissions(source.join("x"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    symlink("d/big", source.join("link")).unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let first = world.json(&["get", "p/a"]);
    assert_eq!(first["path"], "artifacts/a@v0");
    let out = world.path("artifacts/a@v0");
    same_tree(&source, &out);
    assert_ne!(fs::metadata(out.join("x")).unwrap().permissions().mode() & 0o111, 0);
    // Torn and changed files are written again; the others are kept.
    write(&out.join("d/big"), &big[..4_000_000]);
    write(&out.join("a"), b"9");
    let again = world.json(&["get", "p/a"]);
    assert_eq!((&again["files_written"], &again["files_kept"]), (&2.into(), &2.into()));
    same_tree(&source, &out);
}

#[test]
fn nothing_is_written_outside_the_target() {
    let world = World::new();
    let source = world.tree("src", &[("d/file", b"mine")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let outside = world.tree("outside", &[]);
    let out = world.tree("out", &[]);
    symlink(&outside, out.join("d")).unwrap();
    let ran = world.run(&["get", "p/a", "--root", "out"]);
    assert_eq!(ran.code, 11, "{}", ran.err);
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    fs::remove_file(out.join("d")).unwrap();
    fs::create_dir(out.join("d")).unwrap();
    symlink(outside.join("target"), out.join("d/file")).unwrap();
    world.ok(&["get", "p/a", "--root", "out"]);
    assert!(!out.join("d/file").is_symlink());
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
}

#[test]
fn patterns_select_a_part_of_a_version() {
    let world = World::new();
    let source = world.tree("src", &[("a.txt", b"1"), ("d/b.txt", b"2"), ("e/c.bin", b"3")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    world.ok(&["get", "p/a", "--root", "out", "--include", "*.txt"]);
    assert!(world.path("out/d/b.txt").exists());
    assert!(!world.path("out/e").exists());
}

#[test]
fn two_versions_are_compared() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1"), ("b", b"2"), ("d/c", b"3"), ("gone/x", b"4")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    fs::remove_dir_all(source.join("gone")).unwrap();
    write(&source.join("b"), b"22");
    write(&source.join("d/new"), b"5");
    fs::create_dir(source.join("empty")).unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let ran = world.run(&["diff", "p/a:v0", "p/a:v1"]);
    assert_eq!(ran.code, 1);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines, ["~ b  1 B -> 2 B", "+ d/new  1 B", "+ empty/", "- gone/x  1 B"]);
    assert_eq!(world.run(&["diff", "p/a", "p/a:v1"]).code, 0);
}
