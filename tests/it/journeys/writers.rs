//! Several writers of one version: parts of a group, from real processes, some of them killed.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use artifactfs::model::metadata::Metadata;
use artifactfs::model::name::RunId;
use artifactfs::model::run::{Resume, RunStart};

use rustix::process::{Pid, Signal, kill_process};

use crate::random::Random;
use crate::world::{World, noise, ran, same_tree, until};

const WRITERS: u64 = 16;
const FILES: u64 = 1_000;
/// The number of puts of each writer.
const PUTS: u64 = 4;

fn upsert<'a>(group: &'a str, source: &'a str) -> Vec<&'a str> {
    vec!["put", "--upsert", "--group", group, "-n", "p/a", source]
}

fn finish(group: &str) -> Vec<&str> {
    vec!["finish", "-n", "p/a", "--group", group]
}

/// Repeats a put until it succeeds; earlier ones are killed at random moments. Returns the number
/// of kills.
fn put_with_kills(world: &World, source: &str, seed: u64) -> u64 {
    let mut killed = 0;
    loop {
        let mut put = world.command(&upsert("g", source));
        let mut put = put.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        if Random(seed + killed).below(2) == 0 && killed < 3 {
            std::thread::sleep(Duration::from_micros(Random(seed ^ (killed + 77)).below(120_000)));
            put.kill().unwrap();
        }
        let done = put.wait_with_output().unwrap();
        if done.status.success() {
            return killed;
        }
        assert_eq!(done.status.code(), None, "{}", String::from_utf8_lossy(&done.stderr));
        killed += 1;
    }
}

fn leases(world: &World) -> Vec<String> {
    let leases = world.open().registry.leases().unwrap();
    leases.into_iter().map(|lease| format!("{} by {}", lease.purpose, lease.holder)).collect()
}

