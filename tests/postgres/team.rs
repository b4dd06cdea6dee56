//! The main job of a team: two servers with one registry in PostgreSQL and packs in a bucket; put on
//! one host, mounted and read on another.

use std::fs;
use std::process::Stdio;

use crate::bucket::{Bucket, Refusal};
use crate::served::hostile::request;
use crate::server::Server;
use crate::serving::Server as HttpServer;
use crate::world::{World, noise, same_tree, until};

/// Two servers of one repository.
struct Team {
    bucket: Bucket,
    servers: [HttpServer; 2],
}

impl Team {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(options: &[&str]) -> Self {
        let (address, bucket) = (Server::shared().fresh_address().to_string(), Bucket::start());
        let world = |name: &str| {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let world = World { dir, mounts: Vec::new(), env: bucket.environment(), url: None };
            let first = name.is_empty();
            let store: &[&str] =
                if first { &["--store", "s3://bucket/team", "--name", "vision"] } else { &[] };
            world.ok(&[&["init", "--registry", &address], store].concat());
            world
        };
        let first = HttpServer::of(world(""), options);
        let second = HttpServer::beside(&first, world("second"));
        Self { bucket, servers: [first, second] }
    }

    /// Returns the number of requests by URLs that a server signed.
    fn signed(&self, method: &str) -> usize {
        self.bucket.lines().filter(|line| line.starts_with(method) && line.contains(SIGNED)).count()
    }
}

/// A part of the URLs that the servers sign (docs.aws.amazon.com, "Authenticating Requests: Using
/// Query Parameters").
const SIGNED: &str = "X-Amz-Signature=";

#[test]
fn a_grant_that_ended_is_asked_for_anew() {
    let team = Team::start();
    let host = team.servers[0].host();
    let source = host.tree("src", &[("a", &noise(1, 3_000_000))]);
    team.bucket.refuse(Refusal::new(SIGNED, 2, 403, "AccessDenied"));
    host.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    team.bucket.refuse(Refusal::new(SIGNED, 2, 403, "AccessDenied"));
    let other = team.servers[1].host();
    let target = other.path("got");
    other.ok(&["get", "p/data", "--root", target.to_str().unwrap()]);
    same_tree(&source, &target);
}

#[test]
fn bytes_go_through_the_server_if_clients_do_not_reach_the_bucket() {
    let team = Team::with(&["--proxy-bytes"]);
    let (host, other) = (team.servers[0].host(), team.servers[0].host());
    let source = host.tree("src", &[("a", &noise(1, 3_000_000)), ("b", &noise(2, 40 << 20))]);
    host.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    let target = other.path("got");
    other.ok(&["get", "p/data", "--root", target.to_str().unwrap()]);
    same_tree(&source, &target);
    assert_eq!(team.signed(""), 0);
    // A reader gets no URL to write, and nobody one for a pack that is not being written.
    let pack = team.bucket.keys().into_iter().find(|key| key.ends_with(".pack")).unwrap();
    let key = pack.split_once("/team/").unwrap().1;
    let body = format!("{{\"write\": true, \"keys\": [\"{key}\"]}}");
    let signing = Team::start();
    let reader = signing.servers[0].user("bob", "reader");
    for key in [&reader, &signing.servers[0].admin] {
        let key = format!("Authorization: Bearer {key}\r\n");
        let line = "POST /api/v1/vision/store/grants";
        let reply = request(&signing.servers[0], line, &key, body.as_bytes());
        assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    }
}

#[test]
fn a_team_puts_on_one_host_and_reads_on_another_through_two_servers() {
    let team = Team::start();
    let [one, two] = &team.servers;
    assert!(one.url().ends_with("/vision") && two.url().ends_with("/vision"));
    let (writer, mut reader) = (one.host(), two.host());
    let files = [("a", noise(1, 10)), ("d/b", noise(2, 3_000_000)), ("d/c", noise(3, 40 << 20))];
    let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let source = writer.tree("src", &files);
    writer.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
    assert!(!team.bucket.keys().is_empty(), "the bytes are in the bucket");
    let (read, staging) = reader.mount();
    same_tree(&source, &read.join("p/data:best"));
    for method in ["PUT /", "GET /"] {
        assert!(team.signed(method) > 0, "{method}: bytes go straight to the bucket");
    }

    fs::write(source.join("a"), "second").unwrap();
    writer.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
    until("the alias moves on the other server", || {
        fs::read(read.join("p/data:best/a")).unwrap() == b"second"
    });
    fs::create_dir_all(staging.join("p/model")).unwrap();
    fs::write(staging.join("p/model/w"), noise(4, 50_000)).unwrap();
    fs::rename(staging.join("p/model"), staging.join("p/model:trained")).unwrap();
    assert_eq!(writer.ok(&["ls", "p/model:trained"]).trim(), "w");

    // A key that one server revokes is refused by the other.
    let key = one.user("bob", "writer");
    let bob = two.host_of(&key);
    bob.ok(&["ls"]);
    let listed = writer.json(&["key", "ls", "--user", "bob"]);
    writer.ok(&["key", "revoke", listed[0]["id"].as_str().unwrap()]);
    until("the other server refuses the key", || bob.run(&["ls"]).code == 12);

    reader.umount();
    for version in ["p/data:v0", "p/data:v1", "p/model:v0"] {
        reader.ok(&["delete", version, "--delete-aliases"]);
    }
    let packs = || team.bucket.keys().iter().filter(|key| key.contains("/packs/")).count();
    until("all bytes are freed", || packs() == 0);
    one.sound();
}

#[test]
fn two_servers_give_one_history_of_an_alias() {
    const EACH: usize = 6;
    let team = Team::start();
    let hosts: Vec<_> = (0..4).map(|k| team.servers[k % 2].host()).collect();
    std::thread::scope(|scope| {
        for (k, host) in hosts.iter().enumerate() {
            scope.spawn(move || {
                for n in 0..EACH {
                    let text = format!("{k}-{n}");
                    let source = host.tree("src", &[("n", text.as_bytes())]);
                    let mut put = host.command(&[
                        "put",
                        "-n",
                        "p/one",
                        "-a",
                        "best",
                        source.to_str().unwrap(),
                    ]);
                    let done = put.stdout(Stdio::null()).output().unwrap();
                    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                }
            });
        }
    });
    let versions = hosts[0].json(&["ls", "p/one"]);
    let versions = versions.as_array().unwrap();
    assert_eq!(versions.len(), hosts.len() * EACH, "each put is one version");
    let best = versions.iter().filter(|version| {
        version["aliases"].as_array().unwrap().iter().any(|alias| alias == "best")
    });
    assert_eq!(best.count(), 1);
    team.servers[1].sound();
}
