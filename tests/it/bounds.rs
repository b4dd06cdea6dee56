//! Bounds on large and on many requests: replies stay short, and no caller blocks the others.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use artifactfs::client::Client;
use artifactfs::error::{Error, Kind};
use artifactfs::model::digest::Digest;
use artifactfs::model::host::Host;
use artifactfs::model::metadata::Metadata;
use artifactfs::model::object::{NewObject, PackId};
use artifactfs::model::object_kind::ObjectKind;
use artifactfs::model::version::DESCRIPTION_MAX_BYTES;
use artifactfs::protocol::{RPC_PATH, Service, encode_answer, encode_request};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::prelude::*;
use artifactfs::registry::{
    Call, CommitRequest, Detail, EngineRegistry, LeaseId, NamesCall, Update, VersionsCall, dispatch,
};
use rustix::fs::{FlockOperation, flock};

use crate::world::{World, until};

/// Returns metadata of about a megabyte.
fn megabyte() -> Metadata {
    format!("{{\"x\": \"{}\"}}", "y".repeat(1_000_000)).parse().unwrap()
}

fn registry() -> EngineRegistry {
    EngineRegistry::open(Box::new(MemoryEngine::default()), Host::system().clock).unwrap()
}

/// Commits a version whose tree no other version has.
fn commit(registry: &EngineRegistry, seed: u8, metadata: Option<Metadata>) -> LeaseId {
    let lease = registry.begin("put".into(), format!("h{seed}"), None).unwrap().lease;
    let pack = PackId(u128::from(lease.0).to_be_bytes());
    registry.register_pack(lease, pack).unwrap();
    let digest = Digest::of(ObjectKind::Tree, &[seed]);
    let (kind, children) = (ObjectKind::Tree, Vec::new());
    let object =
        NewObject { digest, kind, codec: 0, body_bytes: 1, offset: 0, stored_bytes: 1, children };
    registry.add_objects(lease, pack, 1, vec![object]).unwrap();
    let mut request = CommitRequest::plain("p/a".parse().unwrap(), digest);
    request.version.metadata = metadata;
    registry.commit(lease, request).unwrap();
    registry.release(lease).unwrap();
    lease
}

#[test]
fn listings_with_much_metadata_come_in_short_pages() {
    let registry = registry();
    for seed in 0..40 {
        commit(&registry, seed, Some(megabyte()));
    }
    let path: artifactfs::model::reference::ArtifactPath = "p/a".parse().unwrap();
    let (mut after, mut seen) = (None, 0);
    loop {
        let (limit, detail) = (500, Detail::Full);
        let call =
            Call::Versions(VersionsCall::Versions { path: path.clone(), after, limit, detail });
        let answer = dispatch(&registry, call).unwrap();
        assert!(answer.len() < 16 << 20, "{} bytes", answer.len());
        let page = registry.versions(path.clone(), after, limit, detail).unwrap();
        assert!(page.items.iter().all(|version| version.metadata == megabyte()));
        seen += page.items.len();
        after = page.items.last().map(|version| version.number);
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, 40);
    let call = Call::Versions(VersionsCall::Versions {
        path: path.clone(),
        after: None,
        limit: 500,
        detail: Detail::Brief,
    });
    assert!(dispatch(&registry, call).unwrap().len() < 10_000);
}

#[test]
fn the_count_of_versions_stays_right_after_deletions() {
    let registry = registry();
    for seed in 0..5 {
        commit(&registry, seed, None);
    }
    let told = || {
        let info = registry.artifact("p/a".parse().unwrap()).unwrap();
        (info.versions, info.newest.map(|number| number.0))
    };
    assert_eq!(told(), (5, Some(4)));
    for (number, left) in [(4, (4, Some(3))), (1, (3, Some(3))), (3, (2, Some(2)))] {
        registry.delete(format!("p/a:v{number}").parse().unwrap(), true).unwrap();
        assert_eq!(told(), left);
    }
    commit(&registry, 9, None);
    assert_eq!(told(), (3, Some(5)));
    // The tree of the newest version again makes no new version.
    commit(&registry, 9, None);
    assert_eq!(told(), (3, Some(5)));
    for number in [0, 2, 5] {
        registry.delete(format!("p/a:v{number}").parse().unwrap(), true).unwrap();
    }
    assert_eq!(told(), (0, None));
    commit(&registry, 9, None);
    assert_eq!(told(), (1, Some(6)));
}

