//! Several hosts with one registry and one store. A host is a directory with its own cache and
//! mounts, whose commands run in a PID namespace of their own: like processes of another machine,
//! their lives are unknown to the others.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use artifactfs::error::Kind;
use artifactfs::registry::engine::postgres::Address;
use artifactfs::{Repository, StoreOptions};

use crate::bucket::Bucket;
use crate::server::Server;
use crate::world::{World, noise, same_tree, until};

/// A repository in the shared database, with a store that all hosts reach.
struct Team {
    address: Address,
    store: tempfile::TempDir,
    /// A bucket in place of the directory.
    bucket: Option<Bucket>,
}

impl Team {
    fn new() -> Self {
        Self::on(Server::shared())
    }

    fn on(server: &Server) -> Self {
        let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { address: server.fresh_address(), store, bucket: None }
    }

    fn store(&self) -> String {
        if self.bucket.is_some() {
            return "s3://bucket/team".to_owned();
        }
        format!("file:{}", self.store.path().join("store").display())
    }

    /// Returns a host of the team; the first one makes the repository.
    fn host(&self, first: bool) -> World {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let env = self.bucket.as_ref().map(Bucket::environment).unwrap_or_default();
        let world = World { dir, mounts: Vec::new(), env, url: None };
        let (address, store) = (self.address.to_string(), self.store());
        let mut args = vec!["init", "--registry", &address];
        if first {
            args.extend(["--store", &store]);
        }
        world.ok(&args);
        world
    }

    fn hosts(&self) -> (World, World) {
        (self.host(true), self.host(false))
    }
}

/// Makes a command run in a PID namespace of its own.
fn elsewhere(command: &Command) -> Command {
    let mut other = Command::new("unshare");
    other.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(command.get_program());
    other.args(command.get_args()).stdin(Stdio::null());
    for (key, value) in command.get_envs() {
        other.env(key, value.unwrap());
    }
    other.current_dir(command.get_current_dir().unwrap());
    other
}

fn whole(world: &World) {
    world.ok(&["verify"]);
    let report = world.run(&["fsck"]);
    assert_eq!(report.code, 0, "{}{}", report.out, report.err);
}

#[test]
fn what_one_host_puts_another_reads_and_deletes() {
    let team = Team::new();
    let (one, mut two) = team.hosts();
    let source = one.tree("src", &[("a", b"first"), ("d/b", &noise(1, 3_000_000))]);
    one.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
    let (read, staging) = two.mount();
    assert_eq!(fs::read(read.join("p/data:best/a")).unwrap(), b"first");
    assert_eq!(fs::read(read.join("p/data:v0/d/b")).unwrap(), noise(1, 3_000_000));

    fs::write(source.join("a"), "second").unwrap();
    one.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
    until("the other host sees the alias", || {
        fs::read(read.join("p/data:best/a")).unwrap() == b"second"
    });

    fs::create_dir_all(staging.join("p/model")).unwrap();
    fs::write(staging.join("p/model/weights"), noise(2, 100_000)).unwrap();
    fs::rename(staging.join("p/model"), staging.join("p/model:trained")).unwrap();
    let target = one.path("got");
    one.ok(&["get", "p/model:trained", "--root", target.to_str().unwrap()]);
    assert_eq!(fs::read(target.join("weights")).unwrap(), noise(2, 100_000));

    whole(&one);
    two.ok(&["delete", "p/data:v0"]);
    assert_eq!(one.run(&["show", "p/data:v0"]).code, 10);
    one.ok(&["delete", "p/data:v1", "--delete-aliases"]);
    one.ok(&["delete", "p/model:v0", "--delete-aliases"]);
    whole(&two);
    let packs = || walk(&team.store.path().join("store/packs"));
    assert_eq!(packs(), 0, "all bytes are freed");
    two.umount();
}

fn walk(folder: &std::path::Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { walk(&path) } else { 1 })
        .sum()
}

