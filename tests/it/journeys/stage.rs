//! Versions written through the staging mount.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, host, noise, same_tree, until, write};

#[test]
fn files_copied_into_a_draft_become_the_next_version() {
    let mut world = World::new();
    let (read, staging) = world.mount();
    let source = world.tree("src", &[("a", b"1"), ("d/big", &noise(1, 9_000_000)), ("e/f/g", b"")]);
    fs::create_dir(staging.join("p")).unwrap();
    let draft = staging.join("p/mnist");
    host("cp", &[Path::new("-r"), &source, &draft]);
    same_tree(&source, &draft);
    assert!(world.ok(&["draft", "ls"]).contains("p/mnist"));
    assert!(world.ok(&["status"]).contains("p/mnist"));
    let told = world.json(&["commit", "p/mnist", "-a", "first", "-t", "model", "-d", "by hand"]);
    assert_eq!(told["reference"], "p/mnist:v0");
    until("the version is there", || read.join("p/mnist:first/e/f/g").exists());
    same_tree(&source, &read.join("p/mnist:first"));
    assert_eq!(world.json(&["show", "p/mnist"])["type"], "model");
    // Nothing changed: no new version.
    assert_eq!(world.json(&["commit", "p/mnist"])["new_version"], false);
    write(&draft.join("a"), b"changed");
    fs::rename(&draft, staging.join("p/mnist:best")).unwrap();
    assert!(!draft.exists());
    until("the alias is there", || {
        fs::read(read.join("p/mnist:best/a")).is_ok_and(|bytes| bytes == b"changed")
    });
    assert_eq!(fs::read(staging.join("p/mnist:v1/a")).unwrap(), b"changed");
    world.sound();
}

#[test]
fn a_draft_supports_the_usual_file_operations() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a/dir")).unwrap();
    let root = staging.join("p/a");
    let path = root.join("file");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"hello").unwrap();
    file.write_at(b"far", 1_000_000).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1_000_003);
    assert!(file.metadata().unwrap().blocks() * 512 < 500_000, "the hole stays one");
    file.set_len(3).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"lo, appended").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello, appended");
    fs::hard_link(&path, root.join("hard")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), fs::metadata(root.join("hard")).unwrap().ino());
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    fs::rename(root.join("hard"), root.join("dir/moved")).unwrap();
    fs::rename(root.join("dir"), root.join("other")).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read(root.join("other/moved")).unwrap(), b"hello, appended");
    symlink("other/moved", root.join("link")).unwrap();
    assert_eq!(fs::read_link(root.join("link")).unwrap().to_str(), Some("other/moved"));
    fs::set_permissions(root.join("link"), fs::Permissions::from_mode(0o751)).unwrap();
    assert_eq!(fs::metadata(root.join("other/moved")).unwrap().mode() & 0o777, 0o751);
    let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    File::open(root.join("other/moved")).unwrap().set_modified(past).unwrap();
    assert_eq!(fs::metadata(root.join("link")).unwrap().modified().unwrap(), past);
    // A temporary file is renamed over another, as torch.save and editors do.
    write(&root.join("model.tmp"), b"weights");
    fs::rename(root.join("model.tmp"), root.join("other/moved")).unwrap();
    assert_eq!(fs::read(root.join("link")).unwrap(), b"weights");
    // A file without a name stays usable.
    let mut gone =
        OpenOptions::new().read(true).write(true).create_new(true).open(root.join("g")).unwrap();
    fs::remove_file(root.join("g")).unwrap();
    gone.write_all(b"still here").unwrap();
    gone.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    gone.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), gone.metadata().unwrap().len()), ("still here", 10));
    // SAFETY: only this test changes the file.
    #[allow(unsafe_code)]
    let mut map = unsafe {
        let file = OpenOptions::new().read(true).write(true).open(root.join("link")).unwrap();
        memmap2::MmapMut::map_mut(&file).unwrap()
    };
    map[..4].copy_from_slice(b"WEIG");
    map.flush().unwrap();
    drop(map);
    assert_eq!(fs::read(root.join("link")).unwrap(), b"WEIGhts");
    assert!(fs::remove_dir(root.join("other")).is_err());
    fs::remove_dir_all(root.join("other")).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}

#[test]
fn common_programs_work_in_a_draft() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let draft = staging.join("p/a");
    let source = world.tree("src", &[]);
    for number in 0..300 {
        let path = source.join(format!("d{}/f{number}", number % 7));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, &noise(number, (number * 37 % 9_000) as usize));
    }
    let shell = |script: &str| {
        let ran = Command::new("sh").args(["-ec", script]).current_dir(&draft).output().unwrap();
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{script}: {err}");
    };
    let from = source.display();
    shell(&format!("tar c -C {from} . | tar x && diff -r {from} ."));
    shell("rm -r d0 d1 && test ! -e d0");
    shell(
        "git init -q g && cd g && cp -r ../d2 . && git add . && \
           git -c user.name=x -c user.email=x@x commit -qm x && git gc -q && git fsck --strict",
    );
    shell("git clone -q g h && diff -r g/d2 h/d2 && rm -rf g h");
    let told = world.json(&["commit", "p/a"]);
    assert_eq!(told["reference"], "p/a:v0");
}

