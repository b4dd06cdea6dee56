//! The graph of runs and versions; sweeps; code.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::{Ran, World, host, ran, same_tree};

const ARTIFACTFS: &str = env!("CARGO_BIN_EXE_artifactfs");

/// Runs a shell script in which `$A` is the program, as a run of project `p`.
fn in_run(world: &World, id: &str, script: &str) -> Ran {
    let mut command = world.command(&["run", "-p", "p", "--id", id, "--", "sh", "-ec", script]);
    let done = ran(command.env("A", ARTIFACTFS).output().unwrap());
    assert_eq!(done.code, 0, "{id}: {}", done.err);
    done
}

/// Makes the chain data → prepare → clean → train → model → evaluate, and train → log.
fn chain(world: &World) {
    world.tree("raw", &[("x", b"raw")]);
    world.ok(&["put", "-n", "p/data", "raw"]);
    in_run(
        world,
        "prepare",
        r#""$A" get p/data --root a; echo clean > a/x; "$A" put -n p/clean a"#,
    );
    let train = r#""$A" get p/clean --root b; echo w > b/x; "$A" put -n p/model -t model b
        echo l > b/x; "$A" put -n p/log b"#;
    in_run(world, "train", train);
    in_run(world, "evaluate", r#""$A" get p/model --root c"#);
}

#[test]
fn the_graph_is_walked_up_and_down() {
    let world = World::new();
    chain(&world);
    let text = world.ok(&["lineage", "p/model"]);
    let wanted = "p/model:v0
  <- run train (finished)
    <- p/clean:v0
      <- run prepare (finished)
        <- p/data:v0
  -> run evaluate (finished)
";
    assert_eq!(text, wanted);
    let near = world.run(&["lineage", "p/model", "--depth", "2"]);
    assert_eq!(near.out.lines().count(), 4, "{}", near.out);
    assert!(near.err.contains("more than is shown"), "{}", near.err);
    let down = world.json(&["lineage", "p/data:v0"]);
    let names: Vec<_> = down["nodes"].as_array().unwrap().iter().map(name).collect();
    for all in ["p/data:v0", "prepare", "p/clean:v0", "train", "p/model:v0", "p/log:v0", "evaluate"]
    {
        assert!(names.iter().any(|name| name == all), "{all} in {names:?}");
    }
    assert_eq!(down["edges"].as_array().unwrap().len(), 6);
    assert_eq!(down["complete"], true);
    let dot = world.ok(&["lineage", "p/model", "--format", "dot"]);
    assert!(
        dot.starts_with("digraph lineage {\n") && dot.contains("label=\"p/clean:v0\""),
        "{dot}"
    );
    let mermaid = world.ok(&["lineage", "p/model", "--format", "mermaid"]);
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains(" --> "), "{mermaid}");
}

fn name(node: &Value) -> String {
    node["reference"].as_str().or(node["id"].as_str()).unwrap().to_owned()
}

#[test]
fn a_picture_is_drawn_if_graphviz_is_installed() {
    let world = World::new();
    chain(&world);
    let args = ["lineage", "p/model", "--format", "svg"];
    if Command::new("dot").arg("-V").output().is_ok() {
        let svg = world.ok(&args);
        assert!(svg.contains("<svg") && svg.contains("p/clean:v0"), "{svg}");
    }
    let none = ran(world.command(&args).env("PATH", world.path("nowhere")).output().unwrap());
    assert_ne!(none.code, 0);
    assert!(none.err.contains("Graphviz") && none.err.contains("mermaid"), "{}", none.err);
}

