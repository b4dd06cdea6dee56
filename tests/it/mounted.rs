//! Guarantees that programs rely on: every change shows in path, size or time, and no two files
//! share an inode. A working directory stays, and no listing is incomplete.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::fs::{AtFlags, CWD, OFlags, RawDir, Timespec, Timestamps};

use crate::web::{Fault, Web};
use crate::world::{World, host, noise, until};

/// Makes a folder with files, a directory and a symlink. Returns its path as an argument.
fn source(world: &World, content: &str) -> String {
    let files: [(&str, &[u8]); 3] =
        [("f", content.as_bytes()), ("same", b"always"), ("d/g", content.as_bytes())];
    let source = world.tree("src", &files);
    let _ = symlink("f", source.join("link"));
    source.to_str().unwrap().to_owned()
}

fn put(world: &World, content: &str) {
    let source = source(world, content);
    world.ok(&["put", "-n", "p/a", &source]);
}

/// Returns the times of all paths of a version. No time has a fraction of a second.
fn times(version: &Path) -> BTreeSet<i64> {
    let paths = ["", "f", "same", "d", "d/g", "link"];
    let metas = paths.map(|path| fs::symlink_metadata(version.join(path)).unwrap());
    assert!(metas.iter().all(|meta| meta.mtime_nsec() == 0 && meta.ctime_nsec() == 0));
    metas.iter().flat_map(|meta| [meta.mtime(), meta.ctime()]).collect()
}

fn time(version: &Path) -> i64 {
    let times = times(version);
    assert_eq!(times.len(), 1, "{} bears one time: {times:?}", version.display());
    *times.first().unwrap()
}

#[test]
fn times_in_a_version_are_later_than_in_its_predecessor() {
    let mut world = World::new();
    for content in ["1", "2", "3"] {
        put(&world, content);
    }
    let (read, staging) = world.mount();
    for mount in [&read, &staging] {
        let [first, second, third] =
            ["a:v0", "a:v1", "a:v2"].map(|name| time(&mount.join("p").join(name)));
        assert!(first < second && second < third, "{first} {second} {third}");
        assert_eq!(time(&mount.join("p/a:latest")), third);
    }
    let third = time(&read.join("p/a:v2"));
    assert_eq!(time(&staging.join("p/a:v2")), third, "both mounts agree");
    // The time of a version is later than that of a deleted one, too.
    world.ok(&["delete", "--delete-aliases", "p/a:v2"]);
    put(&world, "4");
    assert!(time(&read.join("p/a:v3")) > third);
    // A put of equal content gives the existing version, with its time.
    let before = time(&read.join("p/a:v3"));
    put(&world, "4");
    assert_eq!(time(&read.join("p/a:v3")), before);
    let part = source(&world, "5");
    world.ok(&["put", "--upsert", "--group", "g", "-n", "p/a", &part]);
    world.ok(&["finish", "-n", "p/a", "--group", "g"]);
    assert!(time(&read.join("p/a:v4")) > before);
    world.umount();
    world.mount();
    assert_eq!(time(&read.join("p/a:v3")), before, "also after a restart");
}

#[test]
fn copiers_that_compare_times_see_every_change_behind_an_alias() {
    let mut world = World::new();
    put(&world, "1");
    let (read, _) = world.mount();
    let (from, to) = (read.join("p/a:latest/."), world.path("copy"));
    let copy = || host("cp", &[Path::new("-rufp"), &from, &to]);
    copy();
    for content in ["2", "3", "4"] {
        put(&world, content);
        let seen = || fs::read_to_string(read.join("p/a:latest/f")).unwrap() == content;
        until("the alias has moved", seen);
        copy();
        assert_eq!(fs::read_to_string(to.join("f")).unwrap(), content);
        assert_eq!(fs::read_to_string(to.join("d/g")).unwrap(), content);
    }
}

