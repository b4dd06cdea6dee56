//! Runs: a command's own view, what it uses and logs, and how it ends.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use artifactfs::client::Client;
use artifactfs::registry::prelude::*;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, host, until};

const ARTIFACTFS: &str = env!("CARGO_BIN_EXE_artifactfs");

/// Makes a world with a mount. Shells find the program as `$A`, the versions below `$M` and drafts
/// below `$S`.
fn world() -> World {
    let mut world = World::new();
    let (read, staging) = world.mount();
    world.env.push(("A", OsString::from(ARTIFACTFS)));
    world.env.push(("M", read.into_os_string()));
    world.env.push(("S", staging.into_os_string()));
    world
}

/// Puts `p/<artifact>` with one file `x` that holds `text`.
fn put(world: &World, artifact: &str, text: &str) {
    let name = format!("p/{artifact}");
    let source = world.tree(&format!("src-{artifact}-{text}"), &[("x", text.as_bytes())]);
    world.ok(&["put", "-n", &name, source.to_str().unwrap()]);
}

/// Runs a shell script as a run with this id.
fn in_run(world: &World, id: &str, script: &str) -> crate::world::Ran {
    world.run(&["run", "-p", "p", "--id", id, "--", "sh", "-ec", script])
}

fn references(world: &World, which: &str, id: &str) -> BTreeSet<String> {
    let edges = world.json(&["run", which, id]);
    let edges = edges.as_array().unwrap();
    edges.iter().map(|edge| edge["reference"].as_str().unwrap().to_owned()).collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn state(world: &World, id: &str) -> String {
    world.json(&["runs", "show", id])["state"].as_str().unwrap().to_owned()
}

/// Starts a run whose script prints `ready` and goes on.
fn start(world: &World, id: &str, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    // A shell cannot trap a signal that was ignored when the tests began, as in a script's
    // background.
    let shell = ["env", "--default-signal", "sh", "-ec", script];
    let mut command = world.command(&[&["run", "-p", "p", "--id", id, "--"], &shell[..]].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

fn rest(mut out: impl Read) -> String {
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    text
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn what_a_command_reads_and_logs_is_recorded() {
    let world = world();
    put(&world, "data", "one");
    put(&world, "data", "two");
    put(&world, "other", "three");
    world.ok(&["alias", "add", "p/data:v0", "best"]);
    let script = r#"
        cat "$M/p/data:best/x"; cat "$M/p/data:latest/x" "$ARTIFACTFS_ROOT/p/data:latest/x"
        ls "$M/p" >&2; stat "$M/p/other:v0" >&2
        mkdir out; echo weights > out/w
        "$A" put -n p/model -t model out
        mkdir "$S/p/drafted"; echo d > "$S/p/drafted/d"; mv "$S/p/drafted" "$S/p/drafted:good"
        mkdir "$S/p/other2"; echo d > "$S/p/other2/d"; "$A" commit p/other2
        "$A" get p/data:v1 --root got >/dev/null
        "$A" run log --summary val_acc=0.93 --metric loss=0.5 --config epochs=3
        "$A" run log --metric loss=0.25
        exit 3"#;
    let ran = world.run(&[
        "run",
        "-p",
        "p",
        "--id",
        "r1",
        "--name",
        "first",
        "--group",
        "g",
        "--job-type",
        "train",
        "--config",
        "lr=0.1",
        "--",
        "sh",
        "-ec",
        script,
    ]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.out.starts_with("onetwotwo"), "{}", ran.out);
    assert_eq!(references(&world, "used", "r1"), set(&["p/data:v0", "p/data:v1"]));
    let logged = set(&["p/drafted:v0", "p/model:v0", "p/other2:v0"]);
    assert_eq!(references(&world, "logged", "r1"), logged);
    let run = world.json(&["runs", "show", "r1", "--metrics"]);
    assert_eq!(run["state"], "failed");
    assert_eq!(run["exit_code"], 3);
    assert_eq!(run["config"], serde_json::json!({ "lr": 0.1, "epochs": 3 }));
    assert_eq!(run["summary"], serde_json::json!({ "loss": 0.25, "val_acc": 0.93 }));
    assert_eq!(run["metrics"].as_array().unwrap().len(), 2);
    assert_eq!(run["used"][0]["alias"], "best");
    assert_eq!(world.json(&["logged-by", "p/model"])["id"], "r1");
    assert_eq!(world.json(&["used-by", "p/data:v0"])[0]["id"], "r1");
    assert_eq!(world.json(&["used-by", "p/other"]), serde_json::json!([]));
    // Outside a run nothing is recorded.
    world.ok(&["get", "p/other", "--root", "elsewhere"]);
    fs::read(world.path("mnt/p/other:latest/x")).unwrap();
    assert_eq!(world.json(&["used-by", "p/other"]), serde_json::json!([]));
    world.sound();
}

#[test]
fn an_alias_keeps_the_version_of_a_runs_first_lookup() {
    let world = world();
    put(&world, "data", "old");
    let script = r#"cat "$M/p/data:latest/x" > first; echo ready; read go
        cat "$M/p/data:latest/x" "$M/p/data:latest/x" "$M/p/data@latest/x"
        ls "$M/p/data:latest/"; "$A" get p/data --root got > /dev/null; cat got/x"#;
    let (mut child, out) = start(&world, "r", script);
    put(&world, "data", "new");
    until("outside it has moved", || {
        fs::read(world.path("mnt/p/data:latest/x")).is_ok_and(|bytes| bytes == b"new")
    });
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(rest(out), "oldoldoldx\nold");
    assert!(child.wait().unwrap().success());
    assert_eq!(references(&world, "used", "r"), set(&["p/data:v0"]));
    // A deleted version is gone for the run, too: its name never shows another version.
    world.ok(&["delete", "p/data:v0"]);
    let again = r#"cat "$M/p/data:latest/x""#;
    let ran = world.run(&["run", "--id", "r", "--resume", "must", "--", "sh", "-ec", again]);
    assert_ne!(ran.code, 0, "{}", ran.out);
}

#[test]
fn signals_and_exit_codes_pass_through() {
    let world = world();
    for (number, wanted) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1")] {
        let id = format!("r-{wanted}");
        let script = format!(
            "trap 'echo got {wanted}; exit 7' {wanted}; echo ready; while :; do sleep 0.02; done"
        );
        let (mut child, out) = start(&world, &id, &script);
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert_eq!(rest(out), format!("got {wanted}\n"));
        assert_eq!(state(&world, &id), "failed");
    }
    let ran = in_run(&world, "killed", "kill -9 $$");
    assert_eq!((ran.code, state(&world, "killed").as_str()), (128 + 9, "crashed"));
    let ran = world.run(&["run", "-p", "p", "--id", "none", "--", "no-such-command"]);
    assert_eq!((ran.code, state(&world, "none").as_str()), (127, "failed"));
    assert_eq!(in_run(&world, "fine", "true").code, 0);
    assert_eq!(state(&world, "fine"), "finished");
}

#[test]
fn a_killed_run_counts_as_crashed_and_its_child_still_logs() {
    let world = world();
    put(&world, "data", "one");
    let script = r#"echo ready; read go < fifo; cat "$M/p/data:latest/x" > seen
        "$A" put -n p/late seen && echo done > finished"#;
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("fifo"), 0o600.into()).unwrap();
    let (mut child, _out) = start(&world, "r", script);
    assert_eq!(state(&world, "r"), "running");
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    assert_eq!(state(&world, "r"), "crashed");
    let listed = world.json(&["runs", "ls", "p", "--filter", "state=crashed"]);
    assert_eq!(listed[0]["id"], "r");
    fs::write(world.path("fifo"), b"go\n").unwrap();
    until("the command has put", || world.path("finished").exists());
    assert_eq!(references(&world, "logged", "r"), set(&["p/late:v0"]));
    assert_eq!(references(&world, "used", "r"), set(&["p/data:v0"]));
    until("it counts as crashed", || state(&world, "r") == "crashed");
    world.sound();
}

#[test]
fn scripts_start_log_to_and_finish_runs() {
    let world = world();
    put(&world, "data", "one");
    let id = world.ok(&["run", "start", "-p", "p", "--name", "by hand"]).trim().to_owned();
    let inside = |args: &[&str]| {
        let output = world.command(args).env("ARTIFACTFS_RUN", &id).output().unwrap();
        crate::world::ran(output)
    };
    let data = world.path("src-data-one").display().to_string();
    assert_eq!(inside(&["put", "-n", "p/copy", &data]).code, 0);
    assert_eq!(inside(&["get", "p/data", "--root", "got"]).code, 0);
    let logged = inside(&["run", "log", "--metric", "loss=nan", "--summary", "note=fine"]);
    assert_eq!(logged.code, 0, "{}", logged.err);
    assert_eq!(references(&world, "used", &id), set(&["p/data:v0"]));
    assert_eq!(references(&world, "logged", &id), set(&["p/copy:v0"]));
    assert_eq!(inside(&["run", "finish"]).code, 0);
    let run = world.json(&["runs", "show", &id]);
    assert_eq!(run["state"], "finished");
    assert_eq!(run["summary"]["loss"], "NaN");
    // The run has ended: logging to it is refused, and leaves nothing half done.
    let late = world.tree("late", &[("y", b"late")]).display().to_string();
    let refused = inside(&["put", "-n", "p/late", &late]);
    assert_eq!(refused.code, 11, "{}", refused.err);
    assert!(refused.err.contains("--resume allow"), "{}", refused.err);
    assert_eq!(world.run(&["show", "p/late"]).code, 10);
    assert_eq!(inside(&["run", "log", "--summary", "a=1"]).code, 11);
    // Once it is resumed, it accepts the version.
    let again = world.ok(&["run", "start", "--id", &id, "--resume", "allow", "--config", "b=2"]);
    assert_eq!(again.trim(), id);
    assert_eq!(inside(&["put", "-n", "p/late", &late]).code, 0);
    assert_eq!(inside(&["run", "finish", "--exit-code", "1"]).code, 0);
    assert_eq!(references(&world, "logged", &id), set(&["p/copy:v0", "p/late:v0"]));
    let run = world.json(&["runs", "show", &id]);
    assert_eq!((run["state"].as_str(), run["name"].as_str()), (Some("failed"), Some("by hand")));
    world.sound();
}

#[test]
fn runs_nest_and_have_many_workers() {
    let world = world();
    put(&world, "data", "one");
    put(&world, "more", "two");
    let script = r#"cat "$M/p/data:latest/x"
        "$A" run -p q --id inner -- sh -ec 'cat "$M/p/more:latest/x"; "$A" run used'
        for i in $(seq 64); do (cat "$M/p/data:latest/x" "$M/p/data:v0/x" > /dev/null) & done; wait"#;
    let ran = in_run(&world, "outer", script);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out, "onetwop/more:v0  as latest\n");
    assert_eq!(references(&world, "used", "outer"), set(&["p/data:v0"]));
    assert_eq!(references(&world, "used", "inner"), set(&["p/more:v0"]));
    assert_eq!(world.json(&["runs", "show", "inner"])["project"], "q");
}

/// Runs a shell whose user may not make the kinds of namespaces that `before` disables.
fn shell_as_user(world: &World, before: &str, script: &str) -> crate::world::Ran {
    let text = format!("{before}\nexec \"$A\" -v run -p p --id \"$ID\" -- sh -ec '{script}'");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-ec", &text]);
    command.envs(world.env.iter().cloned()).env("ARTIFACTFS_REPO", world.repo());
    crate::world::ran(command.output().unwrap())
}

#[test]
fn the_view_is_given_by_namespace_or_by_variable() {
    let mut world = world();
    put(&world, "data", "one");
    let script = r#"cat "$ARTIFACTFS_ROOT/p/data:latest/x"; echo " $ARTIFACTFS_ROOT""#;
    let mount = world.path("mnt").display().to_string();
    let ran = world.run(&["-v", "run", "-p", "p", "--id", "root", "--", "sh", "-ec", script]);
    assert_eq!(ran.out, format!("one {mount}\n"), "{}", ran.err);
    assert!(ran.err.contains("through a mount namespace"), "{}", ran.err);
    // An ordinary user may make one only in a user namespace.
    host("chmod", &[Path::new("755"), world.dir.path()]);
    host("chmod", &[Path::new("-R"), Path::new("a+rwX"), &world.repo()]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", ARTIFACTFS, "-v"]);
    command.args(["run", "-p", "p", "--id", "user", "--", "sh", "-ec", script]);
    command.envs(world.env.iter().cloned()).env("ARTIFACTFS_REPO", world.repo());
    let ran = crate::world::ran(command.env("HOME", "/tmp").output().unwrap());
    assert_eq!(ran.out, format!("one {mount}\n"), "{}", ran.err);
    assert!(ran.err.contains("through a user and mount namespace"), "{}", ran.err);
    // With neither kind of namespace.
    world.env.push(("ID", "variable".into()));
    let none = "for kind in user mnt; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done";
    let ran = shell_as_user(&world, none, script);
    assert_eq!(ran.out, format!("one {mount}/.runs/variable\n"), "{}", ran.err);
    assert!(ran.err.contains("$ARTIFACTFS_ROOT"), "{}", ran.err);
    for id in ["root", "user", "variable"] {
        assert_eq!(references(&world, "used", id), set(&["p/data:v0"]), "{id}");
    }
}

#[test]
fn views_of_live_runs_are_listed_and_keep_the_mount() {
    let world = world();
    put(&world, "data", "one");
    let (mut child, _out) = start(&world, "r", "echo ready; read go");
    let names = |path: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let mount = world.path("mnt");
    assert_eq!(names(&mount), set(&["p"]), "views are not listed in the root");
    assert_eq!(names(&mount.join(".runs")), set(&["r"]));
    assert_eq!(names(&mount.join(".runs/r")), set(&["p"]));
    assert!(!mount.join(".runs/unknown").exists());
    assert_eq!(fs::read(mount.join(".runs/r/p/data:latest/x")).unwrap(), b"one");
    let busy = world.run(&["umount", mount.to_str().unwrap()]);
    assert_eq!(busy.code, 11, "{}", busy.err);
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(references(&world, "used", "r"), set(&["p/data:v0"]));
    until("its view is not listed any more", || names(&mount.join(".runs")).is_empty());
    // Its path can still be read, and that is not recorded.
    put(&world, "other", "two");
    assert_eq!(fs::read(mount.join(".runs/r/p/other:latest/x")).unwrap(), b"two");
    assert_eq!(references(&world, "used", "r"), set(&["p/data:v0"]));
}

#[test]
fn runs_are_filtered_by_config_and_summary() {
    let world = World::new();
    for (id, settings, acc) in [
        ("a", "lr=0.1", "0.5"),
        ("b", "lr=0.2", "0.9"),
        ("c", "lr=0.1", "NaN"),
        ("d", "opt=sgd", "-1"),
    ] {
        world.ok(&["run", "start", "-p", "p", "--id", id, "--config", settings]);
        world.ok(&["run", "log", id, "--summary", &format!("val.acc={acc}")]);
        world.ok(&["run", "finish", id]);
    }
    world.ok(&["run", "start", "-p", "p", "--id", "e"]);
    let ids = |args: &[&str]| {
        let runs = world.json(&[&["runs", "ls", "p"], args].concat());
        let ids = runs.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>().join("")
    };
    assert_eq!(ids(&["--sort", "-summary.val.acc"]), "badce");
    assert_eq!(ids(&["--sort", "summary.val.acc"]), "dabce");
    assert_eq!(ids(&["--filter", "lr=0.1", "--sort", "id"]), "ac");
    assert_eq!(ids(&["--filter", "config.opt=sgd"]), "d");
    assert_eq!(ids(&["--filter", "state=running"]), "e");
    assert_eq!(ids(&["--filter", "state=finished", "--sort", "-id", "--limit", "2"]), "dc");
    assert_eq!(world.run(&["runs", "rm", "e"]).code, 11, "it is running");
    world.ok(&["runs", "rm", "a", "b"]);
    assert_eq!(ids(&["--sort", "id"]), "cde");
}

#[test]
fn invalid_run_input_is_refused() {
    let world = World::new();
    world.ok(&["run", "start", "-p", "p", "--id", "r"]);
    for (args, code, told) in [
        (&["runs", "show", "gone"][..], 10, "no run gone"),
        (&["run", "used", "gone"], 10, "no run gone"),
        (&["run", "log", "gone", "--summary", "a=1"], 10, "no run gone"),
        (&["run", "--id", "gone", "--resume", "must", "--", "true"], 10, "no run gone"),
        (&["run", "-p", "q", "--id", "r", "--resume", "allow", "--", "true"], 11, "project p"),
        (&["run", "-p", "p", "--id", "r", "--", "true"], 11, "already exists"),
        (&["run", "-p", "p", "--id", "a/b", "--", "true"], 3, "a/b"),
        (&["run", "-p", "p", "--sweep", "gone", "--", "true"], 10, "no sweep gone"),
        (&["run", "log", "r", "--metric", "loss=much"], 2, "no number"),
        (&["run", "log", "r", "--summary", "=1"], 2, "KEY=VALUE"),
        (&["run", "log", "r"], 2, "nothing to log"),
        (&["run", "log", "--summary", "a=1"], 2, "no run is named"),
        (&["run"], 2, "needs a command"),
        (&["runs", "rm", "gone"], 10, "no run gone"),
        (&["sweep", "best", "gone"], 10, "no sweep gone"),
        (&["sweep", "create", "p", "--metric", "a"], 2, "neither maximize nor minimize"),
        (&["logged-by", "p/none"], 10, "p/none"),
    ] {
        let ran = world.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(told), "{args:?}: {}", ran.err);
    }
    world.ok(&["sweep", "create", "q", "--metric", "a", "--goal", "minimize", "--id", "s"]);
    let ran = world.run(&["run", "-p", "p", "--sweep", "s", "--", "true"]);
    assert_eq!(ran.code, 11, "{}", ran.err);
}

/// Makes a thousand runs that read random versions, many at once. Some are read twice, by number
/// and by alias.
#[test]
fn exactly_the_versions_that_were_read_are_recorded_as_used() {
    const RUNS: u64 = 1000;
    const VERSIONS: u64 = 40;
    const WORKERS: u64 = 8;
    let world = world();
    for version in 0..VERSIONS {
        put(&world, "data", &format!("{version}"));
        world.ok(&["alias", "add", &format!("p/data:v{version}"), &format!("a{version}")]);
    }
    let client = Client::connect(&world.repo().join("artifactfs.sock")).unwrap();
    let (mount, client) = (world.path("mnt"), &client);
    let read = |run: u64| -> BTreeSet<String> {
        let id = format!("run{run}");
        let start = serde_json::json!({
            "id": id, "project": "p", "name": null, "group": null, "job_type": null, "sweep": null,
            "config": "{}", "holder": null, "command": [], "token": run,
        });
        let start = serde_json::from_value(start).unwrap();
        client.begin_run(start, artifactfs::model::run::Resume::Never).unwrap();
        let mut random = blake3::Hasher::new().update(&run.to_le_bytes()).finalize_xof();
        let mut next = || {
            let mut byte = [0];
            random.fill(&mut byte);
            u64::from(byte[0])
        };
        let view = mount.join(".runs").join(&id).join("p");
        let mut seen = BTreeSet::new();
        for _ in 0..next() % 6 {
            let version = next() % VERSIONS;
            let name = if next() % 2 == 0 { format!("v{version}") } else { format!("a{version}") };
            let directory = view.join(format!("data:{name}"));
            match next() % 3 {
                0 => assert_eq!(fs::read_dir(&directory).unwrap().count(), 1),
                1 => assert!(fs::metadata(directory.join("x")).is_ok()),
                _ => {
                    let text = fs::read_to_string(directory.join("x")).unwrap();
                    assert_eq!(text, version.to_string());
                }
            }
            seen.insert(format!("p/data:v{version}"));
        }
        // A stat of its name does not use a version.
        assert!(fs::metadata(view.join(format!("data:v{}", next() % VERSIONS))).is_ok());
        seen
    };
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || {
                for run in (worker..RUNS).step_by(WORKERS as usize) {
                    // The kernel looks everything up again, also in the middle of other runs.
                    if run % 50 == 0 {
                        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
                    }
                    let seen = read(run);
                    let id = format!("run{run}").parse().unwrap();
                    let used: BTreeSet<String> = client
                        .edges(id, false, None, 100)
                        .unwrap()
                        .items
                        .iter()
                        .map(|edge| format!("{}:{}", edge.path, edge.number))
                        .collect();
                    assert_eq!(used, seen, "run {run}");
                }
            });
        }
    });
}