#[test]
fn deleted_versions_keep_their_place_in_the_graph() {
    let world = World::new();
    chain(&world);
    world.ok(&["delete", "p/clean:v0", "--delete-aliases"]);
    let text = world.ok(&["lineage", "p/model"]);
    assert!(text.contains("<- p/clean:v0 (deleted)\n      <- run prepare"), "{text}");
    let own = world.ok(&["lineage", "p/clean:v0"]);
    assert!(own.starts_with("p/clean:v0 (deleted)\n") && own.contains("-> run train"), "{own}");
    assert_eq!(world.json(&["logged-by", "p/clean:v0"])["id"], "prepare");
    assert_eq!(world.json(&["used-by", "p/clean:v0"])[0]["id"], "train");
    assert_eq!(world.json(&["run", "used", "train"])[0]["deleted"], true);
    assert_eq!(world.run(&["lineage", "p/clean:v7"]).code, 10);
    // The removal of a run leaves the versions that it logged.
    world.ok(&["runs", "rm", "train"]);
    assert_eq!(world.run(&["logged-by", "p/model:v0"]).code, 10);
    assert_eq!(world.json(&["used-by", "p/clean:v0"]), serde_json::json!([]));
    world.ok(&["show", "p/model:v0"]);
    world.sound();
}

#[test]
fn equal_content_is_logged_by_its_first_run_only() {
    let world = World::new();
    chain(&world);
    // The run used what it puts: if that were logged again, the graph would have a cycle.
    in_run(&world, "copy", r#""$A" get p/model --root d; "$A" put -n p/model d"#);
    assert_eq!(world.json(&["logged-by", "p/model:v0"])["id"], "train");
    assert_eq!(world.json(&["run", "logged", "copy"]), serde_json::json!([]));
}

#[test]
fn the_best_run_of_a_sweep_and_its_versions_are_found() {
    let world = World::new();
    world.tree(
        "conf",
        &[("sweep.yaml", b"method: bayes\nmetric:\n  name: val_acc\n  goal: maximize\n")],
    );
    let created = world.json(&["sweep", "create", "p", "--config", "conf/sweep.yaml"]);
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["metric"], "val_acc");
    assert_eq!(created["config"]["method"], "bayes");
    for (run, acc) in [("a", "0.7"), ("b", "0.9"), ("c", "nan"), ("d", "inf"), ("e", "0.8")] {
        let script = format!(
            r#"echo {run} > w-{run}; "$A" put -n p/model -t model w-{run}
            "$A" run log --summary val_acc={acc}"#
        );
        let mut command = world.command(&["run", "--sweep", id, "--id", run, "--"]);
        let done = command.args(["sh", "-ec", &script]).env("A", ARTIFACTFS).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    world.ok(&["run", "start", "--sweep", id, "--id", "f"]);
    let shown = world.json(&["sweep", "show", id]);
    let order: String =
        shown["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert!(order.starts_with("bea"), "{order}");
    assert_eq!(shown["runs"].as_array().unwrap().len(), 6);
    let best = world.json(&["sweep", "best", id, "--artifacts", "--get", "best"]);
    assert_eq!(best["id"], "b");
    assert_eq!(best["artifacts"][0]["reference"], "p/model:v1");
    assert_eq!(fs::read(world.path("best/model@v1/w-b")).unwrap(), b"b\n");
    assert_eq!(world.json(&["sweep", "ls", "p"])[0]["id"], *id);
    let fewest = world.ok(&["sweep", "create", "p", "--metric", "loss", "--goal", "minimize"]);
    let none = world.run(&["sweep", "best", fewest.trim()]);
    assert_eq!(none.code, 10, "{}", none.err);
}

fn git(tree: &Path, args: &[&str]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(tree).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let done = command.args(args).output().unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_code_of_a_run_is_saved() {
    let world = World::new();
    let tree = world.tree("work", &[("src/train.sh", b"echo trained\n"), ("data.bin", b"x")]);
    git(&tree, &["init", "-q", "-b", "topic"]);
    git(&tree, &["add", "."]);
    git(&tree, &["commit", "-q", "-m", "first"]);
    git(&tree, &["remote", "add", "origin", "https://me:secret@example.org/r.git"]);
    let run = |id: &str, folder: &Path, args: &[&str]| {
        let mut command = world.command(&["run", "-p", "p", "--id", id, "--save-code", "--"]);
        let done = ran(command.args(args).current_dir(folder).output().unwrap());
        assert_eq!(done.code, 0, "{}", done.err);
        done
    };
    run("clean", &tree, &["sh", "src/train.sh"]);
    let code = world.json(&["show", "p/source-p-src_train.sh"]);
    assert_eq!((code["type"].as_str(), code["files"].as_u64()), (Some("code"), Some(1)));
    let git_state = &code["metadata"]["git"];
    assert_eq!(git_state["branch"], "topic");
    assert_eq!(git_state["remote"], "https://example.org/r.git");
    assert_eq!(git_state["commit"].as_str().unwrap().len(), 40);
    assert_eq!(world.json(&["run", "logged", "clean"]).as_array().unwrap().len(), 1);
    // The differences from the commit are saved as a patch that restores them.
    fs::write(tree.join("src/train.sh"), "echo trained better\n").unwrap();
    fs::write(tree.join("data.bin"), b"\0\x01binary").unwrap();
    run("dirty", &tree.join("src"), &["sh", "train.sh"]);
    world.ok(&["get", "p/source-p-src_train.sh:v1", "--root", "saved"]);
    assert_eq!(fs::read(world.path("saved/src/train.sh")).unwrap(), b"echo trained better\n");
    let patch = world.path("saved/diff.patch");
    let again = world.path("again");
    host("git", &[Path::new("clone"), Path::new("-q"), &tree, &again]);
    git(&again, &["apply", patch.to_str().unwrap()]);
    same_tree(&tree.join("src"), &again.join("src"));
    assert_eq!(fs::read(again.join("data.bin")).unwrap(), b"\0\x01binary");
    // Outside a work tree only the script is saved; a command without a script is no error.
    let plain = tempfile::tempdir().unwrap();
    fs::write(plain.path().join("nb.ipynb"), "{}").unwrap();
    run("plain", plain.path(), &["cat", "nb.ipynb"]);
    assert_eq!(world.json(&["show", "p/source-p-nb.ipynb"])["files"], 1);
    let none = run("none", plain.path(), &["true"]);
    assert!(none.err.contains("no code to save"), "{}", none.err);
}

#[test]
fn code_is_put_without_the_files_that_git_ignores() {
    let world = World::new();
    let files: &[(&str, &[u8])] = &[
        (".gitignore", b"*.log\n!keep.log\n/build\n"),
        (".artifactfsignore", b"big/\n"),
        ("main.py", b"1"),
        ("a.log", b"1"),
        ("keep.log", b"1"),
        ("build/x", b"1"),
        ("big/x", b"1"),
        ("sub/.gitignore", b"local\n"),
        ("sub/local", b"1"),
        ("sub/build", b"1"),
        ("sub/.hg/x", b"1"),
        ("excluded", b"1"),
    ];
    let tree = world.tree("work", files);
    git(&tree, &["init", "-q"]);
    fs::write(tree.join(".git/info/exclude"), "excluded\n").unwrap();
    let names = |reference: &str, folder: &str| {
        world.ok(&["get", reference, "--root", folder]);
        let mut names = Vec::new();
        walk(&world.path(folder), Path::new(""), &mut names);
        names.sort();
        names.join(" ")
    };
    world.ok(&["put", "-n", "p/code", "-t", "code", "work"]);
    let code = ".artifactfsignore .gitignore keep.log main.py sub/.gitignore sub/build";
    assert_eq!(names("p/code", "code"), code);
    // The exclusion stays if the type is not given again, and also applies in a subfolder.
    fs::write(tree.join("main.py"), "2").unwrap();
    world.ok(&["put", "-n", "p/code", "work"]);
    assert_eq!(names("p/code:v1", "code1"), code);
    fs::write(tree.join("sub/b.log"), "1").unwrap();
    world.ok(&["put", "-n", "p/part", "-t", "code", "work/sub"]);
    assert_eq!(names("p/part", "part"), ".gitignore build");
    // A dataset has everything but what its own ignore file names.
    world.ok(&["put", "-n", "p/data", "work"]);
    let data = names("p/data", "data");
    assert!(data.contains("a.log") && data.contains(".git/HEAD") && data.contains("sub/.hg/x"));
    assert!(!data.contains("big/x"), "{data}");
}

fn walk(root: &Path, below: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        match root.join(&path).is_dir() {
            true => walk(root, &path, names),
            false => names.push(path.display().to_string()),
        }
    }
}
