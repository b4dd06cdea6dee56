//! Versions in remote stores: read lazily and cached within bounds, whatever goes wrong.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::web::{Fault, Web};
use crate::world::{World, noise, until};

/// A repository whose store is on a web server, with a big file, small ones, and text.
struct Remote {
    world: World,
    web: Web,
    source: PathBuf,
}

/// The number of small files.
const SMALL: u64 = 200;

fn remote(big_bytes: usize) -> Remote {
    let world = World::new();
    let source = world.tree("src", &[("text", "many words ".repeat(50_000).as_bytes())]);
    fs::write(source.join("big"), noise(1, big_bytes)).unwrap();
    fs::create_dir(source.join("d")).unwrap();
    for n in 0..SMALL {
        fs::write(source.join(format!("d/{n:04}")), noise(100 + n, 20_480)).unwrap();
    }
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let web = Web::start(&world.repo().join("store"));
    world.ok(&["copy-store", "file:store", &web.url(), "--use"]);
    Remote { world, web, source }
}

impl Remote {
    fn mount(&mut self, options: &str) -> PathBuf {
        let options: &[&str] = if options.is_empty() { &[] } else { &["-o", options] };
        self.world.mount_with(options).0.join("p/a:latest")
    }

    fn is_right(&self, root: &Path) {
        same(&self.source, root);
    }
}

fn same(a: &Path, b: &Path) {
    let diff = std::process::Command::new("diff").arg("-r").args([a, b]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

fn read(path: &Path, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    File::open(path)?.read_exact_at(&mut buffer, at).map(|()| buffer)
}

fn bytes_below(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // A file that goes meanwhile takes no room.
        let Ok(meta) = entry.metadata() else { continue };
        sum += meta.blocks() * 512 + if meta.is_dir() { bytes_below(&entry.path()) } else { 0 };
    }
    sum
}

#[test]
fn a_version_is_read_from_a_web_server_and_then_cached() {
    let mut it = remote(40_000_000);
    let new = it.world.tree("new", &[("new", b"never seen")]);
    let refused = it.world.run(&["put", "-n", "p/b", new.to_str().unwrap()]);
    assert_eq!(refused.code, 12, "{}", refused.err);
    let before = it.web.counts();
    let root = it.mount("");
    assert_eq!(it.web.counts(), before, "a mount fetches nothing");
    assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), SMALL as usize);
    assert!(it.web.counts().0 - before.0 <= 2, "{:?}", it.web.log());
    it.is_right(&root);
    let (requests, sent) = it.web.counts();
    assert!(requests - before.0 < 60, "{requests} requests");
    let held = fs::metadata(it.source.join("big")).unwrap().len() + SMALL * 20_480;
    assert!(sent - before.1 < held + held / 5, "{sent} bytes for {held}");
    it.is_right(&root);
    it.world.umount();
    let root = it.mount("");
    it.is_right(&root);
    assert_eq!(it.web.counts(), (requests, sent), "all of it is cached, also after a restart");
    let status = it.world.json(&["cache", "status"]);
    assert!(status["bytes"].as_u64().unwrap() > held, "{status}");
    assert_eq!(it.world.json(&["cache", "verify"])["wrong_objects"], 0);
    // A read of 4 KiB fetches its chunk, with one request.
    it.world.ok(&["cache", "cleanup", "0"]);
    assert_eq!(it.world.json(&["cache", "status"])["bytes"], 0);
    it.world.umount();
    let root = it.mount("prefetch=none");
    read(&root.join("text"), 0, 10).unwrap();
    let before = it.web.counts();
    read(&root.join("d/0007"), 100, 10).unwrap();
    let after = it.web.counts();
    assert!(after.0 == before.0 + 1 && after.1 - before.1 < 40_000, "{before:?} {after:?}");
}

/// Returns the TLS setup of a server for `localhost`, and the certificate of its authority.
fn authority() -> (rustls::ServerConfig, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let (key, own_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&own_key, &Issuer::new(params, key)).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![server.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(own_key.serialize_der()).into(),
        );
    (config.unwrap(), certificate)
}