#[test]
fn a_changed_description_has_a_later_time() {
    let mut world = World::new();
    put(&world, "1");
    let (read, _) = world.mount();
    let described = || fs::metadata(read.join("p/a:v0/.artifact.json")).unwrap().mtime();
    let first = described();
    assert_eq!(described(), first, "it says the same");
    world.ok(&["update", "p/a:v0", "-d", "word"]);
    until("the change shows", || described() > first);
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn no_two_files_share_an_inode_but_aliases_of_a_version_do() {
    let mut world = World::new();
    let equal: [(&str, &[u8]); 4] = [("a", b"7"), ("b", b"7"), ("d/a", b"7"), ("e/a", b"7")];
    let source = world.tree("equal", &equal);
    for artifact in ["p/a", "p/b", "q/a"] {
        world.ok(&["put", "-n", artifact, source.to_str().unwrap()]);
    }
    write_and_put(&world, &source);
    let (read, staging) = world.mount();
    for mount in [&read, &staging] {
        let mut seen = BTreeMap::new();
        for version in ["p/a:v0", "p/a:v1", "p/b:v0", "q/a:v0"] {
            for file in ["a", "b", "d/a", "e/a"] {
                let path = mount.join(version).join(file);
                let meta = fs::metadata(&path).unwrap();
                assert_eq!(meta.nlink(), 1);
                let other = seen.insert(meta.ino(), path.clone());
                assert!(other.is_none(), "{} is {}", path.display(), other.unwrap().display());
            }
        }
        for file in ["a", "d/a"] {
            let by_number = inode(&mount.join("p/a:v1").join(file));
            assert_eq!(inode(&mount.join("p/a:latest").join(file)), by_number);
        }
        assert_ne!(inode(&mount.join("p/a:v1/d")), inode(&mount.join("p/a:latest/d")));
    }
    let copy = world.path("copied");
    host("cp", &[Path::new("-aL"), &read.join("p/a:v0"), &copy]);
    for file in ["a", "b", "d/a", "e/a"] {
        assert_eq!(
            fs::metadata(copy.join(file)).unwrap().nlink(),
            1,
            "{file} is a file of its own"
        );
    }
    let both = [read.join("p/a:v0/a"), read.join("p/a:v0/b")];
    let counted = Command::new("du").arg("-b").args(both).output().unwrap().stdout;
    assert_eq!(String::from_utf8(counted).unwrap().lines().count(), 2, "du counts both");
}

fn write_and_put(world: &World, source: &Path) {
    fs::write(source.join("more"), "8").unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
}

#[test]
fn a_path_that_is_cut_at_its_colon_is_not_found() {
    let mut world = World::new();
    put(&world, "1");
    let (read, staging) = world.mount();
    assert_eq!(fs::read_to_string(read.join("p/a@v0/f")).unwrap(), "1");
    assert_eq!(fs::read_to_string(staging.join("p/a@latest/f")).unwrap(), "1");
    for root in [read.clone(), staging] {
        let error = fs::metadata(root.join("p/a")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
    let script = format!("! test -e {0}/p/a && cat {0}/p/a@v0/f", read.display());
    assert_eq!(world.ok(&["run", "-p", "p", "--", "sh", "-c", &script]).trim(), "1");
}

/// A process with its working directory in `directory`, until it is dropped.
struct Sits(Child);

impl Sits {
    fn within(directory: &Path) -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("1000").current_dir(directory).spawn().unwrap())
    }

    /// Returns its working directory, as getcwd(2) does.
    fn place(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/cwd", self.0.id())).unwrap()
    }
}

impl Drop for Sits {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the names in a directory. The kernel caches them until it is notified of a change, which
/// also makes invalid whatever the change affects.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn until_listed(read: &Path, name: &str, there: bool) {
    let project = read.join("p");
    until("the kernel was notified", || names(&project).contains(name) == there);
}

#[test]
fn working_directories_survive_changes_to_the_artifact() {
    let mut world = World::new();
    put(&world, "1");
    world.ok(&["alias", "add", "p/a:v0", "stays"]);
    let (read, _) = world.mount();
    let (number, alias) = (read.join("p/a:v0"), read.join("p/a:stays"));
    let inside = Sits::within(&number.join("d"));
    let sitters = [Sits::within(&number), Sits::within(&alias)];
    // Something is mounted below each of them.
    let other = world.tree("other", &[("mounted", b"there")]);
    let places = [number.join("d"), alias.join("d")];
    for place in &places {
        host("mount", &[Path::new("--bind"), &other, place]);
        world.mounts.push(place.clone());
    }
    names(&read.join("p"));
    let steps: [(&[&str], &str); 3] = [
        (&["alias", "add", "p/a:v0", "one"], "a:one"),
        (&["update", "p/a:v0", "--description", "words"], "a:one"),
        (&["alias", "add", "p/a:v0", "two"], "a:two"),
    ];
    for (step, listed) in steps {
        world.ok(step);
        until_listed(&read, listed, true);
    }
    put(&world, "2");
    until_listed(&read, "a:v1", true);
    // Names expire after a second, and are looked up again.
    until("everything was looked up again", || {
        fs::read_to_string(read.join("p/a:latest/f")).unwrap() == "2"
    });
    for place in &places {
        assert_eq!(fs::read_to_string(place.join("mounted")).unwrap(), "there");
        host("umount", &[place.as_path()]);
    }
    world.mounts.truncate(2);
    assert_eq!(inside.place(), number.join("d"));
    assert_eq!(sitters[0].place(), number);
    assert_eq!(sitters[1].place(), alias);
    drop((inside, sitters));
}

#[test]
fn a_run_keeps_its_working_directory_through_puts() {
    let mut world = World::new();
    put(&world, "1");
    let (read, _) = world.mount();
    let (entered, go) = (world.path("entered"), world.path("go"));
    let script = format!(
        "cd {read}/p/a:latest && touch {entered} && while ! test -e {go}; do sleep 0.02; done; \
         /bin/pwd && cat f && readlink /proc/self/cwd",
        read = read.display(),
        entered = entered.display(),
        go = go.display()
    );
    let mut run = world.command(&["run", "-p", "p", "--", "sh", "-c", &script]);
    let run = run.stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("the run is in the version", || entered.exists());
    names(&read.join("p"));
    put(&world, "2");
    until_listed(&read, "a:v1", true);
    File::create(go).unwrap();
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let place = read.join("p/a:latest").display().to_string();
    assert!(output.status.success(), "{said}");
    assert_eq!(said, format!("{place}\n1{place}\n"));
}

#[test]
fn changes_to_aliases_are_seen_and_open_files_stay() {
    let mut world = World::new();
    put(&world, "1");
    put(&world, "2");
    world.ok(&["alias", "add", "p/a:v0", "moves", "goes"]);
    let (read, staging) = world.mount();
    let mut open = File::open(read.join("p/a:moves/f")).unwrap();
    assert!(read.join("p/a:goes").exists() && staging.join("p/a:goes").exists());
    world.ok(&["alias", "add", "p/a:v1", "moves"]);
    world.ok(&["alias", "rm", "p/a:v0", "goes"]);
    for mount in [&read, &staging] {
        until("it moved", || fs::read_to_string(mount.join("p/a:moves/f")).unwrap() == "2");
        until("it went", || !mount.join("p/a:goes").exists());
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut open, &mut text).unwrap();
    assert_eq!(text, "1");
    world.ok(&["alias", "add", "p/a:v0", "moves"]);
    until("it is back", || fs::read_to_string(read.join("p/a:moves/f")).unwrap() == "1");
}

#[test]
fn a_restore_in_a_draft_keeps_working_directories() {
    let mut world = World::new();
    put(&world, "1");
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    let sits = Sits::within(&draft);
    fs::write(draft.join("d/g"), "changed").unwrap();
    world.ok(&["restore", "p/a/d/g"]);
    assert_eq!(fs::read_to_string(draft.join("d/g")).unwrap(), "1");
    assert_eq!(sits.place(), draft);
}

/// Reads a directory in pieces. Calls `hook` once, with the names so far, if there are more to
/// come.
fn list(directory: &Path, hook: &mut dyn FnMut(&[String])) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let fd = rustix::fs::open(directory, flags, rustix::fs::Mode::empty()).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&fd, &mut buffer);
    let (mut names, mut hooked) = (Vec::new(), false);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        let name: &CStr = entry.file_name();
        names.push(name.to_str().unwrap().to_owned());
        if names.len() > 60 && entries.is_buffer_empty() && !hooked {
            hooked = true;
            hook(&names);
        }
    }
    assert!(hooked, "there was more to come");
    names
}