#[test]
fn sixteen_writers_with_kills_make_one_version() {
    let world = World::new();
    let expected = world.tree("expected", &[("own/x", b"")]);
    fs::remove_file(expected.join("own/x")).unwrap();
    fs::create_dir(expected.join("shared")).unwrap();
    for number in 0..WRITERS * FILES {
        let (writer, put) = (number % WRITERS, number / WRITERS % PUTS);
        let source = world.path(&format!("w{writer}/{put}"));
        // Half of the files interleave in one directory; half are in a directory for each writer.
        let place = match number % 32 < 16 {
            true => format!("shared/{number:06}"),
            false => format!("own/{writer}/{number}"),
        };
        let bytes = noise(number, 100 + (number % 50) as usize);
        for root in [&source, &expected] {
            let path = root.join(&place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &bytes).unwrap();
        }
        if number < WRITERS * PUTS * 2 {
            fs::write(source.join("last"), format!("{writer}/{put}")).unwrap();
        }
    }
    let kills: u64 = std::thread::scope(|scope| {
        let write = |writer: u64| {
            let world = &world;
            move || -> u64 {
                let put = |put| {
                    let seed = 1_000 * (writer * PUTS + put);
                    put_with_kills(world, &format!("w{writer}/{put}"), seed)
                };
                (0..PUTS).map(put).sum()
            }
        };
        let threads: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
        assert_eq!(world.run(&["ls", "p/a"]).code, 10, "readers see it");
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(kills > 0, "nobody was killed");
    let open = world.json(&["group", "ls", "p/a"]);
    assert_eq!((&open[0]["group"], &open[1]), (&"g".into(), &serde_json::Value::Null));
    assert!(open[0]["parts"].as_u64().unwrap() >= WRITERS * PUTS);
    assert_eq!(world.json(&["status"])["groups"], open);
    assert_eq!(world.run(&["ls", "p/a"]).code, 10, "readers see it");

    let done = world.json(&[&finish("g")[..], &["-a", "best"]].concat());
    assert_eq!((&done["reference"], &done["new_version"]), (&"p/a:v0".into(), &true.into()));
    assert_eq!(done["files"], WRITERS * FILES + 1);
    assert_eq!(leases(&world), Vec::<String>::new());
    world.ok(&["get", "p/a:best", "--root", "out"]);
    let last = fs::read_to_string(world.path("out/last")).unwrap();
    assert!(last.ends_with(&format!("/{}", PUTS - 1)), "{last}");
    fs::write(expected.join("last"), &last).unwrap();
    same_tree(&expected, &world.path("out"));
    let size: u64 = world.json(&["show", "p/a"])["size_bytes"].as_u64().unwrap();
    assert_eq!(done["size_bytes"], size);
    world.sound();
    assert_eq!(world.run(&["verify"]).code, 0);
    // One put of everything gives the same version, with the same nodes.
    let again = world.json(&["put", "-n", "p/a", "expected"]);
    assert_eq!((&again["reference"], &again["stored_bytes"]), (&"p/a:v0".into(), &0.into()));
    assert_eq!(again["digest"], done["digest"]);
    assert_eq!(again["directories"], done["directories"]);
    world.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    world.sound();
    assert_eq!(world.json(&["status"])["store_bytes"], 0, "every byte is freed");
}

#[test]
fn the_last_writer_of_a_path_wins_wholly() {
    let world = World::new();
    world.tree("one", &[("a", b"1"), ("file", b"1"), ("folder/x", b"1"), ("both/1", b"1")]);
    world.tree("two", &[("a", b"2"), ("file/y", b"2"), ("folder", b"2"), ("both/2", b"2")]);
    world.ok(&upsert("g", "one"));
    world.ok(&upsert("g", "two"));
    world.ok(&finish("g"));
    world.ok(&["get", "p/a", "--root", "out"]);
    let two = world.tree("model", &[("both/1", b"1"), ("both/2", b"2")]);
    for (name, bytes) in [("a", "2"), ("folder", "2")] {
        fs::write(two.join(name), bytes).unwrap();
    }
    fs::create_dir(two.join("file")).unwrap();
    fs::write(two.join("file/y"), "2").unwrap();
    same_tree(&two, &world.path("out"));
    // In the other order the other file stays.
    world.ok(&upsert("h", "two"));
    world.ok(&upsert("h", "one"));
    world.ok(&finish("h"));
    world.ok(&["get", "p/a:v1", "--root", "second"]);
    assert_eq!(fs::read(world.path("second/a")).unwrap(), b"1");
    assert_eq!(fs::read(world.path("second/file")).unwrap(), b"1");
    assert!(world.path("second/folder/x").exists() && world.path("second/both/2").exists());
    world.sound();
}

#[test]
fn no_overwrite_refuses_other_content_and_takes_what_is_equal() {
    let world = World::new();
    world.tree("one", &[("d/a", b"1"), ("d/b", b"1"), ("e/f", b"1")]);
    world.tree("same", &[("d/a", b"1"), ("d/c", b"3")]);
    world.tree("other", &[("d/b", b"9"), ("new", b"9")]);
    world.tree("over", &[("d/b/x", b"9")]);
    world.tree("file", &[("e", b"9")]);
    let refusing = |source| [&upsert("g", source)[..], &["--no-overwrite"]].concat();
    world.ok(&refusing("one"));
    world.ok(&refusing("same"));
    for (source, path) in [("other", "d/b"), ("over", "d/b"), ("file", "e")] {
        let refused = world.run(&refusing(source));
        assert_eq!(refused.code, 11, "{source}: {}", refused.out);
        let told = format!("has {path} already");
        assert!(refused.err.contains(&told) && refused.err.contains("hint"), "{}", refused.err);
    }
    assert_eq!(world.json(&["group", "ls", "p/a"])[0]["parts"], 2);
    // Put again without the option. It hides what lay below, so that the same put again overwrites
    // nothing.
    world.ok(&upsert("g", "other"));
    assert_eq!(world.run(&refusing("one")).code, 11);
    world.ok(&refusing("other"));
    // A file hides the folder, so that the folder's files conflict with nothing.
    world.ok(&upsert("g", "file"));
    world.ok(&refusing("file"));
    assert_eq!(world.run(&refusing("one")).code, 11);
    world.ok(&finish("g"));
    world.ok(&["get", "p/a", "--root", "out"]);
    let model: &[(&str, &[u8])] =
        &[("d/a", b"1"), ("d/b", b"9"), ("d/c", b"3"), ("e", b"9"), ("new", b"9")];
    same_tree(&world.tree("model", model), &world.path("out"));
    // A sealed group conflicts with nothing.
    world.ok(&refusing("one"));
    world.sound();
}

#[test]
fn of_many_writers_without_overwrite_one_writes_the_path() {
    let world = World::new();
    let mut puts: Vec<Child> = Vec::new();
    for writer in 0..8u64 {
        let name = format!("w{writer}");
        world.tree(&name, &[("x", &noise(writer, 100)), (&name, b"own")]);
        let args = [&upsert("g", &name)[..], &["--no-overwrite"]].concat();
        let mut put = world.command(&args);
        puts.push(put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    }
    let codes: Vec<_> =
        puts.into_iter().map(|put| ran(put.wait_with_output().unwrap()).code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 11).count(), 7, "{codes:?}");
    assert_eq!(world.json(&finish("g"))["files"], 2);
    world.sound();
}

#[test]
fn a_group_is_sealed_once_and_the_next_part_begins_a_generation() {
    let world = World::new();
    world.tree("one", &[("a", b"1")]);
    world.tree("two", &[("b", b"2")]);
    let first = world.json(&upsert("g", "one"));
    assert_eq!((&first["generation"], &first["group"]), (&1.into(), &"g".into()));
    assert_eq!((first["begins_after"].is_null(), first["reference"].is_null()), (true, true));
    world.ok(&finish("g"));
    for _ in 0..2 {
        let again = world.run(&finish("g"));
        assert_eq!(again.code, 11);
        assert!(again.err.contains("group g was sealed as p/a:v0"), "{}", again.err);
    }
    assert_eq!(world.run(&["group", "discard", "-n", "p/a", "--group", "g"]).code, 11);
    let next = world.run(&upsert("g", "two"));
    assert_eq!(next.code, 0);
    assert!(next.err.contains("sealed as p/a:v0; this begins its next version"), "{}", next.err);
    let more = world.json(&upsert("g", "one"));
    assert_eq!((&more["generation"], more["begins_after"].is_null()), (&2.into(), true));
    let open = world.json(&["group", "ls"]);
    assert_eq!((&open[0]["begins_after"], &open[0]["parts"]), (&"v0".into(), &2.into()));
    assert_eq!(world.json(&finish("g"))["reference"], "p/a:v1");
    assert_eq!(world.json(&["show", "p/a"])["files"], 2);
    // The discard of a generation leaves the group sealed.
    assert_eq!(world.json(&upsert("g", "two"))["begins_after"], "v1");
    world.ok(&["group", "discard", "-n", "p/a", "--group", "g"]);
    assert!(world.run(&finish("g")).err.contains("sealed as p/a:v1"));
    let begun = world.json(&upsert("g", "one"));
    assert_eq!((&begun["generation"], &begun["begins_after"]), (&3.into(), &"v1".into()));
    world.json(&upsert("g", "two"));
    // Equal content makes no new version; the group is sealed as the one that has it.
    let equal = world.json(&[&finish("g")[..], &["-a", "again", "-d", "text"]].concat());
    assert_eq!((&equal["reference"], &equal["new_version"]), (&"p/a:v1".into(), &false.into()));
    assert_eq!(world.json(&["show", "p/a:again"])["description"], "text");
    assert!(world.run(&finish("g")).err.contains("sealed as p/a:v1"));
    world.sound();
}

#[test]
fn readers_and_mounts_see_a_group_when_it_is_finished() {
    let mut world = World::new();
    let (read, _) = world.mount();
    world.tree("one", &[("a", b"1"), ("d/x", b"1")]);
    world.tree("two", &[("b", b"2"), ("d/y", b"2")]);
    world.ok(&upsert("g", "one"));
    world.ok(&upsert("g", "two"));
    assert_eq!(fs::read_dir(&read).unwrap().count(), 0);
    assert!(!read.join("p/a").exists() && !read.join("p/a:latest").exists());
    assert_eq!(world.json(&["ls"]), serde_json::json!([]));
    assert_eq!(world.json(&["group", "ls"])[0]["files"], 4);
    world.ok(&[&finish("g")[..], &["-a", "best"]].concat());
    until("the version is there", || read.join("p/a:best/d/y").exists());
    let model = world.tree("model", &[("a", b"1"), ("d/x", b"1"), ("b", b"2"), ("d/y", b"2")]);
    same_tree(&model, &read.join("p/a:v0"));
    // Parts for the next version are not in this one.
    world.tree("three", &[("c", b"3")]);
    world.ok(&upsert("g", "three"));
    same_tree(&model, &read.join("p/a:latest"));
    world.ok(&finish("g"));
    until("latest has moved", || read.join("p/a:latest/c").exists());
    assert!(!read.join("p/a:latest/a").exists());
    same_tree(&model, &read.join("p/a:v0"));
    world.umount();
    world.sound();
}

#[test]
fn discarding_a_group_frees_exactly_what_only_it_had() {
    let world = World::new();
    let shared = noise(1, 200_000);
    world.tree("version", &[("shared", &shared), ("own", &noise(2, 50_000))]);
    world.tree("part", &[("shared", &shared), ("d/new", &noise(3, 70_000))]);
    world.tree("part2", &[("d/newer", &noise(4, 30_000))]);
    let room = || world.json(&["status"])["store_bytes"].as_u64().unwrap();
    world.ok(&["put", "-n", "p/a", "version"]);
    let before = room();
    let stored = world.json(&upsert("g", "part"))["stored_bytes"].as_u64().unwrap()
        + world.json(&upsert("g", "part2"))["stored_bytes"].as_u64().unwrap();
    assert!(stored > 100_000 && stored < 110_000, "{stored}");
    assert_eq!(room(), before + stored);
    let shown = world.json(&["show", "p/a:v0"]);
    assert!(shown["exclusive_bytes"].as_u64().unwrap() < 60_000, "shared with a group: {shown}");
    let gone = world.json(&["group", "discard", "-n", "p/a", "--group", "g"]);
    assert_eq!((&gone["freed_bytes"], &gone["parts"]), (&stored.into(), &2.into()));
    assert_eq!(room(), before);
    assert_eq!(world.run(&["group", "discard", "-n", "p/a", "--group", "g"]).code, 10);
    world.sound();
    // The version is deleted; the group keeps its parts.
    world.ok(&upsert("g", "part"));
    world.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    world.sound();
    assert_eq!(world.run(&["fsck", "--rebuild"]).code, 0);
    world.sound();
    assert_eq!(world.json(&finish("g"))["reference"], "p/a:v1");
    world.ok(&["get", "p/a", "--root", "out"]);
    same_tree(&world.path("part"), &world.path("out"));
    world.ok(&["delete", "p/a:v1", "--delete-aliases"]);
    assert_eq!(room(), 0);
    world.sound();
}

#[test]
fn invalid_group_requests_are_refused() {
    let world = World::new();
    world.tree("one", &[("a", b"1")]);
    let code = |args: &[&str]| {
        let ran = world.run(args);
        assert!(ran.code == 0 || ran.err.contains("hint") || ran.code == 2, "{}", ran.err);
        ran.code
    };
    assert_eq!(code(&finish("nobody")), 10);
    assert_eq!(code(&["group", "discard", "-n", "p/a", "--group", "nobody"]), 10);
    assert_eq!(code(&["group", "ls", "p/a"]), 10);
    assert_eq!(world.json(&["group", "ls"]), serde_json::json!([]));
    assert_eq!(code(&["put", "--upsert", "-n", "p/a", "one"]), 2);
    assert_eq!(code(&["put", "--group", "g", "-n", "p/a", "one"]), 2);
    assert_eq!(code(&["put", "--no-overwrite", "-n", "p/a", "one"]), 2);
    assert_eq!(code(&upsert("a/b", "one")), 3);
    assert_eq!(code(&finish("a:b")), 3);
    for more in [&["-a", "best"], &["-d", "text"], &["--metadata", "{}"]] {
        let refused = world.run(&[&upsert("g", "one")[..], more].concat());
        assert_eq!(refused.code, 2);
        assert!(refused.err.contains("artifactfs finish"), "{}", refused.err);
    }
    // The type is that of the artifact, or of the first writer.
    let dry = world.json(&[&upsert("g", "one")[..], &["--dry-run"]].concat());
    assert_eq!((&dry["files"], world.json(&["group", "ls"])), (&1.into(), serde_json::json!([])));
    world.ok(&[&upsert("g", "one")[..], &["-t", "model"]].concat());
    assert_eq!(code(&[&upsert("g", "one")[..], &["-t", "code"]].concat()), 11);
    assert_eq!(code(&[&finish("g")[..], &["-t", "code"]].concat()), 11);
    assert_eq!(code(&[&finish("g")[..], &["--expect", "v7"]].concat()), 11);
    let done = world.json(&[&finish("g")[..], &["--metadata", "{\"k\": 1}"]].concat());
    let shown = world.json(&["show", "p/a"]);
    assert_eq!((&shown["type"], &shown["metadata"]["k"]), (&"model".into(), &1.into()));
    assert_eq!(shown["digest"], done["digest"]);
    assert_eq!(code(&[&upsert("h", "one")[..], &["-t", "dataset"]].concat()), 11);
    assert_eq!(world.json(&["group", "ls", "p/a"]), serde_json::json!([]));
    world.sound();
}

#[test]
fn a_killed_finish_is_done_or_leaves_the_group_open_and_whole() {
    let world = World::new();
    for part in 0..6u64 {
        let root = world.tree(&format!("w{part}"), &[]);
        for number in (part..3_000).step_by(6) {
            fs::write(root.join(format!("{number:05}")), number.to_string()).unwrap();
        }
    }
    for round in 0..12u64 {
        for part in 0..6 {
            world.ok(&upsert("g", &format!("w{part}")));
        }
        // Each round makes another version.
        fs::write(world.path("w0/round"), round.to_string()).unwrap();
        world.ok(&upsert("g", "w0"));
        let mut killed = world.start(&finish("g"));
        std::thread::sleep(Duration::from_micros(Random(round).below(60_000)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        world.sound();
        let done = world.run(&finish("g"));
        let sealed = format!("sealed as p/a:v{round}");
        assert!(done.code == 0 || done.err.contains(&sealed), "{round}: {}", done.err);
        let shown = world.json(&["show", "p/a:latest"]);
        assert_eq!(shown["reference"], format!("p/a:v{round}"));
        assert_eq!(shown["files"], 3_001);
    }
    world.ok(&["get", "p/a:v5", "--root", "out"]);
    assert_eq!(fs::read(world.path("out/round")).unwrap(), b"5");
    assert_eq!(fs::read(world.path("out/02999")).unwrap(), b"2999");
    world.sound();
}

#[test]
fn parts_added_during_a_finish_are_in_this_or_the_next_version() {
    let world = World::new();
    world.tree("first", &[("first", b"1")]);
    world.ok(&upsert("g", "first"));
    let mut puts: Vec<Child> = Vec::new();
    let mut finishes: Vec<Child> = Vec::new();
    let begin = |args: &[&str]| {
        let mut command = world.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for writer in 0..12 {
        let name = format!("w{writer}");
        world.tree(&name, &[(&name, b"x"), (&format!("d/{writer}"), b"x")]);
        puts.push(begin(&upsert("g", &name)));
        if writer % 4 == 1 {
            finishes.push(begin(&finish("g")));
        }
    }
    for put in puts {
        let ran = ran(put.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let mut versions = 0;
    for finish in finishes {
        let ran = ran(finish.wait_with_output().unwrap());
        assert!(ran.code == 0 || ran.err.contains("was sealed as"), "{}", ran.err);
        versions += u64::from(ran.code == 0);
    }
    let rest = world.run(&finish("g"));
    assert!(rest.code == 0 || rest.err.contains("was sealed as"), "{}", rest.err);
    versions += u64::from(rest.code == 0);
    let listed = world.json(&["ls", "p/a"]);
    assert_eq!(listed.as_array().unwrap().len() as u64, versions);
    let mut found = BTreeSet::new();
    let mut files = 0;
    for version in listed.as_array().unwrap() {
        let reference = version["reference"].as_str().unwrap();
        files += version["files"].as_u64().unwrap();
        for entry in world.json(&["ls", reference]).as_array().unwrap() {
            found.insert(entry["name"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!((found.len(), files), (14, 25), "{found:?}");
    assert_eq!(leases(&world), Vec::<String>::new());
    world.sound();
}

#[test]
fn writers_outlive_the_daemon_they_write_through() {
    let mut world = World::new();
    world.mount();
    let daemon = Pid::from_raw(world.daemon()).unwrap();
    let mut puts: Vec<Child> = Vec::new();
    for writer in 0..8u64 {
        let name = format!("w{writer}");
        let root = world.tree(&name, &[]);
        for number in 0..50 {
            let at = root.join(format!("{writer}-{number}"));
            fs::write(at, noise(writer * 50 + number, 20_000)).unwrap();
        }
        let mut put = world.command(&upsert("g", &name));
        puts.push(put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    }
    until("a part is there", || world.json(&["group", "ls"])[0]["parts"].as_u64() > Some(0));
    kill_process(daemon, Signal::KILL).unwrap();
    for put in puts {
        let ran = ran(put.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    assert_eq!(world.json(&["group", "ls"])[0]["parts"], 8);
    assert_eq!(world.json(&finish("g"))["files"], 400);
    assert_eq!(leases(&world), Vec::<String>::new());
    world.sound();
    assert_eq!(world.run(&["verify"]).code, 0);
}

#[test]
fn concurrent_finishes_of_a_group_commit_once() {
    let world = World::new();
    world.tree("one", &[("a", b"1")]);
    world.tree("two", &[("b", b"1")]);
    world.ok(&upsert("g", "one"));
    world.ok(&upsert("g", "two"));
    let begin = |_| {
        let mut command = world.command(&finish("g"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<Child> = (0..6).map(begin).collect();
    let mut done = 0;
    for child in all {
        let ran = ran(child.wait_with_output().unwrap());
        done += u64::from(ran.code == 0);
        assert!(ran.code == 0 || (ran.code == 11 && ran.err.contains("p/a:v0")), "{}", ran.err);
    }
    assert_eq!(done, 1);
    world.sound();
}

#[test]
fn the_run_that_finishes_a_group_logs_the_version() {
    let mut world = World::new();
    world.tree("one", &[("a", b"1")]);
    let [writes, finishes]: [RunId; 2] = ["writes", "finishes"].map(|id| id.parse().unwrap());
    {
        let repository = world.open();
        for id in [&writes, &finishes] {
            let start = RunStart {
                id: id.clone(),
                project: "p".parse().unwrap(),
                name: None,
                group: None,
                job_type: None,
                sweep: None,
                config: Metadata::default(),
                holder: None,
                command: Vec::new(),
                token: 1,
            };
            repository.registry.begin_run(start, Resume::Never).unwrap();
        }
    }
    world.env.push(("ARTIFACTFS_RUN", "writes".into()));
    world.ok(&upsert("g", "one"));
    assert_eq!(world.json(&["group", "ls"])[0]["writer"], "run writes");
    world.env[0].1 = "finishes".into();
    world.ok(&finish("g"));
    world.env[0].1 = "nobody".into();
    assert_eq!(world.run(&upsert("g", "one")).code, 10);
    world.env.clear();
    let registry = std::sync::Arc::clone(&world.open().registry);
    let path = || "p/a".parse().unwrap();
    let number = "v0".parse().unwrap();
    assert_eq!(registry.logger(path(), number).unwrap(), Some(finishes));
    assert_eq!(registry.edges(writes, true, None, 100).unwrap().items, Vec::new());
}