#[test]
fn https_requires_a_certificate_that_can_be_verified() {
    let mut world = World::new();
    let source = world.tree("src", &[("big", &noise(1, 3_000_000)), ("small", b"s")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (config, certificate) = authority();
    let web = Web::start_tls(&world.repo().join("store"), config);
    let trusted = world.path("trusted.pem");
    fs::write(&trusted, certificate).unwrap();
    let url = web.tls_url();
    let copy = ["copy-store", "file:store", &url, "--use"];
    let refused = world.run(&copy);
    assert_eq!((refused.code, web.counts().0), (12, 0), "{}", refused.err);
    assert!(refused.err.contains("SSL_CERT_FILE"), "{}", refused.err);
    assert_eq!(refused.err.matches("UnknownIssuer").count(), 1, "{}", refused.err);
    world.env.push(("SSL_CERT_FILE", trusted.into_os_string()));
    world.ok(&copy);
    let out = world.path("out");
    world.ok(&["get", "p/a:v0", "--root", out.to_str().unwrap()]);
    same(&source, &out);
    world.ok(&["cache", "cleanup", "0"]);
    let before = web.counts().1;
    same(&source, &world.mount().0.join("p/a:latest"));
    assert!(web.counts().1 - before > 3_000_000, "{:?}", web.log());
}

#[test]
fn the_cache_keeps_its_bound_while_a_larger_file_streams_through() {
    let mut it = remote(200_000_000);
    let cache = it.world.path("cache");
    let bound = 64 << 20;
    let (read, staging) = (it.world.path("mnt"), it.world.path("staging"));
    fs::create_dir(&read).unwrap();
    fs::create_dir(&staging).unwrap();
    it.world.ok(&["--cache-size", "64MiB", "mount", read.to_str().unwrap()]);
    it.world.mounts.push(read.clone());
    let done = std::sync::atomic::AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let sampled = scope.spawn(|| {
            let mut most = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // Nobody takes room under the lock: it is the sum of one moment.
                let Ok(ledger) = File::open(cache.join("ledger")) else { continue };
                flock(&ledger, FlockOperation::LockShared).unwrap();
                most = most.max(bytes_below(&cache));
                drop(ledger);
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        for _ in 0..2 {
            it.is_right(&read.join("p/a:v0"));
            // The page cache must not serve the next reads.
            fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        sampled.join().unwrap()
    });
    assert!(most <= bound, "{most}");
    assert!(most > bound / 4, "{most}: the cache is used");
}

#[test]
fn a_failing_store_gives_errors_in_time_and_recovers() {
    let mut it = remote(30_000_000);
    let root = it.mount("data_timeout=4,metadata_timeout=2,prefetch=none");
    let warm = read(&root.join("d/0000"), 0, 20_480).unwrap();
    let faults = [
        Fault::Refuse,
        Fault::Hang,
        Fault::Slow,
        Fault::Cut(100),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(403),
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        it.web.set(fault);
        // Adjacent files are fetched together: this one is far from all others.
        let cold = root.join(format!("d/{:04}", 20 + 20 * n));
        let begun = Instant::now();
        let failed = std::thread::scope(|scope| {
            let reading = scope.spawn(|| read(&cold, 0, 20_480));
            while !reading.is_finished() {
                fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
                let asked = Instant::now();
                assert_eq!(read(&root.join("d/0000"), 0, 20_480).unwrap(), warm);
                assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), SMALL as usize);
                assert!(asked.elapsed() < Duration::from_secs(3), "warm reads wait: {fault:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
            reading.join().unwrap()
        });
        let errno = failed.expect_err("the store fails").raw_os_error().unwrap();
        let eio = rustix::io::Errno::IO.raw_os_error();
        let late = rustix::io::Errno::TIMEDOUT.raw_os_error();
        assert!(errno == eio || errno == late, "{fault:?}: {errno}");
        // The kernel reads twice; one read(2) must not take twice as long.
        assert!(begun.elapsed() < Duration::from_secs(7), "{fault:?}: {:?}", begun.elapsed());
        it.web.set(Fault::None);
        let back = Instant::now();
        until("the store is read again", || read(&cold, 0, 20_480).is_ok());
        assert!(back.elapsed() < Duration::from_secs(5), "{fault:?}: {:?}", back.elapsed());
    }
    it.is_right(&root);
    // Retries of requests that never succeeded count, too.
    let retries = it.world.json(&["stats", "--once"])[0]["stats"]["retries"].as_u64().unwrap();
    assert!(retries >= 7, "{retries} attempts were made again");
}

#[test]
fn listings_and_lookups_fail_in_time_and_are_never_empty() {
    for fault in [Fault::Refuse, Fault::Hang, Fault::Status(500)] {
        let mut it = remote(1_000_000);
        let root = it.mount("data_timeout=20,metadata_timeout=2");
        it.web.set(fault);
        let late = [rustix::io::Errno::IO, rustix::io::Errno::TIMEDOUT];
        let is_late =
            |error: io::Error| late.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()));
        let list = |folder: &Path| fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>();
        assert!(is_late(list(&root).unwrap_err()), "{fault:?}");
        assert!(is_late(fs::metadata(root.join("d/0001")).unwrap_err()), "{fault:?}");
        it.web.set(Fault::None);
        until("names are read again", || list(&root).is_ok_and(|names| names.len() == 3));
        assert_eq!(fs::metadata(root.join("d/0001")).unwrap().len(), 20_480);
        assert!(fs::metadata(root.join("none")).is_err());
    }
}

#[test]
fn wrong_bytes_are_fetched_once_more_and_never_read() {
    let mut it = remote(10_000_000);
    let root = it.mount("prefetch=none");
    fs::read_dir(root.join("d")).unwrap().count();
    it.web.set(Fault::Flip(1));
    assert_eq!(fs::read(root.join("d/0001")).unwrap(), noise(101, 20_480));
    it.web.set(Fault::Flip(1_000));
    let error = fs::read(root.join("d/0100")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    it.web.set(Fault::None);
    assert_eq!(fs::read(root.join("d/0100")).unwrap(), noise(200, 20_480));
    it.is_right(&root);
}

/// Changes a byte in the middle of every segment.
fn damage(cache: &Path) {
    for folder in fs::read_dir(cache.join("packs")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = File::options().read(true).write(true).open(file.unwrap().path()).unwrap();
            let middle = file.metadata().unwrap().len() / 2;
            let mut byte = [0];
            file.read_exact_at(&mut byte, middle).unwrap();
            file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        }
    }
}

#[test]
fn a_damaged_cache_is_noticed_and_fetched_again() {
    let mut it = remote(20_000_000);
    it.world.ok(&["prefetch", "p/a"]);
    damage(&it.world.path("cache"));
    let root = it.mount("");
    it.is_right(&root);
    it.world.umount();
    damage(&it.world.path("cache"));
    let found = it.world.json_of_failed(&["cache", "verify"]);
    assert!(found["wrong_objects"].as_u64().unwrap() >= 1, "{found}");
    assert_eq!(it.world.json(&["cache", "verify"])["wrong_objects"], 0);
}

#[test]
fn a_removed_cache_costs_only_time() {
    let mut it = remote(20_000_000);
    let root = it.mount("");
    it.is_right(&root);
    let cache = it.world.path("cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    it.is_right(&root);
    it.world.umount();
    // A file is in the place of the cache, so that there can be none.
    let _ = fs::remove_dir_all(&cache);
    fs::write(&cache, "in the way").unwrap();
    let root = it.mount("");
    it.is_right(&root);
}

/// A disk for a cache, unmounted with the test.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_cache_on_a_full_or_read_only_disk_is_bypassed() {
    let mut it = remote(20_000_000);
    let disk = Disk(it.world.tree("disk", &[]));
    let mount = |how: &str| {
        crate::world::host(
            "mount",
            &[
                Path::new("-o"),
                Path::new(how),
                Path::new("-t"),
                Path::new("tmpfs"),
                Path::new("none"),
                &disk.0,
            ],
        );
    };
    mount("size=8m");
    it.world.env.push(("ARTIFACTFS_CACHE_DIR", disk.0.join("cache").into_os_string()));
    let root = it.mount("");
    it.is_right(&root);
    // Another program takes what is left.
    fs::write(disk.0.join("ballast"), noise(3, 8 << 20)).unwrap_err();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    it.is_right(&root);
    it.world.umount();
    let root = it.mount("");
    it.is_right(&root);
    it.world.umount();
    mount("remount,ro");
    let root = it.mount("");
    it.is_right(&root);
    it.world.umount();
}

#[test]
fn prefetch_caches_a_part_of_a_version() {
    let mut it = remote(10_000_000);
    let told = it.world.json(&["prefetch", "p/a", "--include", "d/*"]);
    assert_eq!(told["files"], SMALL, "{told}");
    let root = it.mount("prefetch=none");
    let before = it.web.counts();
    same(&it.source.join("d"), &root.join("d"));
    assert_eq!(it.web.counts(), before, "{:?}", it.web.log());
    read(&root.join("big"), 0, 10).unwrap();
    assert!(it.web.counts().0 > before.0, "the rest is not");
}

#[test]
fn prefetch_all_caches_every_version_that_is_looked_up() {
    let mut it = remote(10_000_000);
    let root = it.mount("prefetch=all");
    fs::metadata(&root).unwrap();
    let held = || it.world.json(&["cache", "status"])["bytes"].as_u64().unwrap();
    until("it is cached", || held() > 10_000_000 + SMALL * 20_480);
}

#[test]
fn a_killed_daemon_leaves_a_valid_cache_and_no_hanging_reader() {
    let mut it = remote(40_000_000);
    for round in 0..4u64 {
        let root = it.mount("");
        let daemon = it.world.daemon();
        let reading = {
            let (root, source) = (root.clone(), it.source.clone());
            std::thread::spawn(move || {
                let mut diff = std::process::Command::new("diff");
                diff.arg("-r").arg(source).arg(root).output().unwrap()
            })
        };
        std::thread::sleep(Duration::from_millis(30 * round));
        if round == 3 {
            it.web.set(Fault::Hang);
            it.world.ok(&["cache", "cleanup", "0"]);
            fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
        until("the reader has ended", || reading.is_finished());
        it.web.set(Fault::None);
        until("the mount is dead", || fs::read_dir(&root).is_err());
    }
    let root = it.mount("");
    it.is_right(&root);
}

#[test]
fn pinned_content_stays_cached_and_needs_no_store() {
    let mut it = remote(10_000_000);
    it.world.ok(&["cache", "pin", "p/a"]);
    it.world.ok(&["cache", "cleanup", "0"]);
    let root = it.mount("");
    let before = it.web.counts();
    it.is_right(&root);
    assert_eq!(it.web.counts(), before);
    it.world.umount();
    let status = it.world.json(&["cache", "status"]);
    assert_eq!(status["pins"], serde_json::json!(["p/a:v0"]));
    assert!(status["pinned_bytes"].as_u64().unwrap() > 10_000_000, "{status}");
    it.world.ok(&["cache", "unpin", "p/a:v0"]);
    it.world.ok(&["cache", "cleanup", "0"]);
    assert_eq!(it.world.json(&["cache", "status"])["bytes"], 0);
    assert_eq!(it.world.run(&["cache", "unpin", "p/a:v0"]).code, 10);
}

#[test]
fn concurrent_readers_share_one_fetch() {
    let mut it = remote(20_000_000);
    let root = it.mount("prefetch=none");
    fs::read_dir(root.join("d")).unwrap().count();
    let before = it.web.counts();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| fs::read(root.join("d/0003")).unwrap());
        }
    });
    assert_eq!(it.web.counts().0, before.0 + 1, "{:?}", it.web.log());
}

