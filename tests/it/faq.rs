//! The questions that users of W&B Artifacts ask most, one test each: the commands, and their
//! effect.

use std::fs;
use std::path::Path;

use crate::web::Web;
use crate::world::{Ran, World, noise, ran, same_tree};

const ARTIFACTFS: &str = env!("CARGO_BIN_EXE_artifactfs");

/// Runs a shell script in which `$A` is the program.
fn shell(world: &World, args: &[&str], script: &str) -> Ran {
    let mut command = world.command(args);
    let done = ran(command.args(["sh", "-ec", script]).env("A", ARTIFACTFS).output().unwrap());
    assert_eq!(done.code, 0, "{script}: {}", done.err);
    done
}

fn references(edges: &serde_json::Value) -> Vec<&str> {
    edges.as_array().unwrap().iter().map(|edge| edge["reference"].as_str().unwrap()).collect()
}

#[test]
fn how_do_i_update_an_artifact() {
    let world = World::new();
    world.tree("data", &[("a", b"1")]);
    world.ok(&["put", "-n", "p/data", "--metadata", "{\"rows\": 1}", "data"]);
    // The properties of a version can be changed …
    world.ok(&["update", "p/data", "--description", "new words", "--set", "rows=2"]);
    world.ok(&["alias", "add", "p/data", "checked"]);
    let shown = world.json(&["show", "p/data:checked"]);
    assert_eq!(
        (&shown["description"], &shown["metadata"]["rows"]),
        (&"new words".into(), &2.into())
    );
    // … but its files cannot: changed files make the next version, and the old one stays.
    fs::write(world.path("data/a"), b"2").unwrap();
    assert_eq!(world.json(&["put", "-n", "p/data", "data"])["reference"], "p/data:v1");
    assert_eq!(world.json(&["show", "p/data:checked"])["version"], "v0");
}