fn nothing_is_left_out(before: &BTreeSet<String>, removed: &[String], listed: &[String]) {
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len(), "something is listed twice");
    let gone: BTreeSet<_> = removed.iter().cloned().collect();
    let left_out: Vec<_> =
        before.difference(&unique).filter(|name| !gone.contains(*name)).collect();
    assert!(left_out.is_empty(), "there all the time and not listed: {left_out:?}");
}

/// Returns up to 20 of `names`, without `.` and `..`.
fn some(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| !name.starts_with('.')).take(20).cloned().collect()
}

#[test]
fn listings_miss_no_entry_that_stays() {
    let mut world = World::new();
    put(&world, "1");
    let aliases: Vec<String> = (0..300).map(|n| format!("alias-number-{n}")).collect();
    let add: Vec<&str> = aliases.iter().map(String::as_str).collect();
    world.ok(&[&["alias", "add", "p/a:v0"], &add[..]].concat());
    let (read, staging) = world.mount();
    for mount in [&read, &staging] {
        let project = mount.join("p");
        let before = names(&project);
        let mut removed = Vec::new();
        let listed = list(&project, &mut |seen| {
            let seen =
                seen.iter().filter(|name| name.contains("alias")).cloned().collect::<Vec<_>>();
            removed = some(&seen);
            let went = removed.iter().map(|name| name.split_once(':').unwrap().1);
            let remove: Vec<&str> = went.collect();
            world.ok(&[&["alias", "rm", "p/a:v0"], &remove[..]].concat());
        });
        nothing_is_left_out(&before, &removed, &listed);
    }
}