#[test]
fn an_epoch_in_any_order_takes_few_requests() {
    let mut it = remote(10_000_000);
    let root = it.mount("");
    let before = it.web.counts();
    let mut order: Vec<u64> = (0..SMALL).collect();
    order.sort_by_key(|n| noise(*n, 8));
    for n in order {
        assert_eq!(fs::read(root.join(format!("d/{n:04}"))).unwrap(), noise(100 + n, 20_480));
    }
    let after = it.web.counts();
    assert!(after.0 - before.0 < 40, "{} requests", after.0 - before.0);
}

#[test]
fn drafts_work_on_versions_in_remote_stores() {
    let mut it = remote(20_000_000);
    let (read, staging) = it.world.mount();
    let before = it.web.counts();
    it.world.ok(&["draft", "p/a"]);
    assert!(it.web.counts().0 - before.0 <= 2, "no content is fetched");
    let file = File::options().write(true).open(staging.join("p/a/big")).unwrap();
    file.write_all_at(b"changed", 5_000_000).unwrap();
    drop(file);
    let mut bytes = noise(1, 20_000_000);
    bytes[5_000_000..5_000_007].copy_from_slice(b"changed");
    assert!(fs::read(staging.join("p/a/big")).unwrap() == bytes);
    assert!(fs::read(read.join("p/a:v0/big")).unwrap() == noise(1, 20_000_000));
}

