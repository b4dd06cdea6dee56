//! External files of this machine: a user who may write to their folder reads nothing through the
//! mount that this user may not read directly.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;

use crate::world::{World, noise, write};

/// The id of an ordinary user.
const SOMEBODY: u32 = 54_321;

fn refer(world: &World, name: &str, path: &Path) {
    world.ok(&["put", "-n", name, "--reference", &format!("file://{}", path.display())]);
}

fn error_of(path: &Path) -> Option<Errno> {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    fs::read(path).err().and_then(|e| Errno::from_io_error(&e))
}

fn set_times_as(of: &Path, path: &Path) {
    let modified = fs::metadata(of).unwrap().modified().unwrap();
    File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn a_symlink_in_the_place_of_a_file_is_not_followed() {
    let mut world = World::new();
    let source = world.tree("data", &[("f", b"public"), ("d/g", b"public")]);
    let secrets = world.tree("secrets", &[("f", b"secret"), ("g", b"secret")]);
    for (name, more) in [("p/proved", None), ("p/length", Some("--no-checksum"))] {
        let url = format!("file://{}", source.display());
        let mut args = vec!["put", "-n", name, "--reference", &url];
        args.extend(more);
        world.ok(&args);
    }
    refer(&world, "p/one", &source.join("f"));
    let (read, _) = world.mount();
    let versions = ["p/proved:v0", "p/length:v0"].map(|version| read.join(version));
    for version in &versions {
        assert_eq!(fs::read(version.join("f")).unwrap(), b"public");
    }
    // The size and the times are equal, as any user who may stat the secret can arrange.
    set_times_as(&source.join("f"), &secrets.join("f"));
    fs::remove_file(source.join("f")).unwrap();
    symlink(secrets.join("f"), source.join("f")).unwrap();
    fs::remove_dir_all(source.join("d")).unwrap();
    symlink(&secrets, source.join("d")).unwrap();
    for version in &versions {
        assert_eq!(error_of(&version.join("f")), Some(Errno::IO));
        assert_eq!(error_of(&version.join("d/g")), Some(Errno::IO));
    }
    assert_eq!(error_of(&read.join("p/one:v0/f")), Some(Errno::IO));
    assert_eq!(world.json_of_failed(&["verify"])["damaged_paths"], 5);
}

#[test]
fn bytes_that_changed_behind_equal_times_are_not_served() {
    let mut world = World::new();
    let source = world.tree("data", &[("small", &noise(1, 3_000)), ("big", &noise(1, 9_000_000))]);
    refer(&world, "p/a", &source);
    let times = world.tree("times", &[("f", b"")]);
    let (read, _) = world.mount();
    for name in ["small", "big"] {
        let (path, mounted) = (source.join(name), read.join("p/a:v0").join(name));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(fs::read(&mounted).unwrap(), bytes);
        set_times_as(&path, &times.join("f"));
        write(&path, &noise(2, bytes.len()));
        set_times_as(&times.join("f"), &path);
        assert_eq!(error_of(&mounted), Some(Errno::IO), "{name}");
        write(&path, &bytes);
        assert_eq!(error_of(&mounted), None, "{name}: it is what it was");
    }
}

#[test]
fn symlinks_in_a_recorded_folder_are_recorded_as_their_targets() {
    let mut world = World::new();
    let source = world.tree("data", &[("blobs/f", b"one"), ("s/keep", b"")]);
    let out = world.tree("out", &[("d/g", b"two"), ("h", b"three")]);
    symlink("../blobs/f", source.join("s/inside")).unwrap();
    symlink(source.join("blobs"), source.join("s/blobs")).unwrap();
    symlink(out.join("d"), source.join("s/folder")).unwrap();
    symlink(out.join("h"), source.join("s/file")).unwrap();
    let link = world.path("link");
    symlink(&source, &link).unwrap();
    refer(&world, "p/a", &link);
    let (read, _) = world.mount();
    let root = read.join("p/a:v0/s");
    for (name, bytes) in
        [("inside", "one"), ("blobs/f", "one"), ("folder/g", "two"), ("file", "three")]
    {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(world.run(&["verify"]).code, 0);
}

/// Reads a file as another user. An error holds the message of the host.
fn read_as_somebody(path: &Path) -> io::Result<()> {
    let mut command = Command::new("cat");
    command.arg(path).uid(SOMEBODY).gid(SOMEBODY).env("LC_ALL", "C");
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(format!("{output:?}"))) }
}