#[test]
fn listings_of_drafts_miss_no_entry_that_stays() {
    let mut world = World::new();
    let many: Vec<(String, Vec<u8>)> =
        (0..300).map(|n| (format!("file-of-the-version-{n}"), noise(n, 10))).collect();
    let files: Vec<(&str, &[u8])> = many.iter().map(|(name, b)| (name.as_str(), &b[..])).collect();
    let source = world.tree("many", &files);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (_, staging) = world.mount();
    // Many projects, and many drafts of one project.
    for n in 0..200 {
        fs::create_dir(staging.join(format!("project-with-a-name-{n}"))).unwrap();
        fs::create_dir(staging.join(format!("p/draft-with-a-name-{n}"))).unwrap();
    }
    // The directory of a draft, with names of the lower and its own.
    world.ok(&["draft", "p/a:v0"]);
    for n in 0..300 {
        fs::write(staging.join(format!("p/a/new-file-of-the-draft-{n}")), "x").unwrap();
    }
    for directory in [staging.clone(), staging.join("p"), staging.join("p/a")] {
        let before = names(&directory);
        let mut removed = Vec::new();
        let listed = list(&directory, &mut |seen| {
            let own = |name: &&String| !name.contains(':') && *name != "p" && *name != "a";
            removed = some(&seen.iter().filter(own).cloned().collect::<Vec<_>>());
            for name in &removed {
                let path = directory.join(name);
                let done =
                    if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
                done.unwrap();
            }
        });
        nothing_is_left_out(&before, &removed, &listed);
    }
}

#[test]
fn deleted_packs_are_not_kept_open() {
    let mut world = World::new();
    let source = world.tree("big", &[("model", &noise(1, 9 << 20))]);
    world.ok(&["put", "-n", "p/m", source.to_str().unwrap()]);
    put(&world, "1");
    let (read, _) = world.mount();
    assert_eq!(fs::read(read.join("p/m:v0/model")).unwrap(), noise(1, 9 << 20));
    let daemon = world.daemon();
    let packs = |suffix: &str| {
        let open = fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
        let links = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links.filter(|to| to.to_string_lossy().ends_with(suffix)).count()
    };
    assert!(packs(".pack") > 0, "it is open while it is read");
    world.ok(&["delete", "--delete-aliases", "p/m:v0"]);
    until("its descriptor is closed", || packs(".pack (deleted)") == 0);
}