#[test]
fn artifacts_are_listed_in_pages() {
    let world = World::new();
    world.tree("s", &[("f", b"1")]);
    ["a", "b", "c"]
        .iter()
        .for_each(|name| drop(world.ok(&["put", "-n", &format!("p/{name}"), "s"])));
    let repository = world.open();
    let page = |after: Option<&str>| {
        let after = after.map(|name| name.parse().unwrap());
        let page = repository.registry.artifacts("p".parse().unwrap(), after, 2).unwrap();
        let names = page.items.iter().map(|info| info.path.artifact.to_string());
        (names.collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page(None), (vec!["a".to_owned(), "b".to_owned()], true));
    assert_eq!(page(Some("b")), (vec!["c".to_owned()], false));
    assert!(repository.registry.has_project("p".parse().unwrap()).unwrap());
    assert!(!repository.registry.has_project("q".parse().unwrap()).unwrap());
}

#[test]
fn input_from_a_socket_is_validated_like_arguments() {
    let registry = registry();
    commit(&registry, 1, None);
    let update =
        |update: Update| registry.update("p/a:v0".parse().unwrap(), update).unwrap_err().kind();
    for bad in ["[1]", "no", "{\"a\": 1", &format!("{{\"a\": \"{}\"}}", "y".repeat(1 << 20))] {
        let bytes = postcard::to_stdvec(bad).unwrap();
        let metadata: Metadata = postcard::from_bytes(&bytes).unwrap();
        let metadata = Some(metadata);
        assert_eq!(update(Update { metadata, ..Update::default() }), Kind::Usage);
    }
    let description = Some("x".repeat(DESCRIPTION_MAX_BYTES + 1));
    assert_eq!(update(Update { description, ..Update::default() }), Kind::Usage);
}

/// Encodes a call as it goes over the socket.
fn request(call: &Call) -> Vec<u8> {
    let body = encode_request(Service::Registry, call).unwrap();
    let head =
        format!("POST {RPC_PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body].concat()
}

fn has_answer(socket: &mut UnixStream) -> bool {
    match socket.read(&mut [0; 1]) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => false,
        read => read.unwrap() > 0,
    }
}

#[test]
fn many_waiters_for_changes_block_no_other_request() {
    let mut world = World::new();
    world.mount();
    let socket = world.repo().join("artifactfs.sock");
    let last = Client::connect(&socket).unwrap().changes(u64::MAX - 1, 0).unwrap().last;
    let wait = |after| {
        let mut waiter = UnixStream::connect(&socket).unwrap();
        let call = Call::Names(NamesCall::ChangesAfter { after, wait_milliseconds: 25_000 });
        waiter.write_all(&request(&call)).unwrap();
        waiter.set_nonblocking(true).unwrap();
        waiter
    };
    let mut idle: Vec<_> = (0..150).map(|_| wait(u64::MAX / 2)).collect();
    let mut curious: Vec<_> = (0..20).map(|_| wait(last)).collect();
    for _ in 0..3 {
        world.ok(&["ls"]);
    }
    assert!(!idle.iter_mut().chain(&mut curious).any(has_answer), "they wait no longer");
    world.tree("s", &[("f", b"1")]);
    world.ok(&["put", "-n", "p/a", "s"]);
    for waiter in &mut curious {
        until("a change is reported", || has_answer(waiter));
    }
    drop(idle);
    world.umount();
}

/// Refuses every call, as the process that has the repository open. Returns the count of calls.
fn refuse_all(world: &World) -> Arc<AtomicUsize> {
    let lock = fs::File::create(world.repo().join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let listener = UnixListener::bind(world.repo().join("artifactfs.sock")).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let _lock = lock;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            // One request on each connection is enough.
            while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    read => seen.extend_from_slice(&buffer[..read]),
                }
            }
            if seen.is_empty() {
                continue;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let body = encode_answer(&Err(Error::new(Kind::Unavailable, "the store is away")));
            let head = format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    asked
}

#[test]
fn a_call_with_a_reply_is_not_repeated() {
    let world = World::new();
    let asked = refuse_all(&world);
    let ran = world.run(&["ls"]);
    assert_eq!(ran.code, 15, "{}", ran.err);
    assert!(ran.err.contains("the store is away"), "{}", ran.err);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_listing_of_any_length_is_one_json_document() {
    let world = World::new();
    let names: Vec<String> = (0..3_000).map(|number| format!("f{number:05}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"1"[..])).collect();
    let root = world.tree("s", &files);
    fs::create_dir(root.join("empty")).unwrap();
    world.ok(&["put", "-n", "p/a", "s"]);
    let listed = world.json(&["ls", "p/a:v0/"]);
    assert_eq!(listed.as_array().unwrap().len(), 3_001);
    assert_eq!(listed[0]["name"], "empty");
    assert_eq!(listed[1]["digest"], listed[2]["digest"]);
    assert_eq!(world.json(&["ls", "p/a:v0/empty"]), serde_json::json!([]));
    assert_eq!(world.ok(&["ls", "p/a:v0/"]).lines().count(), 3_001);
    assert_eq!(world.ok(&["ls", "-l", "p/a:v0/f00001"]), "-r--r--r--             1  f00001\n");
    world.ok(&["put", "-n", "p/b", "s", "--metadata", "{\"a\": 1}"]);
    assert_eq!(world.json(&["ls", "p/b"])[0]["metadata"], serde_json::json!({ "a": 1 }));
    assert_eq!(world.json(&["diff", "p/a", "p/b"]), serde_json::json!([]));
}

#[test]
fn shared_content_is_counted_once() {
    let world = World::new();
    let same = [7; 300_000];
    world.tree("s", &[("a/x", &same), ("b/x", &same), ("b/y", &same), ("c", b"only here")]);
    world.tree("t", &[("b/x", &same)]);
    world.ok(&["put", "-n", "p/s", "s"]);
    let alone = world.json(&["show", "p/s"]);
    assert_eq!(alone["stored_bytes"], alone["exclusive_bytes"]);
    assert_eq!(alone["shared_bytes"], 0);
    world.ok(&["put", "-n", "p/t", "t"]);
    let shared = world.json(&["show", "p/s"]);
    assert_eq!(shared["stored_bytes"], alone["stored_bytes"]);
    assert_eq!(world.json(&["verify"])["damaged_paths"], 0);
    let freed = world.json(&["delete", "--delete-aliases", "p/s:v0"])["freed_bytes"].clone();
    assert_eq!(freed, shared["exclusive_bytes"]);
    let rest = world.json(&["show", "p/t"]);
    let total = freed.as_u64().unwrap() + rest["stored_bytes"].as_u64().unwrap();
    assert!(total >= alone["stored_bytes"].as_u64().unwrap());
    assert_eq!(rest["stored_bytes"], rest["exclusive_bytes"]);
}

#[test]
fn metadata_from_python_is_kept_without_rounding() {
    let mut world = World::new();
    world.tree("s", &[("f", b"1")]);
    fs::write(world.path("m.json"), r#"{"eval_loss": NaN, "l": [Infinity, -Infinity]}"#).unwrap();
    world.ok(&["put", "-n", "p/a", "s", "--metadata", "@m.json"]);
    let wanted = serde_json::json!({ "eval_loss": "NaN", "l": ["Infinity", "-Infinity"] });
    assert_eq!(world.json(&["show", "p/a"])["metadata"], wanted);
    let large = "12345678901234567890123";
    for args in [
        vec!["put", "-n", "p/b", "s", "--metadata", "{\"id\": 12345678901234567890123}"],
        vec!["update", "p/a", "--metadata", "{\"id\": [12345678901234567890123]}"],
        vec!["update", "p/a", "--set", "ids=[12345678901234567890123]"],
    ] {
        let ran = world.run(&args);
        assert_ne!(ran.code, 0, "{args:?}");
        assert!(ran.err.contains(large) && ran.err.contains("64 bits"), "{}", ran.err);
    }
    let id = format!("id={large}");
    world.ok(&[
        "update",
        "p/a",
        "--set",
        &id,
        "--set",
        "loss=NaN",
        "--set",
        "n=18446744073709551615",
    ]);
    let told = world.json(&["show", "p/a"])["metadata"].clone();
    assert_eq!((&told["id"], &told["loss"]), (&large.into(), &"NaN".into()));
    assert_eq!(told["n"].as_u64(), Some(u64::MAX));
    fs::write(
        world.path("sweep.yaml"),
        "metric: {name: loss, goal: minimize}\nlow: -.inf\nlr: .nan\n",
    )
    .unwrap();
    world.ok(&["sweep", "create", "p", "--id", "s1", "--config", "sweep.yaml"]);
    let config = world.json(&["sweep", "show", "s1"])["config"].clone();
    assert_eq!((&config["low"], &config["lr"]), (&"-Infinity".into(), &"NaN".into()));
    fs::write(world.path("s.yaml"), format!("metric: {{name: l, goal: minimize}}\nbig: {large}\n"))
        .unwrap();
    let ran = world.run(&["sweep", "create", "p", "--config", "s.yaml"]);
    assert!(ran.code != 0 && ran.err.contains(large), "{}", ran.err);
    let (_, staging) = world.mount();
    let draft = staging.join("p/c");
    fs::create_dir_all(&draft).unwrap();
    let value = b"{\"loss\": NaN}";
    rustix::fs::setxattr(&draft, "user.artifact.metadata", value, rustix::fs::XattrFlags::empty())
        .unwrap();
    fs::write(draft.join("f"), "1").unwrap();
    world.ok(&["commit", "p/c"]);
    assert_eq!(world.json(&["show", "p/c"])["metadata"]["loss"], "NaN");
    world.umount();
}

#[test]
fn names_without_utf8_are_printed_exactly_and_accepted() {
    let world = World::new();
    let root = world.tree("s", &[("d/f", b"1")]);
    let name = std::ffi::OsStr::from_bytes(b"a\xff\x1b[31m");
    fs::create_dir(root.join(name)).unwrap();
    fs::write(root.join(name).join("g"), "2").unwrap();
    world.ok(&["put", "-n", "p/a", "s"]);
    let listed = world.json(&["ls", "p/a:v0/"]);
    assert_eq!(listed[0]["name_hex"], "61ff1b5b33316d");
    assert_eq!(listed[1].get("name_hex"), None);
    let mut argument = std::ffi::OsString::from("p/a:v0/");
    argument.push(name);
    let output = world.command(&["ls"]).arg(&argument).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "g\n", "{output:?}");
    let output = world.command(&["ls", "p/a:v0/"]).output().unwrap();
    // Stdout is no terminal: names are printed byte for byte.
    assert!(output.stdout.starts_with(b"a\xff\x1b[31m/\n"), "{output:?}");
}

#[test]
fn a_lease_keeps_its_many_pins_until_it_ends() {
    let registry = registry();
    let objects = |from: u16, count: u16| -> Vec<NewObject> {
        let object = |number: u16| NewObject {
            digest: Digest::of(ObjectKind::Chunk, &number.to_le_bytes()),
            kind: ObjectKind::Chunk,
            codec: 0,
            body_bytes: 1,
            offset: u64::from(number),
            stored_bytes: 1,
            children: Vec::new(),
        };
        (from..from + count).map(object).collect()
    };
    let lease = registry.begin("put".into(), "a".into(), None).unwrap().lease;
    let pack = PackId([1; 16]);
    registry.register_pack(lease, pack).unwrap();
    let chunks = objects(0, 300);
    let digests: Vec<Digest> = chunks.iter().map(|chunk| chunk.digest).collect();
    let tree = NewObject {
        digest: Digest::of(ObjectKind::Tree, b"t"),
        kind: ObjectKind::Tree,
        offset: 400,
        children: digests.clone(),
        ..objects(0, 1).remove(0)
    };
    let root = tree.digest;
    registry.add_objects(lease, pack, 500, chunks).unwrap();
    registry.add_objects(lease, pack, 500, vec![tree]).unwrap();
    let request = CommitRequest::plain("p/a".parse().unwrap(), root);
    registry.commit(lease, request).unwrap();
    registry.release(lease).unwrap();
    // Many pins at once, then a few; the other objects are not pinned.
    let other = registry.begin("put".into(), "b".into(), None).unwrap().lease;
    assert!(registry.missing(other, digests[..200].to_vec()).unwrap().is_empty());
    assert!(registry.missing(other, digests[200..210].to_vec()).unwrap().is_empty());
    registry.delete("p/a:v0".parse().unwrap(), true).unwrap();
    let bury = || loop {
        let dead = registry.unreachable(100).unwrap();
        if dead.is_empty() {
            break;
        }
        let children = |digest| if digest == root { digests.clone() } else { Vec::new() };
        let batch = dead.into_iter().map(|(digest, _)| (digest, children(digest))).collect();
        registry.collect(batch).unwrap();
    };
    let there = || registry.locate(digests.clone()).unwrap().iter().flatten().count();
    bury();
    assert_eq!(there(), 210);
    registry.release(other).unwrap();
    bury();
    assert_eq!(there(), 0);
}

#[test]
fn a_clock_that_is_years_ahead_expires_nothing() {
    use artifactfs::model::properties::Ttl;
    use artifactfs::model::time::Timestamp;
    use std::sync::atomic::AtomicU64;
    const DAY: u64 = 24 * 3600 * 1000;
    let now = Arc::new(AtomicU64::new(1_000 * DAY));
    let clock = Arc::clone(&now);
    let clock = Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)));
    let registry = EngineRegistry::open(Box::new(MemoryEngine::default()), clock).unwrap();
    commit(&registry, 1, None);
    let ttl = Some(Ttl::After(3 * DAY));
    registry.update("p/a:v0".parse().unwrap(), Update { ttl, ..Update::default() }).unwrap();
    let expire = || registry.expire("p/a".parse().unwrap(), "v0".parse().unwrap());
    now.fetch_add(4_000 * DAY, Ordering::SeqCst);
    assert_eq!(registry.time_to_expire(false).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(expire().unwrap_err().kind(), Kind::Conflict);
    // The clock was put right, and a week has passed.
    now.store(1_007 * DAY, Ordering::SeqCst);
    registry.time_to_expire(false).unwrap();
    now.fetch_add(30 * DAY, Ordering::SeqCst);
    assert_eq!(expire().unwrap_err().kind(), Kind::Conflict);
    registry.time_to_expire(true).unwrap();
    assert!(expire().unwrap().is_some());
}

#[test]
fn a_refused_removal_of_a_run_keeps_its_rows() {
    let world = World::new();
    world.ok(&["run", "start", "-p", "p", "--id", "r1"]);
    world.ok(&["run", "log", "r1", "--metric", "loss=1"]);
    let repository = world.open();
    let registry = &repository.registry;
    let id: artifactfs::model::name::RunId = "r1".parse().unwrap();
    assert_eq!(registry.remove_run(id.clone()).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(registry.rows(id.clone(), 0, 10).unwrap().items.len(), 1);
    registry.end_run(id.clone(), artifactfs::model::run::RunState::Finished, Some(0)).unwrap();
    registry.remove_run(id.clone()).unwrap();
    drop(repository);
    world.ok(&["run", "start", "-p", "p", "--id", "r1"]);
    let repository = world.open();
    assert!(repository.registry.rows(id, 0, 10).unwrap().items.is_empty());
}

#[test]
fn a_table_with_values_in_other_files_is_refused_by_name() {
    let world = World::new();
    let types = r#""column_types":{"wb_type":"typedDict","params":{"type_map":{"n":{"wb_type":"number"},"v":{"wb_type":"ndarray","params":{"shape":[9],"serialization_path":{"key":"v","path":"media/x.npz"}}}}}}"#;
    let data = r#""columns":["n","v"],"data":[[1,null],[2,null]]"#;
    let behind = format!("{{\"_type\":\"table\",{data},{types}}}");
    let before = format!("{{\"_type\":\"table\",{types},{data}}}");
    let plain = format!("{{\"_type\":\"table\",{data}}}");
    world.tree(
        "s",
        &[
            ("b.table.json", behind.as_bytes()),
            ("a.table.json", before.as_bytes()),
            ("p.table.json", plain.as_bytes()),
        ],
    );
    world.ok(&["put", "-n", "p/t", "s"]);
    for name in ["a", "b"] {
        for format in ["text", "json", "csv", "parquet"] {
            let path = format!("p/t:v0/{name}.table.json");
            let ran = world.run(&["table", "show", &path, "--format", format, "--limit", "1"]);
            assert_ne!(ran.code, 0, "{path} as {format}");
            assert_eq!(ran.out, "");
            assert!(ran.err.contains("\"v\"") && ran.err.contains("media/x.npz"), "{}", ran.err);
        }
    }
    assert_eq!(
        world.ok(&["table", "show", "p/t:v0/p.table.json", "--format", "csv"]),
        "n,v\n1,\n2,\n"
    );
}

#[test]
fn empty_variables_count_as_unset_and_quiet_prints_nothing() {
    let world = World::new();
    world.tree("s", &[("f", b"1")]);
    let home = world.path("home");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_artifactfs"));
    command.args(["put", "-q", "-n", "p/a", "s"]).current_dir(world.dir.path());
    command.env("HOME", &home).env("XDG_DATA_HOME", "").env("XDG_CACHE_HOME", "");
    command.env_remove("ARTIFACTFS_REPO");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"");
    assert!(home.join(".local/share/artifactfs").exists());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_artifactfs"));
    command.arg("ls").current_dir(world.dir.path());
    command.env("HOME", "").env("XDG_DATA_HOME", "").env_remove("ARTIFACTFS_REPO");
    assert!(!command.output().unwrap().status.success(), "a repository in no home");
}

#[test]
fn too_small_a_cache_is_refused_and_status_finds_a_mounts_cache() {
    let mut world = World::new();
    fs::create_dir(world.path("m")).unwrap();
    let ran = world.run(&["mount", "--cache-size", "64MB", "m"]);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("too small"), "{}", ran.err);
    world.mount();
    let mut command = world.command(&["--json", "cache", "status"]);
    command.env_remove("ARTIFACTFS_CACHE_DIR").env("XDG_CACHE_HOME", world.path("other"));
    let output = command.output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["directory"], world.path("cache").to_str().unwrap());
    world.umount();
}