#[test]
fn statistics_are_shown_to_users_and_to_prometheus() {
    let mut it = remote(10_000_000);
    let root = it.mount("");
    it.is_right(&root);
    it.web.set(Fault::Flip(1));
    it.world.ok(&["cache", "cleanup", "0"]);
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    it.is_right(&root);
    let stats = it.world.json(&["stats", "--once"]);
    let stats = &stats[0]["stats"];
    assert!(stats["fetched_bytes"].as_u64().unwrap() > 10_000_000, "{stats}");
    assert!(stats["cache_misses"].as_u64().unwrap() > 0, "{stats}");
    assert!(!stats["slowest"].as_array().unwrap().is_empty(), "{stats}");
    let told = it.world.ok(&["status"]);
    assert!(told.contains("cache hits") && told.contains("fetched"), "{told}");
    let socket = it.world.repo().join(format!("daemons/{}.sock", it.world.daemon()));
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    io::Write::write_all(&mut stream, request).unwrap();
    let text = io::read_to_string(stream).unwrap();
    has_metrics(&text);
}

fn has_metrics(text: &str) {
    for name in ["store_bytes_total", "cache_hits_total", "wrong_objects_total", "cache_bytes"] {
        let line = text.lines().find(|line| line.starts_with(&format!("artifactfs_{name} ")));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        assert!(number.is_some(), "{name}: {text}");
    }
}