#[test]
fn writers_of_two_hosts_publish_at_once() {
    let team = Team::new();
    let (one, two) = team.hosts();
    let mut writers = Vec::new();
    for number in 0..8u8 {
        let world = if number % 2 == 0 { &one } else { &two };
        let bytes = noise(u64::from(number), 200_000);
        let source = world.tree(&format!("src{number}"), &[("own", &bytes), ("common", b"same")]);
        let command = world.command(&[
            "put",
            "-n",
            "p/a",
            "-a",
            &format!("w{number}"),
            source.to_str().unwrap(),
        ]);
        let mut command = if number % 2 == 0 { command } else { elsewhere(&command) };
        writers.push(command.stdout(Stdio::null()).spawn().unwrap());
    }
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let versions = one.json(&["ls", "p/a"]);
    assert_eq!(
        versions.as_array().or(versions["versions"].as_array()).unwrap().len(),
        8,
        "{versions}"
    );
    for number in 0..8u8 {
        let target = one.path(&format!("got{number}"));
        one.ok(&["get", &format!("p/a:w{number}"), "--root", target.to_str().unwrap()]);
        assert_eq!(fs::read(target.join("own")).unwrap(), noise(u64::from(number), 200_000));
    }
    whole(&two);
}

/// Nobody can see whether a writer of another host lives, so its lease is not ended before its time.
#[test]
fn a_writer_of_another_host_is_left_alone() {
    let team = Team::new();
    let (one, two) = team.hosts();
    let source = one.tree("src", &[("old", &noise(5, 2_000_000))]);
    one.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    for number in 0..40u64 {
        fs::write(source.join(format!("new{number}")), noise(100 + number, 1_000_000)).unwrap();
    }
    let mut command = elsewhere(&one.command(&["put", "-n", "p/a", source.to_str().unwrap()]));
    command.process_group(0);
    let mut writer = command.stdout(Stdio::null()).spawn().unwrap();
    let group = writer.id().to_string();
    let leased = || {
        let found = Server::shared()
            .sql(&format!("select count(*) from {}.kv where k >= 's' and k < 't'", schema(&team)));
        found != "0"
    };
    until("the writer has begun", leased);
    let signal = |name: &str| {
        let killed = Command::new("pkill").args([name, "-g", &group]).status().unwrap();
        killed.success()
    };
    assert!(signal("-STOP"));
    two.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    let other = two.tree("other", &[("x", b"y")]);
    two.ok(&["put", "-n", "p/b", other.to_str().unwrap()]);
    two.ok(&["gc"]);
    assert!(leased(), "the lease of a writer that lives was ended");
    assert!(signal("-CONT"));
    assert!(writer.wait().unwrap().success());
    let target = two.path("got");
    two.ok(&["get", "p/a", "--root", target.to_str().unwrap()]);
    assert_eq!(fs::read(target.join("old")).unwrap(), noise(5, 2_000_000));
    whole(&two);
}

fn schema(team: &Team) -> String {
    team.address.to_string().split_once("schema=").unwrap().1.to_owned()
}

/// A host that starts a staging mount ends leases without a draft, but only those of its own drafts.
#[test]
fn drafts_of_another_host_keep_what_they_stand_on() {
    let team = Team::new();
    let (mut one, mut two) = team.hosts();
    let source = one.tree("src", &[("a", &noise(7, 500_000))]);
    one.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, staging) = one.mount();
    assert!(
        Command::new("cp")
            .arg("-r")
            .arg(read.join("p/a:v0"))
            .arg(staging.join("p/next"))
            .status()
            .unwrap()
            .success()
    );
    two.mount();
    two.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    two.ok(&["gc"]);
    assert_eq!(fs::read(staging.join("p/next/a")).unwrap(), noise(7, 500_000));
    fs::rename(staging.join("p/next"), staging.join("p/next:done")).unwrap();
    let target = two.path("got");
    two.ok(&["get", "p/next:done", "--root", target.to_str().unwrap()]);
    assert_eq!(fs::read(target.join("a")).unwrap(), noise(7, 500_000));
    whole(&two);
    one.umount();
    two.umount();
}

#[test]
fn a_host_follows_when_another_moves_the_store() {
    let team = Team::new();
    let (one, two) = team.hosts();
    let source = one.tree("src", &[("a", b"1")]);
    one.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let to = format!("file:{}", team.store.path().join("moved").display());
    one.ok(&["copy-store", &team.store(), &to, "--use"]);
    fs::remove_dir_all(team.store.path().join("store")).unwrap();
    two.ok(&["verify"]);
    assert_eq!(two.json(&["status"])["store"], to);
    let (one, two) = (Arc::new(one), two);
    fs::write(source.join("a"), "2").unwrap();
    one.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    two.ok(&["verify"]);
}