/// Makes every directory above `path` searchable by all. Returns the former permissions.
fn open_the_way(path: &Path) -> Vec<(std::path::PathBuf, fs::Permissions)> {
    let mut before = Vec::new();
    for dir in path.ancestors().skip(1) {
        let mode = fs::metadata(dir).unwrap().permissions();
        if mode.mode() & 0o1 == 0 {
            before.push((dir.to_owned(), mode.clone()));
            fs::set_permissions(dir, fs::Permissions::from_mode(mode.mode() | 0o1)).unwrap();
        }
    }
    before
}

#[test]
fn a_reader_needs_the_right_to_read_the_original_file() {
    assert!(rustix::process::geteuid().is_root(), "only root's mounts serve others");
    let mut world = World::new();
    // Only root may search the directory of build targets.
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("open", 0o644), ("closed", 0o600), ("group", 0o640)] {
        let path = place.path().join(name);
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(place.path().join("group"), None, Some(SOMEBODY)).unwrap();
    refer(&world, "p/a", place.path());
    let (read, drafts) = world.mount();
    world.ok(&["draft", "p/a:v0"]);
    let restore = open_the_way(&read);
    // One of the draft's files is copied up.
    fs::set_permissions(drafts.join("p/a/group"), fs::Permissions::from_mode(0o644)).unwrap();
    for root in [read.join("p/a:v0"), drafts.join("p/a"), drafts.join("p/a:v0")] {
        read_as_somebody(&root.join("open")).unwrap();
        read_as_somebody(&root.join("group")).unwrap();
        // What the kernel has cached for root is still not readable to everybody.
        for _ in 0..2 {
            let refused = read_as_somebody(&root.join("closed")).unwrap_err().to_string();
            assert!(refused.contains("Permission denied"), "{root:?}: {refused}");
            assert_eq!(fs::read(root.join("closed")).unwrap(), b"closed", "{root:?}");
        }
    }
    let mode = |name: &str| fs::metadata(read.join("p/a:v0").join(name)).unwrap().mode() & 0o777;
    assert_eq!(["open", "group", "closed"].map(mode), [0o444, 0o440, 0o400]);
    // A file that everybody could read, and now cannot.
    let revoked = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(place.path().join("open"), mode).unwrap();
        [read.join("p/a:v0/open"), drafts.join("p/a:v0/open")]
            .map(|path| read_as_somebody(&path).is_ok())
    };
    assert_eq!((revoked(0o600), revoked(0o644)), ([false; 2], [true; 2]));
    let closed = drafts.join("p/a/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o666)).unwrap();
    for again in [false, true] {
        let refused = read_as_somebody(&closed).unwrap_err().to_string();
        assert!(refused.contains("Permission denied"), "{refused}");
        if !again {
            // Root may read it; the kernel's cached copy is still not readable to everybody.
            assert_eq!(fs::read(&closed).unwrap(), b"closed");
        }
    }
    // Nor through a commit of what is left of it, or through a copy. A removal reads nothing.
    let as_somebody = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(&drafts).uid(SOMEBODY).gid(SOMEBODY);
        command.output().unwrap().status.success()
    };
    fs::set_permissions(drafts.join("p/a"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(!as_somebody("truncate -s 5 p/a/closed"));
    assert!(!as_somebody("cp p/a:v0/closed p/a/copy"));
    assert!(as_somebody("test ! -s p/a/copy && cp p/a:v0/open p/a/mine"));
    assert_eq!(fs::read(&closed).unwrap(), b"closed");
    assert!(as_somebody(": > p/a/closed && test ! -s p/a/closed"));
    for (dir, mode) in restore {
        fs::set_permissions(dir, mode).unwrap();
    }
    assert_eq!(fs::read(read.join("p/a:v0/closed")).unwrap(), b"closed", "root may");
}

#[test]
fn only_the_operators_folders_may_be_referred_to() {
    let mut world = World::new();
    let source = world.tree("data", &[("f", b"one")]);
    let other = world.tree("other", &[("g", b"two")]);
    refer(&world, "p/other", &other);
    world.env.push(("ARTIFACTFS_EXTERNAL_DIRS", source.clone().into()));
    refer(&world, "p/a", &source);
    let url = format!("file://{}", other.display());
    let refused = world.run(&["put", "-n", "p/b", "--reference", &url]);
    assert_eq!(refused.code, 12, "{}", refused.err);
    assert!(refused.err.contains("ARTIFACTFS_EXTERNAL_DIRS"), "{}", refused.err);
    symlink(other.join("g"), source.join("g")).unwrap();
    let url = format!("file://{}", source.display());
    assert_eq!(world.run(&["put", "-n", "p/b", "--reference", &url]).code, 12);
    let (read, _) = world.mount();
    assert_eq!(fs::read(read.join("p/a:v0/f")).unwrap(), b"one");
    assert_eq!(error_of(&read.join("p/other:v0/g")), Some(Errno::ACCESS));
}
