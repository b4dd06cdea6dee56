//! Journeys of a team: put on one host, read, stage, run and delete on others.

use std::fs;
use std::process::Stdio;

use crate::fresh_repository;
use crate::serving::{Server, packs, until_empty};
use crate::world::{World, noise, same_tree, until};

#[test]
fn what_one_host_puts_another_mounts_reads_stages_and_deletes() {
    let server = Server::start();
    let (one, mut two) = (server.host(), server.host());
    let source = one.tree("src", &[("a", b"first"), ("d/b", &noise(1, 3_000_000)), ("empty", b"")]);
    one.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
    let (read, staging) = two.mount();
    same_tree(&source, &read.join("p/data:best"));

    fs::write(source.join("a"), "second").unwrap();
    one.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
    until("the other host sees the alias", || {
        fs::read(read.join("p/data:best/a")).unwrap() == b"second"
    });
    assert_eq!(fs::read(read.join("p/data:v0/a")).unwrap(), b"first");

    fs::create_dir_all(staging.join("p/model")).unwrap();
    fs::write(staging.join("p/model/weights"), noise(2, 100_000)).unwrap();
    fs::rename(staging.join("p/model"), staging.join("p/model:trained")).unwrap();
    let target = one.path("got");
    one.ok(&["get", "p/model:trained", "--root", target.to_str().unwrap()]);
    assert_eq!(fs::read(target.join("weights")).unwrap(), noise(2, 100_000));
    // A draft of a version moves no bytes.
    let before = packs(&server);
    two.ok(&["draft", "p/data:v1"]);
    fs::write(staging.join("p/data/c"), "third").unwrap();
    two.ok(&["commit", "p/data", "-a", "best"]);
    assert!(packs(&server) <= before + 2);
    let diff = one.run(&["diff", "p/data:v1", "p/data:v2"]);
    assert!(diff.code == 1 && diff.out.contains('c') && !diff.out.contains('b'), "{}", diff.out);

    two.ok(&["draft", "discard", "p/data"]);

    one.ok(&["verify"]);
    server.sound();
    for version in ["p/data:v0", "p/data:v1", "p/data:v2", "p/model:v0"] {
        two.ok(&["delete", version, "--delete-aliases"]);
    }
    assert_eq!(one.run(&["show", "p/data:v0"]).code, 10);
    two.umount();
    until_empty(&server);
    server.sound();
}

#[test]
fn a_big_file_goes_in_packs_that_the_server_takes_in_one_request_each() {
    let server = Server::start();
    let host = server.host();
    let bytes = noise(7, 70 << 20);
    let source = host.tree("src", &[("big", &bytes)]);
    host.ok(&["put", "-n", "p/big", source.join("big").to_str().unwrap()]);
    assert!(packs(&server) > 2, "no pack is longer than 32 MiB");
    let other = server.host();
    let target = other.path("got");
    other.ok(&["get", "p/big", "--root", target.to_str().unwrap()]);
    assert!(fs::read(target.join("big")).unwrap() == bytes);
    server.sound();
}

/// Returns the number of registry calls that a command made.
fn calls_of(server: &Server, host: &World, args: &[&str]) -> usize {
    let calls = || {
        let log = fs::read_to_string(server.world.path("server.log")).unwrap();
        log.lines().filter(|line| line.contains(" call=\"") && line.contains("/rpc")).count()
    };
    let before = calls();
    host.ok(args);
    calls() - before
}

#[test]
fn the_calls_of_a_put_do_not_follow_its_files() {
    let server = Server::of(fresh_repository(), &["--access-log"]);
    let host = server.host();
    host.ok(&["ls"]);
    let files: Vec<_> =
        (0..3_000u64).map(|n| (format!("d{}/f{n}", n % 10), noise(n, 100))).collect();
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    let source = host.tree("src", &files);
    let put = ["put", "-n", "p/many", source.to_str().unwrap()];
    let many = calls_of(&server, &host, &put);
    assert!((1..=30).contains(&many), "{many} calls for 3,000 files");
    fs::write(source.join("d1/f1"), "changed").unwrap();
    let again = calls_of(&server, &host, &put);
    assert!((1..=30).contains(&again), "{again} calls for one change among them");
    let small = host.tree("small", &[("a", b"small")]);
    let small = calls_of(&server, &host, &["put", "-n", "p/one", small.to_str().unwrap()]);
    assert!((1..=7).contains(&small), "{small} calls for one file");
    let show = calls_of(&server, &host, &["show", "p/many:v0"]);
    assert!((1..=10).contains(&show), "{show} calls to show 3,000 files");
    server.sound();
}