#[test]
fn metrics_are_served_over_tcp_and_a_taken_port_is_reported() {
    let mut world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let target = world.tree("mnt", &[]);
    let mount = ["mount", "--metrics-listen", &address, target.to_str().unwrap()];
    let refused = world.run(&mount);
    assert!(refused.code != 0 && refused.err.contains("--metrics-listen"), "{}", refused.err);
    assert_eq!(world.json(&["status"])["mounts"], serde_json::json!([]));
    drop(taken);
    world.ok(&mount);
    world.mounts.push(target);
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    io::Write::write_all(&mut stream, request).unwrap();
    has_metrics(&io::read_to_string(stream).unwrap());
    world.umount();
}

#[test]
fn the_mounts_of_a_hanging_daemon_are_ended() {
    let mut it = remote(1_000_000);
    let root = it.mount("watchdog=2");
    let daemon = Pid::from_raw(it.world.daemon()).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    let waiting = std::thread::spawn(move || fs::read(root.join("d/0001")));
    until("the waiting reader gets an error", || waiting.is_finished());
    let error = waiting.join().unwrap().unwrap_err();
    let ended = [rustix::io::Errno::CONNABORTED, rustix::io::Errno::NOTCONN];
    assert!(ended.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error())), "{error}");
    kill_process(daemon, Signal::KILL).unwrap();
}