#[test]
fn how_do_i_log_an_artifact_to_an_existing_run() {
    let world = World::new();
    world.tree("late", &[("report", b"fine")]);
    shell(&world, &["run", "-p", "p", "--id", "train-7", "--"], "true");
    let resumed = ["run", "--id", "train-7", "--resume", "allow", "--"];
    shell(&world, &resumed, r#""$A" put -n p/report late"#);
    let logged = world.json(&["run", "logged", "train-7"]);
    assert_eq!(references(&logged), ["p/report:v0"]);
    assert_eq!(world.json(&["runs", "show", "train-7"])["state"], "finished");
}

#[test]
fn how_do_i_log_an_artifact_without_a_run() {
    let world = World::new();
    world.tree("data", &[("a", b"1")]);
    assert_eq!(world.json(&["put", "-n", "p/data", "data"])["new_version"], true);
    let nobody = world.run(&["logged-by", "p/data"]);
    assert!(nobody.code == 10 && nobody.err.contains("no run logged p/data:v0"), "{}", nobody.err);
}

#[test]
fn how_do_i_download_an_artifact_outside_of_a_run() {
    let mut world = World::new();
    let source = world.tree("data", &[("a", b"1"), ("d/b", b"2")]);
    world.ok(&["put", "-n", "p/data", "data"]);
    world.ok(&["get", "p/data", "--root", "here"]);
    same_tree(&source, &world.path("here"));
    let (mount, _) = world.mount();
    same_tree(&source, &mount.join("p/data:latest"));
    assert_eq!(world.json(&["used-by", "p/data"]), serde_json::json!([]));
}

#[test]
fn how_do_i_clean_up_unused_versions() {
    let world = World::new();
    for text in ["1", "2", "3", "4"] {
        world.tree("data", &[("a", text.as_bytes())]);
        world.ok(&["put", "-n", "p/data", "data"]);
    }
    world.ok(&["alias", "add", "p/data:v1", "baseline"]);
    let plan = world.json(&["prune", "p/data", "--dry-run"]);
    assert_eq!(plan["versions"], serde_json::json!(["p/data:v0", "p/data:v2"]));
    world.ok(&["prune", "p/data"]);
    let left = world.json(&["ls", "p/data"]);
    let left: Vec<_> = left.as_array().unwrap().iter().map(|v| v["version"].clone()).collect();
    assert_eq!(left, ["v1", "v3"]);
}

#[test]
fn how_do_i_walk_the_graph() {
    let world = World::new();
    world.tree("data", &[("a", b"1")]);
    world.ok(&["put", "-n", "p/data", "data"]);
    let train = r#""$A" get p/data --root in; echo w > in/w; "$A" put -n p/model -t model in"#;
    shell(&world, &["run", "-p", "p", "--id", "train", "--"], train);
    // From a version to the run that logged it, and to what that run used; then the other way.
    let run = world.json(&["logged-by", "p/model"]);
    let used = world.json(&["run", "used", run["id"].as_str().unwrap()]);
    assert_eq!(references(&used), ["p/data:v0"]);
    let run = world.json(&["used-by", "p/data:v0"]);
    let logged = world.json(&["run", "logged", run[0]["id"].as_str().unwrap()]);
    assert_eq!(references(&logged), ["p/model:v0"]);
    let graph = world.ok(&["lineage", "p/model"]);
    assert_eq!(graph, "p/model:v0\n  <- run train (finished)\n    <- p/data:v0\n");
}

#[test]
fn how_do_i_clean_the_cache() {
    let world = World::new();
    let source = world.tree("data", &[("big", &noise(1, 3_000_000))]);
    world.ok(&["put", "-n", "p/data", "data"]);
    let web = Web::start(&world.repo().join("store"));
    world.ok(&["copy-store", "file:store", &web.url(), "--use"]);
    // All of it is cached when the command returns.
    world.ok(&["prefetch", "p/data"]);
    let size = || world.json(&["cache", "status"])["bytes"].as_u64().unwrap();
    assert!(size() > 3_000_000);
    world.ok(&["cache", "cleanup", "1GB"]);
    assert!(size() > 3_000_000, "a cache below that size stays");
    world.ok(&["cache", "cleanup", "0"]);
    assert_eq!(size(), 0);
    // It costs time and nothing else.
    world.ok(&["get", "p/data", "--root", "again"]);
    same_tree(&source, &world.path("again"));
}

#[test]
fn how_do_many_processes_log_one_artifact() {
    let world = World::new();
    let mut expected = Vec::new();
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let name = format!("part-{writer}");
            let parts = world.tree(&name, &[(name.as_str(), name.as_bytes())]);
            expected.push(name.clone());
            let parts = parts.to_str().unwrap();
            world.start(&["put", "--upsert", "--group", "g", "-n", "p/parallel-artifact", parts])
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    // The version is visible only after the group was finished, which is possible once.
    assert_eq!(world.run(&["show", "p/parallel-artifact"]).code, 10);
    let finish = ["finish", "-n", "p/parallel-artifact", "--group", "g", "-a", "whole"];
    assert_eq!(world.json(&finish)["reference"], "p/parallel-artifact:v0");
    assert_eq!(world.run(&finish).code, 11);
    world.ok(&["get", "p/parallel-artifact:whole", "--root", "got"]);
    for name in expected {
        assert_eq!(fs::read(world.path("got").join(&name)).unwrap(), name.as_bytes());
    }
}

#[test]
fn how_do_i_find_the_best_run_of_a_sweep_and_what_it_logged() {
    let world = World::new();
    let sweep = world.ok(&["sweep", "create", "p", "--metric", "val_acc", "--goal", "maximize"]);
    let sweep = sweep.trim();
    for (id, acc) in [("a", "0.5"), ("b", "0.93"), ("c", "0.7")] {
        let script = format!(
            r#"echo {id} > w; "$A" put -n p/model w; "$A" run log --summary val_acc={acc}"#
        );
        shell(&world, &["run", "--sweep", sweep, "--id", id, "--"], &script);
    }
    let best = world.json(&["sweep", "best", sweep, "--artifacts", "--get", "best"]);
    assert_eq!(best["id"], "b");
    assert_eq!(references(&best["artifacts"]), ["p/model:v1"]);
    assert_eq!(fs::read(world.path("best/model@v1/w")).unwrap(), b"b\n");
}

#[test]
fn how_do_i_save_code() {
    let world = World::new();
    let folder = world.tree("work", &[("train.sh", b"echo trained\n")]);
    let run = ["run", "-p", "p", "--id", "r", "--save-code", "--", "sh", "train.sh"];
    let done = ran(world.command(&run).current_dir(&folder).output().unwrap());
    assert_eq!((done.code, done.out.as_str()), (0, "trained\n"), "{}", done.err);
    let logged = world.json(&["run", "logged", "r"]);
    let [code] = references(&logged)[..] else { panic!("{logged}") };
    world.ok(&["get", code, "--root", "saved"]);
    let shown = world.json(&["show", code]);
    assert_eq!(shown["type"], "code");
    let program = shown["metadata"]["program"].as_str().unwrap();
    assert_eq!(fs::read(world.path("saved").join(program)).unwrap(), b"echo trained\n");
}

#[test]
fn where_are_files_stored() {
    let world = World::new();
    world.tree("data", &[("a", &noise(1, 100_000)), ("b", &noise(1, 100_000))]);
    world.ok(&["put", "-n", "p/data", "data"]);
    // Below the repository, or in the store that `init --store` names; equal content is stored
    // once.
    let status = world.json(&["status"]);
    assert_eq!(status["repository"], world.repo().to_str().unwrap());
    assert_eq!(status["store"], "file:store");
    let stored = bytes_below(&world.repo().join("store/packs"));
    assert!((100_000..150_000).contains(&stored), "{stored}");
}

fn bytes_below(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        sum += if path.is_dir() { bytes_below(&path) } else { fs::metadata(&path).unwrap().len() };
    }
    sum
}

#[test]
fn when_are_files_deleted() {
    let world = World::new();
    world.tree("data", &[("a", &noise(1, 500_000)), ("b", &noise(2, 300_000))]);
    world.ok(&["put", "-n", "p/data", "data"]);
    fs::remove_file(world.path("data/b")).unwrap();
    world.ok(&["put", "-n", "p/data", "data"]);
    let live = || world.json(&["status"])["store_bytes"].as_u64().unwrap();
    let before = live();
    // Files go at once with the last version that has them, and no other file goes with them.
    let told = world.json(&["delete", "p/data:v0", "--delete-aliases"]);
    assert!(told["freed_bytes"].as_u64().unwrap() >= 300_000, "{told}");
    let after = live();
    assert!(before - after >= 300_000 && after >= 500_000, "{before} {after}");
    world.ok(&["get", "p/data", "--root", "got"]);
    assert_eq!(fs::read(world.path("got/a")).unwrap(), noise(1, 500_000));
    world.ok(&["delete", "p/data:v1", "--delete-aliases"]);
    assert_eq!(live(), 0);
}