#[test]
fn runs_sweeps_and_groups_of_many_hosts_are_one_history() {
    let server = Server::start();
    let hosts: Vec<_> = (0..4).map(|_| server.host()).collect();
    let source = hosts[0].tree("src", &[("a", b"data")]);
    hosts[0].ok(&["put", "-n", "p/data", source.to_str().unwrap()]);

    // A run uses what it looks up by its path, and logs what it puts.
    let mut trainer = server.host();
    let (read, _) = trainer.mount();
    let model = trainer.tree("model", &[("w", b"weights")]);
    let script = format!(
        "cat {}/p/data:latest/a && {} put -n p/model {}",
        read.display(),
        env!("CARGO_BIN_EXE_artifactfs"),
        model.display()
    );
    trainer.ok(&["run", "-p", "p", "--id", "r1", "--", "sh", "-c", &script]);
    assert!(hosts[1].ok(&["logged-by", "p/model:v0"]).contains("r1"));
    assert!(hosts[2].ok(&["used-by", "p/data:v0"]).contains("r1"));
    trainer.umount();

    hosts[0].ok(&["sweep", "create", "p", "--metric", "loss", "--goal", "minimize", "--id", "s"]);
    for (host, loss) in hosts.iter().zip(["0.4", "0.2", "0.3", "0.5"]) {
        let logged = format!("loss={loss}");
        let script = format!("{} run log --summary {logged}", env!("CARGO_BIN_EXE_artifactfs"));
        let ran = host.run(&["run", "-p", "p", "--sweep", "s", "--", "sh", "-c", &script]);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let best = hosts[3].ok(&["sweep", "best", "s"]);
    assert!(best.contains("0.2"), "{best}");

    // 16 writers of one version, on four hosts.
    let mut writers = Vec::new();
    for k in 0..16 {
        let host = &hosts[k % hosts.len()];
        let part = host.tree(&format!("part{k}"), &[(&format!("f{k}"), &noise(k as u64, 20_000))]);
        let args = ["put", "--upsert", "--group", "g", "-n", "p/parts", part.to_str().unwrap()];
        let mut command = host.command(&args);
        writers.push(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    }
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    hosts[2].ok(&["finish", "-n", "p/parts", "--group", "g"]);
    assert_eq!(hosts[3].ok(&["ls", "p/parts:latest"]).lines().count(), 16);
    server.sound();
}

/// A move of the repository to another store.
const MOVE: [&str; 4] = ["copy-store", "file:/one", "file:/another", "--use"];

#[test]
fn a_check_of_the_store_says_that_it_runs_at_the_server() {
    let server = Server::start();
    let host = server.host();
    for args in [&["fsck"][..], &["fsck", "--repair"], &["fsck", "--rebuild"], &MOVE] {
        let refused = host.run(args);
        assert_eq!(refused.code, 15, "{args:?}: {}", refused.err);
        assert!(refused.err.contains("on the server"), "{}", refused.err);
    }
    // Garbage is collected by the server.
    let source = host.tree("src", &[("a", &noise(1, 50_000)), ("b", &noise(2, 50_000))]);
    host.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    fs::remove_file(source.join("b")).unwrap();
    host.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    host.ok(&["delete", "p/data:v0", "--purge", "later"]);
    let collected = host.json(&["gc", "--garbage", "0"]);
    assert!(collected["freed_bytes"].as_u64().unwrap() >= 50_000, "{collected}");
    server.sound();
}

#[test]
fn the_server_and_commands_on_its_machine_share_one_registry() {
    let server = Server::start();
    let source = server.world.tree("src", &[("a", b"local")]);
    server.world.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    let host = server.host();
    assert_eq!(host.ok(&["ls", "p/data:latest"]).trim(), "a");
    // A directory of a served repository stands for it too.
    let mut by_directory = server.host();
    by_directory.ok(&["ls"]);
    let (address, home) = (server.address().replace(':', "_"), by_directory.path("home"));
    let own = home.join(".local/state/artifactfs/servers").join(address).join("repo");
    by_directory.url = Some(own.to_str().unwrap().to_owned());
    assert_eq!(by_directory.ok(&["ls", "p/data:latest"]).trim(), "a");
}

#[test]
fn the_numbers_of_a_server_name_calls_and_nobody() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let server = Server::of(fresh_repository(), &["--metrics-listen", &address]);
    let host = server.host();
    let source = host.tree("src", &[("a", b"data")]);
    host.ok(&["put", "-n", "project/data", source.to_str().unwrap()]);
    assert_eq!(host.run(&["show", "project/gone"]).code, 10);
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).unwrap();
    let text = std::io::read_to_string(stream).unwrap();
    let number = |line: &str| -> u64 {
        let found = text.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{line}: {text}"))
    };
    let requests = "artifactfs_server_requests_total";
    assert_eq!(number(&format!("{requests}{{call=\"commit\",status=\"200\"}}")), 1);
    assert!(number(&format!("{requests}{{call=\"lookup\",status=\"404\"}}")) >= 1);
    let stored = "PUT /api/v1/{team}/store/packs/{shard}/{name}";
    assert!(number(&format!("{requests}{{call=\"{stored}\",status=\"201\"}}")) >= 1);
    let seconds = "artifactfs_server_request_seconds_count";
    assert_eq!(number(&format!("{seconds}{{call=\"commit\"}}")), 1);
    assert!(text.contains("artifactfs_server_requests_under_way "), "{text}");
    assert!(!text.contains("project/") && !text.contains("ann"), "{text}");
}
