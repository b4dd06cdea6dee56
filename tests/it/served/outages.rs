//! Servers that are gone, killed, or come back.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::serving::Server;
use crate::world::{World, noise, same_tree, until};

#[test]
fn a_mount_outlives_its_server() {
    let mut server = Server::start();
    let mut host = server.host();
    let source = host.tree("src", &[("warm", &noise(1, 400_000)), ("cold", &noise(2, 400_000))]);
    host.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
    let (read, staging) =
        host.mount_with(&["-o", "metadata_timeout=5,data_timeout=5,prefetch=none"]);
    same_tree(&source, &read.join("p/data:best"));
    fs::create_dir_all(staging.join("p/next")).unwrap();
    fs::write(staging.join("p/next/x"), "draft").unwrap();
    server.kill();

    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(fs::read(read.join("p/data:best/warm")).unwrap(), noise(1, 400_000));
    }
    assert_eq!(fs::read(staging.join("p/next/x")).unwrap(), b"draft");
    fs::write(staging.join("p/next/y"), "more").unwrap();
    let refused = fs::read_dir(read.join("p/never-seen:v0")).unwrap_err();
    assert_ne!(refused.kind(), std::io::ErrorKind::NotFound, "an outage is not an absence");
    assert!(start.elapsed() < Duration::from_secs(60), "waits have deadlines");

    server.start_again();
    until("new names are found again", || read.join("p/data:v0").exists());
    fs::rename(staging.join("p/next"), staging.join("p/next:done")).unwrap();
    assert_eq!(fs::read(read.join("p/next:done/y")).unwrap(), b"more");
    host.umount();
    server.sound();
}

/// Puts version after version until it is stopped; returns the numbers of those acknowledged.
fn put_on(host: &World, artifact: &str, count: u64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for k in 0..count {
        let source = host.tree(&format!("{artifact}-src"), &[("n", k.to_string().as_bytes())]);
        let name = format!("p/{artifact}");
        let ran = host.run(&["put", "-n", &name, source.to_str().unwrap()]);
        if ran.code == 0 {
            acknowledged.push(k);
        }
    }
    acknowledged
}

#[test]
fn a_killed_server_loses_nothing_that_it_acknowledged() {
    const PUTS: u64 = 12;
    let mut server = Server::start();
    let hosts: Vec<_> = (0..3).map(|_| server.host()).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let acknowledged: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = hosts
            .iter()
            .enumerate()
            .map(|(k, host)| {
                let done = &done;
                scope.spawn(move || {
                    let acknowledged = put_on(host, &format!("a{k}"), PUTS);
                    done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    acknowledged
                })
            })
            .collect();
        while done.load(std::sync::atomic::Ordering::SeqCst) < hosts.len() {
            std::thread::sleep(Duration::from_millis(150));
            server.kill();
            server.start_again();
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for (k, acknowledged) in acknowledged.iter().enumerate() {
        let listed = hosts[0].json(&["ls", &format!("p/a{k}")]);
        let versions = listed.as_array().map_or(0, Vec::len) as u64;
        assert!(versions >= acknowledged.len() as u64 && versions <= PUTS, "none twice: {listed}");
        for (number, value) in (0..versions).zip(acknowledged) {
            let target = hosts[0].path(&format!("got-{k}-{number}"));
            let root = target.to_str().unwrap();
            hosts[0].ok(&["get", &format!("p/a{k}:v{number}"), "--root", root]);
            if versions == acknowledged.len() as u64 {
                assert_eq!(fs::read_to_string(target.join("n")).unwrap(), value.to_string());
            }
        }
        assert!(!acknowledged.is_empty(), "a server that comes back serves");
    }
    server.sound();
}

#[test]
fn a_server_that_ends_finishes_the_requests_under_way() {
    let mut server = Server::start();
    let host = server.host();
    let source = host.tree("src", &[("big", &noise(3, 40 << 20))]);
    let args = ["put", "-n", "p/big", source.to_str().unwrap()];
    let mut put = host.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.stop(), "it ended well");
    server.start_again();
    let ended = put.wait().unwrap();
    // The put went on with the server that came back, or said that it could not.
    if ended.success() {
        host.ok(&["verify", "p/big"]);
    } else {
        host.ok(&args);
    }
    server.sound();
}