#[test]
fn what_cannot_be_a_shared_repository_is_refused() {
    let team = Team::new();
    let (one, address) = (World::new(), team.address.to_string());
    let refused = |args: &[&str], code: i32, words: &str| {
        let ran = one.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    };
    let new = one.path("new");
    let new = new.to_str().unwrap();
    refused(&["init", new, "--registry", &address], 10, "no registry");
    refused(&["init", new, "--registry", &address, "--store", "file:store"], 2, "one host");
    let secret = address.replace("postgres@", "postgres:geheim@");
    refused(&["init", new, "--registry", &secret, "--store", &team.store()], 2, "password");
    assert!(!fs::exists(new).unwrap());
    one.ok(&["init", new, "--registry", &address, "--store", &team.store()]);
    let other = one.path("other");
    refused(
        &["init", other.to_str().unwrap(), "--registry", &address, "--store", &team.store()],
        11,
        "already",
    );
    // Without its registry the repository is not found, and no new one is made.
    let text = fs::read_to_string(one.path("new/repository.json")).unwrap();
    assert!(!text.contains("geheim") && text.contains("\"format\": 3"), "{text}");
    Server::shared().sql(&format!("drop schema {} cascade", schema(&team)));
    let begun = std::time::Instant::now();
    let gone = Repository::open(std::path::Path::new(new), &StoreOptions::default()).err().unwrap();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

/// While the database is gone, names that were resolved and files that are open stay; when it is
/// back, the mount goes on by itself.
#[test]
fn a_mount_outlives_its_database() {
    let server = Server::start("");
    let team = Team::on(&server);
    let (one, mut two) = team.hosts();
    let source = one.tree("src", &[("a", b"first"), ("b", &noise(9, 2_000_000))]);
    one.ok(&["put", "-n", "p/a", "-a", "best", source.to_str().unwrap()]);
    let (read, _) = two.mount();
    assert_eq!(fs::read(read.join("p/a:best/a")).unwrap(), b"first");
    assert_eq!(fs::read(read.join("p/a:best/b")).unwrap(), noise(9, 2_000_000));
    server.kill();
    for _ in 0..3 {
        // The kernel believes a name for a second.
        std::thread::sleep(Duration::from_millis(1_100));
        let read_all = || fs::read(read.join("p/a:best/a"));
        until("the name that was resolved is found", || read_all().is_ok_and(|a| a == b"first"));
        assert_eq!(fs::read(read.join("p/a:best/b")).unwrap(), noise(9, 2_000_000));
    }
    let begun = std::time::Instant::now();
    assert!(fs::read(read.join("p/other:best/a")).is_err());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    server.await_ready();
    fs::write(source.join("a"), "second").unwrap();
    until("the server takes changes", || {
        one.run(&["put", "-n", "p/a", "-a", "best", source.to_str().unwrap()]).code == 0
    });
    until("the mount goes on", || fs::read(read.join("p/a:best/a")).is_ok_and(|a| a == b"second"));
    two.umount();
}

#[test]
fn hosts_share_a_bucket() {
    let team = Team { bucket: Some(Bucket::start()), ..Team::new() };
    let (one, mut two) = team.hosts();
    let files: Vec<_> = (0..300u64).map(|n| (format!("d{}/{n}", n % 7), noise(n, 5_000))).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let source = one.tree("src", &files);
    one.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    let (read, _) = two.mount();
    same_tree(&source, &read.join("p/data:latest"));
    let target = two.path("got");
    two.ok(&["get", "p/data", "--root", target.to_str().unwrap()]);
    same_tree(&source, &target);
    two.ok(&["delete", "p/data:v0", "--delete-aliases"]);
    whole(&one);
    let keys = team.bucket.as_ref().unwrap().keys();
    assert!(!keys.iter().any(|key| key.contains("/packs/")), "{keys:?}");
    two.umount();
}
