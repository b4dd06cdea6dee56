//! The environment that a daemon inherits from its starter, and the files it leaves behind when its mounts are taken
//! away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Ran, World, host, noise, ran, until};

const ARTIFACTFS: &str = env!("CARGO_BIN_EXE_artifactfs");

/// A program that is killed with the test.
struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bind mount that is unmounted with the test.
struct Bind(PathBuf);

impl Bind {
    fn new(world: &World, what: &Path) -> Self {
        let at = world.path("bind");
        fs::create_dir_all(&at).unwrap();
        host("mount", &[Path::new("--bind"), what, &at]);
        Self(at)
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Runs a bash script in which `$A` is the program. The script must end by itself.
fn bash(world: &World, script: &str) -> Ran {
    let mut command = Command::new("timeout");
    command.args(["60", "bash", "-c", script]).current_dir(world.dir.path());
    command.env("A", ARTIFACTFS).env("ARTIFACTFS_REPO", world.repo());
    command.env("ARTIFACTFS_CACHE_DIR", world.path("cache"));
    command.envs(world.env.iter().cloned());
    ran(command.output().unwrap())
}

fn put(world: &World, text: &str) {
    let source = world.tree("source", &[("x", text.as_bytes())]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
}

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// Returns a process and its children.
fn family(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    std::iter::once(pid)
        .chain(children.split_whitespace().map(|pid| pid.parse().unwrap()))
        .collect()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn a_run_ends_with_its_command_though_sigchld_is_ignored() {
    let world = World::new();
    for (id, code) in [("r0", 0), ("r3", 3)] {
        let script =
            format!("trap '' CHLD; exec $A run -p p --id {id} -- sh -c 'sleep 0.1; exit {code}'");
        assert_eq!(bash(&world, &script).code, code);
        let run = world.json(&["runs", "show", id]);
        assert_eq!(run["exit_code"], code);
        assert_eq!(run["state"], if code == 0 { "finished" } else { "failed" });
    }
    // The command gets the signal disposition that programs expect.
    let script = "trap '' CHLD; exec $A run -p p --id waits -- bash -c '(exit 5) & wait $!'";
    assert_eq!(bash(&world, script).code, 5);
}

#[test]
fn mounting_works_whatever_signals_are_ignored_or_blocked() {
    let mut world = World::new();
    put(&world, "one");
    world.mount();
    world.umount();
    world.mounts = vec![world.path("mnt"), world.path("staging")];
    let mount = "trap '' CHLD TERM HUP INT; $A mount mnt --staging staging && cat mnt/p/a:v0/x && $A umount mnt";
    let mounted = bash(&world, mount);
    assert_eq!(
        (mounted.code, mounted.out.ends_with("one")),
        (0, true),
        "{}{}",
        mounted.out,
        mounted.err
    );
    let mut command = Command::new("env");
    command.args(["--block-signal=TERM", ARTIFACTFS, "--repo"]).arg(world.repo());
    command.args(["mount", "--foreground"]).arg(world.path("mnt"));
    let mut going = Going(command.stdout(Stdio::null()).spawn().unwrap());
    until("it is mounted", || world.path("mnt/p/a:v0/x").exists());
    kill(going.0.id().try_into().unwrap(), Signal::TERM);
    until("it has ended", || going.0.try_wait().unwrap().is_some());
}

#[test]
fn a_mount_is_refused_under_a_low_limit_of_open_files() {
    let mut world = World::new();
    put(&world, "one");
    for target in ["mnt", "staging"] {
        fs::create_dir(world.path(target)).unwrap();
    }
    for limit in [18, 20, 22, 30, 63] {
        let script = format!("ulimit -n {limit}; $A mount mnt --staging staging");
        let refused = bash(&world, &script);
        let told = refused.err.contains(&format!("may have {limit} files open"));
        assert!(refused.code == 2 && told, "{limit}: {} {}", refused.code, refused.err);
    }
    world.mounts = vec![world.path("mnt"), world.path("staging")];
    let served = bash(&world, "ulimit -n 64; $A mount mnt --staging staging; ls mnt/p/a:v0");
    assert_eq!(served.code, 0, "{}", served.err);
    world.umount();
}

#[test]
fn a_daemon_with_an_unreadable_record_is_reported() {
    let mut world = World::new();
    world.mount();
    let record = world.repo().join("daemons").join(world.daemon().to_string());
    let kept = fs::read(&record).unwrap();
    fs::write(&record, "garbage").unwrap();
    let troubles = world.json(&["status"])["troubles"].to_string();
    let name = record.file_name().unwrap().to_str().unwrap();
    assert!(troubles.contains(&format!("daemons/{name} cannot be read")), "{troubles}");
    fs::write(&record, kept).unwrap();
    assert_eq!(world.json(&["status"])["troubles"], serde_json::json!([]));
    world.umount();
}

#[test]
fn a_registry_never_opens_as_a_closed_standard_descriptor() {
    let mut world = World::new();
    put(&world, "one");
    world.mounts = vec![world.path("mnt"), world.path("staging")];
    for target in &world.mounts {
        fs::create_dir(target).unwrap();
    }
    fs::write(world.path("two"), "two").unwrap();
    let closed =
        bash(&world, "exec <&- >&- 2>&-; $A put -n p/a two && $A mount mnt --staging staging");
    assert_eq!(closed.code, 0);
    let pid = world.daemon();
    for descriptor in 0..3 {
        let open = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
        let fine = open == Path::new("/dev/null") || open.ends_with("repo/daemon.log");
        assert!(fine, "{descriptor}: {}", open.display());
    }
    assert_eq!(fs::read(world.path("mnt/p/a:v1/two")).unwrap(), b"two");
    world.umount();
    world.sound();
}

#[test]
fn a_daemon_keeps_no_descriptor_or_variable_of_its_starter() {
    let mut world = World::new();
    world.mounts = vec![world.path("mnt"), world.path("staging")];
    for target in &world.mounts {
        fs::create_dir(target).unwrap();
    }
    let script = "export ARTIFACTFS_RUN=r9 JOURNAL_STREAM=1:2 TMPDIR=/nowhere SSL_CERT_FILE=certs; \
        (flock -n 9; $A mount mnt --staging staging) 9> lock; flock -n lock true && echo free; \
        exec 7> >(cat > /dev/null); reader=$!; $A --repo repo umount mnt; $A mount mnt --staging staging; \
        exec 7>&-; wait $reader; echo ended";
    let done = bash(&world, script);
    assert!(done.out.contains("free") && done.out.ends_with("ended\n"), "{}{}", done.out, done.err);
    let pid = world.daemon();
    let family = family(pid);
    assert_eq!(family.len(), 2, "the daemon and its watchdog");
    for process in family {
        let proc = PathBuf::from(format!("/proc/{process}"));
        assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
        for entry in fs::read_dir(proc.join("fd")).unwrap().flatten() {
            let open = fs::read_link(entry.path()).unwrap_or_default();
            assert_ne!(open, world.path("lock"));
        }
        let stat = fs::read_to_string(proc.join("stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        assert_eq!(fields[3], process.to_string(), "it leads its session");
        assert_eq!(fields[4], "0", "it has no terminal");
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let line =
            |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert_eq!(line("SigBlk").split_whitespace().last(), Some("0000000000000000"));
        let environment = fs::read(proc.join("environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(
            !environment.contains("ARTIFACTFS_RUN=") && !environment.contains("JOURNAL_STREAM=")
        );
        let certs = format!("SSL_CERT_FILE={}", world.path("certs").display());
        assert!(environment.contains(&certs), "{environment}");
    }
    world.umount();
}

#[test]
fn unmounting_reports_a_bind_mount_that_is_left() {
    let mut world = World::new();
    put(&world, "one");
    let (read, staging) = world.mount();
    let first = world.daemon();
    let bind = Bind::new(&world, &read.join("p"));
    let also = world.json(&["status"]);
    assert_eq!(also["elsewhere"][0]["path"], bind.0.to_str().unwrap());
    let left = world.run(&["umount", read.to_str().unwrap()]);
    assert_eq!(left.code, 0, "{}", left.err);
    let place = format!("{} (a bind mount)", bind.0.display());
    assert!(left.err.contains(&place) && left.err.contains(&first.to_string()), "{}", left.err);
    assert!(!left.err.contains("kill"), "{}", left.err);
    let status = world.json(&["status"]);
    assert_eq!(status["mounts"], Value::Array(Vec::new()));
    assert_eq!(status["left"][0]["pid"], first);
    assert_eq!(fs::read(bind.0.join("a:v0/x")).unwrap(), b"one");
    // Runs do not look for versions where nothing is mounted.
    assert_eq!(world.run(&["run", "-p", "p", "--", "true"]).code, 0);
    // Another daemon has the drafts; the first goes on serving what it serves.
    world.mount();
    assert_ne!(world.daemon(), first);
    fs::create_dir_all(staging.join("p/b")).unwrap();
    fs::write(staging.join("p/b/y"), "two").unwrap();
    world.ok(&["commit", "p/b"]);
    until("the bind sees what is new", || bind.0.join("b:v0/y").exists());
    drop(bind);
    until("the first daemon ends with its last user", || is_gone(first));
    assert_eq!(fs::read(read.join("p/b:v0/y")).unwrap(), b"two", "the other's mount stays");
    world.umount();
    world.sound();
}

#[test]
fn unmounting_reports_a_namespace_that_keeps_the_mount() {
    let mut world = World::new();
    put(&world, "one");
    let (read, _) = world.mount();
    let first = world.daemon();
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000"]);
    let mut going = Going(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut word = [0; 6];
    std::io::Read::read_exact(going.0.stdout.as_mut().unwrap(), &mut word).unwrap();
    let left = world.run(&["umount", read.to_str().unwrap()]);
    assert_eq!(left.code, 0, "{}", left.err);
    let place = format!("in the namespace of process {}", going.0.id());
    assert!(left.err.contains(&place), "{}", left.err);
    assert_eq!(world.json(&["status"])["mounts"], Value::Array(Vec::new()));
    // Its staging mount is still reachable there: no other daemon gets the drafts, and the error
    // says why.
    let staging = world.path("staging");
    let refused =
        world.run(&["mount", "--staging", staging.to_str().unwrap(), read.to_str().unwrap()]);
    assert_eq!(refused.code, 11, "{}", refused.err);
    assert!(refused.err.contains(&place), "{}", refused.err);
    drop(going);
    until("the daemon ends with its last user", || is_gone(first));
    world.mount();
    world.umount();
}

#[test]
fn a_daemon_with_open_files_ends_at_the_second_signal() {
    let mut world = World::new();
    put(&world, "one");
    let (read, _) = world.mount();
    let pid = world.daemon();
    let open = fs::File::open(read.join("p/a:v0/x")).unwrap();
    kill(pid, Signal::TERM);
    until("it has left", || {
        let left = world.json(&["status"]);
        left["left"].as_array().is_some_and(|left| left.len() == 1)
    });
    assert!(!is_gone(pid), "somebody has a file open");
    kill(pid, Signal::TERM);
    until("it has ended", || is_gone(pid));
    drop(open);
    world.mounts.clear();
    world.sound();
}

#[test]
fn a_suspended_process_with_the_registry_open_is_named() {
    let world = World::new();
    put(&world, "one");
    let holder = Going(world.start(&["run", "-p", "p", "--", "sleep", "1000"]));
    let pid = holder.0.id().try_into().unwrap();
    let open = || fs::read_to_string(world.repo().join("lock")).unwrap_or_default();
    until("it has the registry", || {
        open() == format!("process {pid}") && world.repo().join("artifactfs.sock").exists()
    });
    world.ok(&["ls", "p"]);
    kill(pid, Signal::STOP);
    let refused = world.run(&["ls", "p"]);
    assert_eq!(refused.code, 15, "{}", refused.err);
    let named = format!("process {pid} (artifactfs) has the repository open and is suspended");
    assert!(refused.err.contains(&named) && refused.err.contains("-CONT"), "{}", refused.err);
    kill(pid, Signal::CONT);
    world.ok(&["ls", "p"]);
}

#[test]
fn a_disk_that_hangs_for_a_while_does_not_end_the_mounts() {
    let mut world = World::new();
    let image = world.path("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    host("mkfs.ext4", &[Path::new("-q"), &image]);
    let disk = world.path("disk");
    fs::create_dir(&disk).unwrap();
    host("mount", &[Path::new("-o"), Path::new("loop"), &image, &disk]);
    let _disk = Bind(disk.clone());
    fs::remove_dir_all(world.repo()).unwrap();
    world.ok(&["init", disk.join("repo").to_str().unwrap()]);
    std::os::unix::fs::symlink(disk.join("repo"), world.repo()).unwrap();
    let (_, staging) = world.mount_with(&["-o", "watchdog=1,no_passthrough"]);
    let pid = world.daemon();
    // One file for each folder: the kernel makes only one file at a time in a folder.
    for number in 0..32 {
        fs::create_dir_all(staging.join(format!("p/a/{number}"))).unwrap();
    }
    // To the watchdog this looks like a disk that takes minutes: more writers wait than the mount
    // has threads.
    host("fsfreeze", &[Path::new("-f"), &disk]);
    let writers: Vec<_> = (0..32)
        .map(|number| {
            let path = staging.join(format!("p/a/{number}/f"));
            std::thread::spawn(move || fs::write(path, b"slow"))
        })
        .collect();
    // The watchdog has noticed, and waits to write to the log, which is on that disk.
    let watchdog = *family(pid).last().unwrap();
    let start = std::time::Instant::now();
    let state = || fs::read_to_string(format!("/proc/{watchdog}/stat")).unwrap_or_default();
    while !state().contains(") D ") && start.elapsed() < crate::world::PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    host("fsfreeze", &[Path::new("-u"), &disk]);
    for writer in writers {
        writer.join().unwrap().unwrap();
    }
    let log = fs::read_to_string(world.repo().join("daemon.log")).unwrap();
    assert!(log.contains("waits for its disk"), "the watchdog saw nothing: {log}");
    assert!(!is_gone(pid));
    world.ok(&["commit", "p/a"]);
    world.umount();
    world.sound();
}

#[test]
fn a_reader_that_retries_for_ever_does_not_fill_the_log() {
    let mut world = World::new();
    let bytes = noise(1, 200_000);
    let source = world.tree("source", &[("x", &bytes)]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let mut packs = Vec::new();
    for folder in fs::read_dir(world.repo().join("store/packs")).unwrap().flatten() {
        packs.extend(fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path()));
    }
    for pack in packs.iter().filter(|pack| pack.extension().is_some_and(|kind| kind == "pack")) {
        let mut bytes = fs::read(pack).unwrap();
        if bytes.len() > 100_000 {
            bytes[50_000] ^= 1;
            fs::write(pack, bytes).unwrap();
        }
    }
    let (read, _) = world.mount();
    for _ in 0..1_000 {
        fs::read(read.join("p/a:v0/x")).unwrap_err();
    }
    let log = fs::read_to_string(world.repo().join("daemon.log")).unwrap();
    assert!(log.contains("a:v0") || !log.is_empty(), "what is damaged is named");
    assert!(log.lines().count() < 50, "{} lines", log.lines().count());
    world.umount();
}

#[test]
fn nobody_else_may_write_into_a_repository_whatever_the_umask() {
    for umask in ["0000", "0022", "0077", "0777"] {
        let mut world = World::new();
        fs::remove_dir_all(world.repo()).unwrap();
        world.mounts = vec![world.path("mnt"), world.path("staging")];
        for target in &world.mounts {
            fs::create_dir(target).unwrap();
        }
        fs::write(world.path("f"), noise(7, 300_000)).unwrap();
        let script = format!(
            "umask {umask}; $A init repo && $A put -n p/a f && $A mount mnt --staging staging && \
             (umask 022; mkdir -p staging/p/b; echo b > staging/p/b/f) && $A commit p/b && $A fsck"
        );
        let done = bash(&world, &script);
        assert_eq!(done.code, 0, "umask {umask}: {}{}", done.out, done.err);
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&world.repo()), 0o700, "umask {umask}");
        let mut folders = vec![world.repo()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                assert_eq!(mode(&path) & 0o022, 0, "umask {umask}: {}", path.display());
                assert_ne!(mode(&path) & 0o600, 0, "umask {umask}: {}", path.display());
                if kind.is_dir() && !path.ends_with("drafts") {
                    folders.push(path);
                }
            }
        }
        world.umount();
    }
}