#[test]
fn a_file_under_the_name_of_the_description_is_refused() {
    let mut world = World::new();
    let files: [(&str, &[u8]); 2] = [(".artifact.json", b"mine"), ("d/.artifact.json", b"mine")];
    let source = world.tree("named", &files);
    let ran = world.run(&["put", "-n", "p/a", source.to_str().unwrap()]);
    assert!(ran.code != 0 && ran.err.contains("--exclude .artifact.json"), "{}", ran.err);
    let args = ["put", "--exclude", ".artifact.json", "-n", "p/a", source.to_str().unwrap()];
    fs::write(source.join("other"), "x").unwrap();
    world.ok(&args);
    let (read, staging) = world.mount();
    for mount in [&read, &staging] {
        let version = mount.join("p/a:v0");
        assert!(fs::read_to_string(version.join(".artifact.json")).unwrap().contains("digest"));
        assert!(!names(&version).contains(".artifact.json"));
    }
    world.ok(&["draft", "p/a:v0"]);
    fs::write(staging.join("p/a/.artifact.json"), "mine").unwrap();
    let ran = world.run(&["commit", "p/a"]);
    assert!(ran.code != 0 && ran.err.contains(".artifact.json"), "{}", ran.err);
    // EINVAL would make `mv` complain of a directory that is moved into itself.
    let refused = fs::rename(staging.join("p/a"), staging.join("p/a:best")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::PERM.raw_os_error()));
    assert_eq!(fs::read_to_string(staging.join("p/a/.artifact.json")).unwrap(), "mine");
    fs::remove_file(staging.join("p/a/.artifact.json")).unwrap();
    fs::create_dir_all(staging.join("p/a/d")).unwrap();
    fs::write(staging.join("p/a/d/.artifact.json"), "below the root it is a name like others")
        .unwrap();
    world.ok(&["commit", "p/a"]);
}

#[test]
fn the_staging_mount_counts_files_as_its_disk_does() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    let disk = rustix::fs::statvfs(world.dir.path()).unwrap();
    let seen = rustix::fs::statvfs(&staging).unwrap();
    if disk.f_files > 0 {
        assert_eq!(seen.f_files, disk.f_files);
        assert!(seen.f_ffree <= disk.f_files && seen.f_ffree > 0);
    } else {
        assert!(seen.f_ffree > 1 << 30);
    }
}

#[test]
fn a_file_of_a_draft_takes_any_time_as_its_disk_does() {
    let mut world = World::new();
    let (_, staging) = world.mount();
    fs::create_dir_all(staging.join("p/a")).unwrap();
    let files = [world.path("plain"), staging.join("p/a/f")];
    let ends = [i64::MIN, i64::MIN + 1, -1_000_000_000_000_000, -1, 0, i64::MAX];
    for (tv_sec, tv_nsec) in ends.iter().flat_map(|s| [0, 1, 999_999_999].map(|n| (*s, n))) {
        let at = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: at, last_modification: at };
        let [plain, draft] = [&files[0], &files[1]].map(|path| {
            fs::write(path, "x").unwrap();
            rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
            let meta = fs::metadata(path).unwrap();
            (meta.mtime(), meta.mtime_nsec(), meta.atime(), meta.atime_nsec())
        });
        assert_eq!(draft, plain, "{at:?}");
    }
}

#[test]
fn a_rename_with_a_long_commit_returns_and_blocks_nothing() {
    let mut world = World::new();
    let source = world.tree("big", &[("model", &noise(1, 20_000_000))]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let web = Web::start(&world.repo().join("store"));
    world.ok(&["copy-store", "file:store", &web.url(), "--use"]);
    let (_, staging) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    let file = File::options().write(true).open(draft.join("model")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 5_000_000).unwrap();
    drop(file);
    // The commit must read the nodes around the change.
    web.set(Fault::Hang);
    let error = fs::rename(&draft, staging.join("p/a:best")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
    assert!(names(&staging.join("p")).contains("a"));
    let troubles = || world.json(&["status"])["troubles"].to_string();
    assert!(troubles().contains("the commit goes on"), "{}", troubles());
    web.set(Fault::None);
    let committed = || staging.join("p/a:best").exists();
    until("the commit has ended", || committed() || troubles().contains("was not committed"));
}
