//! Puts: what they take, leave out, and do not read again.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crate::world::{World, noise, until, write};

#[test]
fn equal_content_makes_no_new_version_and_moves_the_aliases() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    let source = source.to_str().unwrap();
    world.ok(&["put", "-n", "p/a", source]);
    let again = world.json(&["put", "-n", "p/a", "-a", "good", "-d", "told", source]);
    assert_eq!(again["new_version"], false);
    assert_eq!(again["reference"], "p/a:v0");
    let shown = world.json(&["show", "p/a"]);
    assert_eq!(shown["aliases"], serde_json::json!(["good", "latest"]));
    assert_eq!(shown["description"], "told");
}

#[test]
fn only_new_bytes_are_stored() {
    let world = World::new();
    let mut bytes = noise(3, 30_000_000);
    let source = world.tree("src", &[("big", &bytes), ("d/small", b"small")]);
    let source = source.to_str().unwrap();
    let first = world.json(&["put", "-n", "p/a", source]);
    assert!(first["stored_bytes"].as_u64().unwrap() >= 30_000_000);
    bytes.splice(15_000_000..15_000_000, noise(4, 1 << 20));
    write(&world.path("src/big"), &bytes);
    let second = world.json(&["put", "-n", "p/a", source]);
    let stored = second["stored_bytes"].as_u64().unwrap();
    assert!(stored < 3 << 20, "{stored} bytes for an insertion of 1 MiB");
    world.ok(&["get", "p/a:v1", "--root", "out"]);
    assert_eq!(fs::read(world.path("out/big")).unwrap(), bytes);
}

#[test]
fn unchanged_files_are_not_read_again() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1"), ("b", b"2"), ("d/c", b"3")]);
    let source_text = source.to_str().unwrap();
    // Times within two seconds of a read prove nothing.
    until("the files are settled", || {
        let age = fs::metadata(source.join("d/c")).unwrap().modified().unwrap().elapsed();
        age.unwrap().as_millis() > 2_100
    });
    assert_eq!(world.json(&["put", "-n", "p/a", source_text])["files_read"], 3);
    assert_eq!(world.json(&["put", "-n", "p/a", source_text])["files_read"], 0);
    write(&source.join("b"), b"9");
    let third = world.json(&["put", "-n", "p/a", source_text]);
    assert_eq!((&third["files_read"], &third["reference"]), (&1.into(), &"p/a:v1".into()));
    // Known files whose content was deleted since are read again.
    world.ok(&["delete", "p/a:v0"]);
    world.ok(&["delete", "p/a:v1", "--delete-aliases"]);
    let fourth = world.json(&["put", "-n", "p/a", source_text]);
    assert_eq!(fourth["reference"], "p/a:v2");
    assert_eq!(fourth["stored_bytes"], world.json(&["status"])["store_bytes"]);
    assert_eq!(world.run(&["verify"]).code, 0);
    world.sound();
}

#[test]
fn filters_and_ignore_files_exclude_files() {
    let world = World::new();
    let files: &[(&str, &[u8])] = &[
        ("a.jpg", b"1"),
        ("a.tmp", b"2"),
        ("d/b.jpg", b"3"),
        ("d/.artifactfsignore", b"secret*\n"),
        ("d/secret.jpg", b"4"),
        ("cache/c.jpg", b"5"),
    ];
    let source = world.tree("src", files);
    let put = ["put", "-n", "p/a", "--include", "*.jpg", "--exclude", "cache"];
    world.ok(&[&put[..], &[source.to_str().unwrap()]].concat());
    world.ok(&["get", "p/a", "--root", "out"]);
    assert!(world.path("out/d/b.jpg").exists() && world.path("out/a.jpg").exists());
    for gone in ["a.tmp", "d/secret.jpg", "cache", "d/.artifactfsignore"] {
        assert!(!world.path("out").join(gone).exists(), "{gone}");
    }
    let dry = world.json(&["put", "-n", "p/other", "--dry-run", source.to_str().unwrap()]);
    assert_eq!(dry["files"], 5);
    assert_eq!(world.run(&["ls", "p/other"]).code, 10);
}

#[test]
fn symlinks_out_of_the_source_are_followed_or_refused() {
    let world = World::new();
    let outside = world.tree("hub", &[("blobs/1", b"weights"), ("tree/x", b"x")]);
    let source = world.tree("src", &[("in", b"in")]);
    symlink("../hub/blobs/1", source.join("model.bin")).unwrap();
    symlink(outside.join("tree"), source.join("tree")).unwrap();
    symlink("in", source.join("inside")).unwrap();
    let told = world.json(&["put", "-n", "p/a", source.to_str().unwrap()]);
    assert_eq!((&told["followed_symlinks"], &told["symlinks"]), (&2.into(), &1.into()));
    world.ok(&["get", "p/a", "--root", "out"]);
    assert_eq!(fs::read(world.path("out/model.bin")).unwrap(), b"weights");
    assert!(!world.path("out/model.bin").is_symlink() && world.path("out/inside").is_symlink());
    assert_eq!(fs::read(world.path("out/tree/x")).unwrap(), b"x");
    let refused = world.run(&["put", "-n", "p/b", "--no-follow", source.to_str().unwrap()]);
    assert_eq!(refused.code, 11);
    assert!(refused.err.contains("leads out") && refused.err.contains("hint"), "{}", refused.err);
    symlink(&source, source.join("loop")).unwrap();
    let looped = world.run(&["put", "-n", "p/b", source.to_str().unwrap()]);
    assert_eq!(looped.code, 11, "{}", looped.err);
}

