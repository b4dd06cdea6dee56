//! Journeys of a repository whose store is in a cloud.

use std::fs;
use std::time::Duration;

use crate::serving::Server;
use crate::world::{World, noise, until};
use crate::{Place, places};

/// Makes a repository in a cloud.
fn world(place: &Place, prefix: &str) -> World {
    let world = World::new();
    fs::remove_dir_all(world.repo()).unwrap();
    let (url, options) = (place.below(prefix), place.arguments());
    let mut args = vec!["init", "--store", &url];
    args.extend(options.iter().map(String::as_str));
    world.ok(&args);
    world
}

fn same(a: &std::path::Path, b: &std::path::Path) {
    let diff = std::process::Command::new("diff").arg("-r").args([a, b]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn versions_are_put_read_and_deleted_and_the_rest_is_whole() {
    for place in places() {
        eprintln!("{}", place.name);
        let mut world = world(&place, "journey");
        let source = world.tree("src", &[("text", "words ".repeat(100_000).as_bytes())]);
        fs::write(source.join("big"), noise(1, 40_000_000)).unwrap();
        for n in 0..300 {
            fs::write(source.join(format!("{n}")), noise(n, 20_000)).unwrap();
        }
        let src = source.to_str().unwrap();
        let put = world.json(&["put", "-n", "p/a", src]);
        let stored = put["stored_bytes"].as_u64().unwrap();
        assert!(stored < 46_200_000, "text is compressed: {put}");
        let packs = world.json(&["status"])["packs"].as_u64().unwrap();
        assert!(packs <= 4, "{packs} packs");
        let (read, _) = world.mount();
        same(&source, &read.join("p/a:latest"));
        world.umount();
        world.ok(&["get", "p/a", "--root", "out"]);
        same(&source, &world.path("out"));
        // Half of the small files and the big one change.
        for n in 0..150 {
            fs::write(source.join(format!("{n}")), noise(1_000 + n, 20_000)).unwrap();
        }
        fs::write(source.join("big"), noise(2, 10_000_000)).unwrap();
        world.ok(&["put", "-n", "p/a", src]);
        world.ok(&["delete", "p/a:v0"]);
        let status = world.json(&["status"]);
        let (live, length) = (&status["store_bytes"], &status["pack_bytes"]);
        assert_eq!(live, length, "no dead byte is left");
        world.sound();
        assert_eq!(world.run(&["verify"]).code, 0);
        world.ok(&["cache", "cleanup", "0"]);
        let (read, _) = world.mount();
        same(&source, &read.join("p/a:v1"));
        world.umount();
        world.ok(&["delete", "--delete-aliases", "p/a:v1"]);
        assert_eq!(world.json(&["status"])["packs"], 0);
    }
}

#[test]
fn deferred_garbage_is_collected() {
    let place = &places()[0];
    let world = world(place, "garbage");
    let source = world.tree("src", &[]);
    for n in 0..100 {
        fs::write(source.join(format!("{n}")), noise(n, 20_000)).unwrap();
    }
    let src = source.to_str().unwrap();
    world.ok(&["put", "-n", "p/a", src]);
    for n in 0..60 {
        fs::remove_file(source.join(format!("{n}"))).unwrap();
    }
    world.ok(&["put", "-n", "p/a", src]);
    world.ok(&["delete", "p/a:v0", "--purge", "later"]);
    let status = world.json(&["status"]);
    assert!(status["pack_bytes"].as_u64() > status["store_bytes"].as_u64(), "{status}");
    // Another command does not collect it in passing.
    world.ok(&["delete", "p/a:v1", "--delete-aliases", "--purge", "later"]);
    world.ok(&["put", "-n", "p/b", src]);
    let collected = world.json(&["gc"]);
    let status = world.json(&["status"]);
    let (length, live) =
        (status["pack_bytes"].as_u64().unwrap(), status["store_bytes"].as_u64().unwrap());
    assert!((length - live) * 100 <= length * 20, "{status} {collected}");
    world.sound();
}

#[test]
fn a_killed_put_resumes_and_a_store_moves_there_and_back() {
    let place = &places()[0];
    let world = world(place, "killed");
    let source = world.tree("src", &[]);
    for n in 0..8 {
        fs::write(source.join(format!("{n}")), noise(n, 30_000_000)).unwrap();
    }
    let src = source.to_str().unwrap();
    let mut put = world.start(&["put", "-n", "p/a", src]);
    until("some of it is there", || {
        std::thread::sleep(Duration::from_millis(10));
        // Through the socket of the put while it runs; there is no reply once it has ended.
        let status = world.run(&["--json", "status"]);
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap_or_default();
        status["store_bytes"].as_u64().unwrap_or(0) > 100_000_000
    });
    put.kill().unwrap();
    put.wait().unwrap();
    let put = world.json(&["put", "-n", "p/a", src]);
    let stored = put["stored_bytes"].as_u64().unwrap();
    assert!(stored < 150_000_000, "{stored} bytes are put again");
    world.sound();
    let url: serde_json::Value =
        serde_json::from_slice(&fs::read(world.repo().join("repository.json")).unwrap()).unwrap();
    let url = url["store"].as_str().unwrap().to_owned();
    let copied = world.json(&["copy-store", &url, "file:near", "--use"]);
    assert!(copied["packs"].as_u64().unwrap() >= 8, "{copied}");
    world.sound();
    world.ok(&["get", "p/a", "--root", "out"]);
    same(&source, &world.path("out"));
    let mut back = vec!["copy-store", "file:near", &url, "--use"];
    let options = place.arguments();
    back.extend(options.iter().map(String::as_str));
    let copied = world.json(&back);
    assert_eq!(copied["packs"], 0, "all of it was there: {copied}");
    assert_eq!(world.run(&["verify"]).code, 0);
}

#[test]
fn a_server_signs_urls_by_which_clients_without_credentials_reach_the_cloud() {
    for place in places() {
        eprintln!("{}", place.name);
        let server = Server::of(world(&place, "served"), &["--access-log"]);
        let (mut one, mut two) = (server.host(), server.host());
        for host in [&mut one, &mut two] {
            for name in ["AWS_ACCESS_KEY_ID", "AZURE_STORAGE_CONNECTION_STRING"] {
                host.env.push((name, "".into()));
            }
        }
        let source = one.tree("src", &[("a", b"first"), ("d/b", &noise(1, 40_000_000))]);
        one.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
        let target = two.path("got");
        two.ok(&["get", "p/a", "--root", target.to_str().unwrap()]);
        same(&source, &target);
        let log = fs::read_to_string(server.world.path("server.log")).unwrap();
        let through = log.lines().filter(|line| {
            line.contains("/store/packs/") && line.contains(".pack") && !line.contains("DELETE")
        });
        // The emulator's credentials of Google cannot sign, so there the server passes the bytes on.
        assert_eq!(through.count() > 0, place.name == "gs", "{}", place.name);
        two.ok(&["delete", "p/a:v0", "--delete-aliases"]);
        server.sound();
    }
}