#[test]
fn a_running_program_in_a_draft_cannot_be_written() {
    for option in ["passthrough", "no_passthrough"] {
        let mut world = World::new();
        let (_, staging) = world.mount_with(&["-o", option]);
        fs::create_dir_all(staging.join("p/a")).unwrap();
        let program = staging.join("p/a/sleep");
        fs::copy("/bin/sleep", &program).unwrap();
        let size = program.metadata().unwrap().len();
        // A child of another thread may have the file open for writing, between its fork and its
        // exec.
        let mut started = None;
        until("it runs", || {
            started = Command::new(&program).arg("60").spawn().ok();
            started.is_some()
        });
        let mut running = started.unwrap();
        let access = [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC, OFlags::TRUNC];
        for flags in access {
            let opened = rustix::fs::open(&program, flags, Mode::empty());
            assert_eq!(opened.unwrap_err(), Errno::TXTBSY, "{flags:?}");
            assert_eq!(fs::metadata(&program).unwrap().len(), size, "{flags:?}");
        }
        assert!(running.try_wait().unwrap().is_none(), "it goes on");
        running.kill().unwrap();
        running.wait().unwrap();
        // The kernel notices its end a moment later.
        until("it may be cut off", || {
            rustix::fs::open(&program, OFlags::TRUNC, Mode::empty()).is_ok()
        });
        assert_eq!(fs::metadata(&program).unwrap().len(), 0);
    }
}

#[test]
fn a_draft_that_is_being_written_is_not_committed() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let mut file = File::create(staging.join("p/a/model")).unwrap();
    file.write_all(b"half").unwrap();
    let refused = world.run(&["commit", "p/a"]);
    assert_eq!(refused.code, 11);
    assert!(refused.err.contains("has model open"), "{}", refused.err);
    assert!(refused.err.contains(&format!("process {}", std::process::id())), "{}", refused.err);
    assert!(fs::rename(staging.join("p/a"), staging.join("p/a:best")).is_err());
    assert_eq!(fs::read(staging.join("p/a/model")).unwrap(), b"half");
    drop(file);
    fs::rename(staging.join("p/a"), staging.join("p/a:best")).unwrap();
    assert_eq!(fs::read(staging.join("p/a:best/model")).unwrap(), b"half");
}

#[test]
fn a_draft_begun_from_a_version_has_its_files() {
    let mut world = World::new();
    let source = world.tree("src", &[("a", b"1"), ("d/b", b"2")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (read, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    same_tree(&source, &staging.join("p/a"));
    assert_eq!(world.run(&["draft", "p/a:v0"]).code, 11);
    assert_eq!(world.json(&["draft", "ls"])[0]["changed"], 0);
    fs::remove_file(staging.join("p/a/a")).unwrap();
    write(&staging.join("p/a/new"), b"3");
    assert_eq!(world.json(&["draft", "ls"])[0]["changed"], 2);
    world.ok(&["commit", "p/a"]);
    until("the version is there", || read.join("p/a:v1/new").exists());
    assert_eq!(world.run(&["diff", "p/a:v0", "p/a:v1"]).out, "- a  1 B\n+ new  1 B\n");
    world.ok(&["draft", "discard", "p/a"]);
    until("the draft is gone", || !staging.join("p/a").exists());
    assert_eq!(world.run(&["commit", "p/a"]).code, 10);
}

#[test]
fn a_killed_daemon_leaves_drafts_and_its_mount_is_cleared() {
    let mut world = World::new();
    let (read, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a/d")).unwrap();
    write(&staging.join("p/a/d/kept"), b"kept");
    world.ok(&["commit", "p/a"]);
    write(&staging.join("p/a/more"), b"more");
    let daemon = world.daemon();
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
    until("the mount is dead", || fs::read_dir(&read).is_err());
    // Without a daemon the verbs open the repository themselves.
    assert_eq!(world.json(&["ls", "p/a"])[0]["version"], "v0");
    assert_eq!(world.json(&["draft", "ls"])[0]["files"], 2);
    let (read, staging) = world.mount();
    assert_eq!(fs::read(read.join("p/a:v0/d/kept")).unwrap(), b"kept");
    assert_eq!(fs::read(staging.join("p/a/more")).unwrap(), b"more");
    world.ok(&["commit", "p/a"]);
    world.sound();
    world.umount();
    assert_eq!(fs::read_dir(&read).unwrap().count(), 0);
}

#[test]
fn a_daemon_unmounts_on_sigterm() {
    let mut world = World::new();
    let (read, staging) = world.mount();
    let daemon = Pid::from_raw(world.daemon()).unwrap();
    kill_process(daemon, Signal::TERM).unwrap();
    until("the mounts are gone", || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        !mounts.contains(read.to_str().unwrap()) && !mounts.contains(staging.to_str().unwrap())
    });
    assert_eq!(world.json(&["status"])["mounts"], serde_json::json!([]));
}

#[test]
fn commands_that_open_the_drafts_wait_for_each_other() {
    let world = World::new();
    let commands: Vec<_> = (0..6)
        .map(|_| {
            let mut command = world.command(&["--json", "status"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for command in commands {
        let ran = crate::world::ran(command.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
}