#[test]
fn special_files_are_skipped_with_a_warning() {
    let world = World::new();
    let source = world.tree("src", &[("a", b"1")]);
    let _socket = UnixListener::bind(source.join("socket")).unwrap();
    let ran = world.run(&["put", "-n", "p/a", source.to_str().unwrap()]);
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("socket: left out") || ran.err.contains("is a socket"), "{}", ran.err);
    assert_eq!(world.json(&["show", "p/a"])["files"], 1);
}

#[test]
fn a_sparse_file_of_a_hundred_gigabytes_is_put_and_read() {
    let mut world = World::new();
    let source = world.tree("src", &[]);
    let file = File::create(source.join("huge")).unwrap();
    let length = 100_000_000_000u64;
    file.set_len(length).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"in the middle", length / 2).unwrap();
    let told = world.json(&["put", "-n", "p/a", source.to_str().unwrap()]);
    assert_eq!(told["size_bytes"], length);
    assert!(told["stored_bytes"].as_u64().unwrap() < 20_000_000);
    let (read, _) = world.mount();
    let file = File::open(read.join("p/a:v0/huge")).unwrap();
    let mut buffer = [0; 13];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, length / 2).unwrap();
    assert_eq!(&buffer, b"in the middle");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, length - 13).unwrap();
    assert_eq!(buffer, [0; 13]);
}

#[test]
fn concurrent_puts_serve_each_other() {
    let world = World::new();
    let mut puts = Vec::new();
    for writer in 0..4u64 {
        let name = format!("src{writer}");
        let files: Vec<(String, Vec<u8>)> = (0..40)
            .map(|n| {
                (format!("f{n}"), noise(if n % 2 == 0 { n } else { 1_000 * writer + n }, 50_000))
            })
            .collect();
        let files: Vec<_> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
        let source = world.tree(&name, &files);
        let artifact = format!("p/a{}", writer % 2);
        let mut put = world.command(&["put", "-n", &artifact, source.to_str().unwrap()]);
        puts.push(put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    }
    for put in puts {
        let ran = crate::world::ran(put.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    assert_eq!(world.json(&["ls", "p/a0"]).as_array().unwrap().len(), 2);
    assert_eq!(world.json(&["ls", "p/a1"]).as_array().unwrap().len(), 2);
    world.sound();
    assert_eq!(world.run(&["verify"]).code, 0);
}

#[test]
fn verbs_are_served_while_a_put_has_the_registry_open() {
    let world = World::new();
    world.tree("small", &[("a", b"1")]);
    world.ok(&["put", "-n", "p/small", "small"]);
    let big = world.tree("big", &[]);
    for number in 0..20 {
        write(&big.join(number.to_string()), &noise(number, 5_000_000));
    }
    let mut put = world.start(&["put", "-n", "p/big", "big"]);
    let mut served = 0;
    while put.try_wait().unwrap().is_none() {
        world.ok(&["ls", "p/small"]);
        served += 1;
    }
    assert!(served > 0 && put.wait().unwrap().success());
    assert_eq!(world.json(&["show", "p/big"])["files"], 20);
}

#[test]
fn a_killed_put_resumes_where_it_was() {
    let world = World::new();
    let source = world.tree("src", &[]);
    for number in 0..60 {
        write(&source.join(format!("{number:02}")), &noise(number, 4_000_000));
    }
    let sealed = || {
        let packs = fs::read_dir(world.repo().join("store/packs")).into_iter().flatten().flatten();
        let files = packs.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
        files.filter(|file| file.path().extension().is_some_and(|e| e == "idx")).count()
    };
    until("one is killed before it is done", || {
        let mut put = world.start(&["put", "-n", "p/a", "src"]);
        until("some packs are written", || sealed() >= 3 || put.try_wait().unwrap().is_some());
        put.kill().unwrap();
        if !put.wait().unwrap().success() {
            return true;
        }
        // The put has ended first: this thread had no processor.
        world.ok(&["delete", "p/a", "--delete-aliases"]);
        false
    });
    assert_ne!(world.run(&["show", "p/a"]).code, 0, "nothing is visible");
    let again = world.json(&["put", "-n", "p/a", "src"]);
    let stored = again["stored_bytes"].as_u64().unwrap();
    assert!(stored < 200_000_000, "{stored} of 240 MB were stored again");
    assert_eq!(world.run(&["verify"]).code, 0);
    world.sound();
}
