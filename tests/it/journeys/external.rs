//! External files: recorded, read in place, and never with other bytes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::web::{Fault, Web};
use crate::world::{World, host, noise, same_tree, until, write};

/// The length of the largest file.
const BIG: usize = 5_000_000;

fn source(world: &World) -> PathBuf {
    let big = noise(1, BIG);
    let source = world.tree("data", &[("big", &big), ("d/small", b"one"), ("d/empty", b"")]);
    fs::set_permissions(source.join("d/small"), fs::Permissions::from_mode(0o755)).unwrap();
    source
}

fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn refer(world: &World, name: &str, url: &str) -> serde_json::Value {
    world.json(&["put", "-n", name, "--reference", url])
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

fn read_at(path: &Path, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    File::open(path)?.read_exact_at(&mut buffer, at).map(|()| buffer)
}

fn is_eio(path: &Path) {
    drop_caches();
    let error = fs::read(path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
}

fn log(world: &World) -> String {
    fs::read_to_string(world.repo().join("daemon.log")).unwrap_or_default()
}

fn set_mtime(path: &Path, seconds: u64) {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

#[test]
fn local_files_are_recorded_and_read_in_place() {
    let mut world = World::new();
    let source = source(&world);
    let put = refer(&world, "p/a", &file_url(&source));
    assert_eq!((&put["files"], &put["external"]), (&3.into(), &3.into()), "{put}");
    assert_eq!(put["size_bytes"], BIG as u64 + 3);
    assert!(put["stored_bytes"].as_u64().unwrap() < 2_000, "nothing is copied: {put}");
    let again = refer(&world, "p/a", &file_url(&source));
    assert_eq!((&again["new_version"], &again["files_read"]), (&false.into(), &0.into()));
    let show = world.json(&["show", "p/a:v0"]);
    assert_eq!(show["external"], 3, "{show}");
    assert!(show["stored_bytes"].as_u64().unwrap() < 2_000, "{show}");
    assert!(world.ok(&["show", "p/a"]).contains("3 files (3 external)"));
    let listed = world.json(&["ls", "p/a:v0/big"]);
    assert_eq!(listed[0]["external"]["url"], file_url(&source.join("big")));
    let checksum = blake3::hash(&noise(1, BIG)).to_hex();
    assert_eq!(listed[0]["external"]["checksum"], checksum.as_str());
    let long = world.ok(&["ls", "-l", "p/a:v0"]);
    assert!(long.contains(&format!("big <- {}", file_url(&source.join("big")))), "{long}");

    let (read, _) = world.mount();
    let root = read.join("p/a:v0");
    same_tree(&source, &root);
    assert_eq!(fs::metadata(root.join("d/small")).unwrap().permissions().mode() & 0o777, 0o555);
    let big = noise(1, BIG);
    for at in [0, 4_079, 4_080, 1_000_003, BIG - 10] {
        assert_eq!(read_at(&root.join("big"), at as u64, 10).unwrap(), big[at..at + 10]);
    }
    let file = File::open(root.join("big")).unwrap();
    #[allow(unsafe_code)]
    // Nobody changes a version.
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    assert_eq!(&map[..], &big[..]);
    let described = fs::read_to_string(root.join(".artifact.json")).unwrap();
    assert!(described.contains("\"external\": 3"), "{described}");

    world.ok(&["get", "p/a:v0", "--root", "out"]);
    same_tree(&source, &world.path("out"));
    let got = world.json(&["get", "p/a:v0", "--root", "out"]);
    assert_eq!((&got["files_written"], &got["files_kept"]), (&0.into(), &3.into()), "{got}");
    let links = world.path("links");
    let args = ["get", "p/a:v0", "--references-only-links", "--root", "links"];
    assert_eq!(world.json(&args)["bytes_written"], 0);
    assert_eq!(fs::read_link(links.join("big")).unwrap(), source.join("big"));
    assert_eq!(world.json(&args)["files_kept"], 3, "a second time nothing is done");
    assert_eq!(world.run(&["verify", "p/a:v0"]).code, 0);
    world.sound();
    world.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    same_tree(&source, &world.path("out"));
    assert_eq!(world.json(&["status"])["packs"], 0, "what described them is gone");
}

#[test]
fn a_file_that_changed_gives_eio_and_never_other_bytes() {
    let mut world = World::new();
    let source = source(&world);
    for name in ["touched", "other", "gone", "longer", "replaced"] {
        write(&source.join(name), &noise(7, 300_000));
    }
    refer(&world, "p/a", &file_url(&source));
    let (read, _) = world.mount();
    let root = read.join("p/a:v0");
    assert_eq!(read_at(&root.join("gone"), 0, 10).unwrap(), noise(7, 10));
    // Equal bytes with another time are the same file.
    set_mtime(&source.join("touched"), 1_000_000_000);
    // Other bytes are another file, whatever their time.
    write(&source.join("other"), &noise(8, 300_000));
    let was = fs::metadata(source.join("longer")).unwrap().modified().unwrap();
    let longer = File::options().append(true).open(source.join("longer")).unwrap();
    longer.write_all_at(b"", 0).unwrap();
    longer.set_len(300_001).unwrap();
    longer.set_modified(was).unwrap();
    fs::remove_file(source.join("gone")).unwrap();
    fs::remove_file(source.join("replaced")).unwrap();
    fs::create_dir(source.join("replaced")).unwrap();
    drop_caches();
    assert_eq!(fs::read(root.join("touched")).unwrap(), noise(7, 300_000));
    for name in ["other", "gone", "longer", "replaced"] {
        is_eio(&root.join(name));
        let url = file_url(&source.join(name));
        let line = format!("{url} is not what was recorded");
        until("it is in the log", || log(&world).contains(&line));
    }
    let found = world.json_of_failed(&["verify", "p/a:v0"]);
    assert_eq!(found["damaged_paths"], 4, "{found}");
    let told = world.run(&["verify"]);
    assert_eq!(told.code, 13, "{}", told.out);
    for name in ["other", "gone", "longer", "replaced"] {
        assert!(told.out.contains(&format!("p/a:v0/{name}: ")), "{}", told.out);
        assert!(told.out.contains(&file_url(&source.join(name))), "{}", told.out);
    }
    let refused = world.run(&["get", "p/a:v0", "--root", "out", "--include", "other"]);
    assert_eq!(refused.code, 13, "{}", refused.err);
    assert!(!world.path("out/other").exists());
    // A file that comes back is read again.
    write(&source.join("gone"), &noise(7, 300_000));
    drop_caches();
    assert_eq!(fs::read(root.join("gone")).unwrap(), noise(7, 300_000));
    // A directory without files leaves no trace in a version.
    fs::remove_dir(source.join("replaced")).unwrap();
    let new = refer(&world, "p/a", &file_url(&source));
    assert_eq!(new["new_version"], true);
    same_tree(&source, &read.join("p/a:v1"));
}

#[test]
fn a_draft_keeps_unchanged_external_files_external() {
    let mut world = World::new();
    let source = source(&world);
    let plain = world.tree("plain", &[("mine", b"stored"), ("d/more", b"too")]);
    let url = file_url(&source);
    let put = world.json(&["put", "-n", "p/a", plain.to_str().unwrap(), "--reference", &url]);
    assert_eq!((&put["files"], &put["external"]), (&5.into(), &3.into()), "{put}");
    let (read, staging) = world.mount();
    same_tree(&source.join("d/small"), &read.join("p/a:v0/d/small"));
    assert_eq!(fs::read(read.join("p/a:v0/d/more")).unwrap(), b"too");

    world.ok(&["draft", "p/a:v0"]);
    let draft = staging.join("p/a");
    assert_eq!(fs::read(draft.join("big")).unwrap(), noise(1, BIG));
    write(&draft.join("new"), b"new");
    fs::rename(draft.join("d/small"), draft.join("moved")).unwrap();
    world.ok(&["commit", "p/a"]);
    let show = world.json(&["show", "p/a:v1"]);
    assert_eq!((&show["files"], &show["external"]), (&6.into(), &3.into()), "{show}");
    let moved = world.json(&["ls", "p/a:v1/moved"]);
    assert_eq!(moved[0]["external"]["url"], file_url(&source.join("d/small")));

    // One byte changes: the draft stores the file, with the unchanged bytes around it.
    let file = File::options().write(true).open(draft.join("big")).unwrap();
    file.write_all_at(b"!", 4_000_000).unwrap();
    drop(file);
    let mut changed = noise(1, BIG);
    changed[4_000_000] = b'!';
    assert_eq!(fs::read(draft.join("big")).unwrap(), changed);
    world.ok(&["commit", "p/a"]);
    assert_eq!(world.json(&["show", "p/a:v2"])["external"], 2);
    assert_eq!(fs::read(read.join("p/a:v2/big")).unwrap(), changed);
    assert_eq!(fs::read(source.join("big")).unwrap(), noise(1, BIG), "nobody writes there");

    // A copy from version to draft is whole, and by reference.
    host("cp", &[Path::new("-r"), &staging.join("p/a:v0"), &staging.join("p/b")]);
    world.ok(&["commit", "p/b"]);
    let copied = world.json(&["show", "p/b:v0"]);
    assert_eq!(copied["external"].as_u64().unwrap() + 3, copied["files"].as_u64().unwrap());
    same_tree(&read.join("p/a:v0"), &read.join("p/b:v0"));
    // The lower file changed: it cannot be read, but a commit that does not read it succeeds.
    write(&source.join("big"), b"short");
    host("cp", &[Path::new("-r"), &staging.join("p/a:v0"), &staging.join("p/c")]);
    is_eio(&staging.join("p/c/big"));
    write(&staging.join("p/c/note"), b"kept");
    world.ok(&["commit", "p/c"]);
    assert_eq!(fs::read(read.join("p/c:v0/note")).unwrap(), b"kept");
    world.sound();
}

#[test]
fn references_into_a_mount_are_refused() {
    let mut world = World::new();
    let plain = world.tree("plain", &[("x", b"x")]);
    world.ok(&["put", "-n", "p/a", plain.to_str().unwrap()]);
    let (read, staging) = world.mount();
    let data = world.tree("data", &[("y", b"y")]);
    symlink(read.join("p/a:v0"), data.join("link")).unwrap();
    symlink(read.join("p/a:v0/x"), world.path("file-link")).unwrap();
    let bound = world.path("bound");
    fs::create_dir(&bound).unwrap();
    host("mount", &[Path::new("--bind"), &read.join("p"), &bound]);
    world.mounts.insert(0, bound.clone());
    world.ok(&["draft", "p/a:v0"]);
    for path in [
        read.clone(),
        read.join("p/a:v0/x"),
        staging.join("p/a"),
        data.clone(),
        world.path("file-link"),
        bound.join("a:v0"),
        // The mount point lies below this folder.
        world.dir.path().to_owned(),
    ] {
        for more in [&[][..], &["--no-checksum"]] {
            let url = file_url(&path);
            let refused =
                world.run(&[&["put", "-n", "p/loop", "--reference", &url], more].concat());
            assert_eq!(refused.code, 11, "{}: {}", path.display(), refused.err);
            assert!(refused.err.contains("leads into a mount"), "{}", refused.err);
        }
    }
    // A path that leads into a mount only later is refused at the read.
    fs::remove_file(data.join("link")).unwrap();
    refer(&world, "p/later", &file_url(&data));
    fs::remove_dir_all(&data).unwrap();
    symlink(read.join("p/later:v0"), &data).unwrap();
    is_eio(&read.join("p/later:v0/y"));
    until("it is in the log", || log(&world).contains("it leads into a mount"));
    host("umount", &[&bound]);
    world.mounts.remove(0);
}

#[test]
fn a_file_on_a_web_server_is_fetched_lazily_and_only_unchanged() {
    let mut world = World::new();
    let served = source(&world);
    let web = Web::start(&served);
    let url = format!("{}/big", web.url());
    let small = format!("a/b=\"{}/d/small", web.url()).replace('"', "");
    let put = world.json(&["put", "-n", "p/a", "--reference", &url, "--reference", &small]);
    assert_eq!(put["external"], 2, "{put}");
    let sent = web.counts().1;
    assert_eq!(sent, 0, "recording reads no content");
    assert_eq!(refer_two(&world, &url, &small)["new_version"], false);
    let tag = world.json(&["ls", "p/a:v0/big"])[0]["external"]["etag"].as_str().unwrap().to_owned();
    assert!(tag.starts_with('"'), "{tag}");

    let (read, _) = world.mount_with(&["-o", "data_timeout=5"]);
    let root = read.join("p/a:v0");
    let before = web.counts();
    let big = noise(1, BIG);
    assert_eq!(read_at(&root.join("big"), 3_000_000, 10).unwrap(), big[3_000_000..3_000_010]);
    let after = web.counts();
    assert!(after.1 - before.1 < 2_000_000, "lazily: {:?}", web.log());
    assert_eq!(fs::read(root.join("big")).unwrap(), big);
    assert_eq!(fs::read(root.join("a/b")).unwrap(), b"one");
    drop_caches();
    let before = web.counts();
    assert_eq!(fs::read(root.join("big")).unwrap(), big);
    assert_eq!(web.counts(), before, "the second read is served by the cache");
    // Readers get bytes before they are on the disk.
    until("it is on the disk", || bytes_in_cache(&world) > BIG as u64);
    world.umount();
    let (read, _) = world.mount_with(&["-o", "data_timeout=5"]);
    let root = read.join("p/a:v0");
    assert_eq!(fs::read(root.join("big")).unwrap(), big);
    assert_eq!(web.counts(), before, "also after a restart");
    damage_cache(&world);
    drop_caches();
    assert_eq!(fs::read(root.join("big")).unwrap(), big, "a damaged cache costs time");
    assert!(web.counts().0 > before.0);
    world.ok(&["get", "p/a:v0", "--root", "out"]);
    assert_eq!(fs::read(world.path("out/big")).unwrap(), big);
    let links = ["get", "p/a:v0", "--references-only-links", "--root", "links"];
    world.ok(&links);
    assert_eq!(fs::read_to_string(world.path("links/big.url")).unwrap(), format!("{url}\n"));
    assert_eq!(world.run(&["verify"]).code, 0);

    // A change, at a server that heeds conditions and at one that does not.
    let written = noise(2, BIG);
    write(&served.join("big"), &written);
    for (fault, length) in [(Fault::None, BIG), (Fault::Careless, BIG), (Fault::Careless, 1_000)] {
        fs::File::options()
            .write(true)
            .open(served.join("big"))
            .unwrap()
            .set_len(length as u64)
            .unwrap();
        clear_cache(&mut world);
        web.set(fault);
        let path = world.path("mnt/p/a:v0/big");
        is_eio(&path);
        let error = read_at(&path, 4_900_000, 10).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        let line = format!("{url} is not what was recorded");
        until("it is in the log", || log(&world).contains(&line));
        let told = world.run(&["verify", "p/a:v0"]);
        assert_eq!((told.code, told.out.contains(&line)), (13, true), "{}", told.out);
    }
    fs::remove_file(served.join("big")).unwrap();
    web.set(Fault::None);
    is_eio(&world.path("mnt/p/a:v0/big"));
    until("it is in the log", || log(&world).contains("it is not there any more"));
    // A server that is down is not taken for a change.
    web.set(Fault::Refuse);
    clear_cache(&mut world);
    drop_caches();
    let error = fs::read(world.path("mnt/p/a:v0/a/b")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::TIMEDOUT.raw_os_error()), "{error}");
    web.set(Fault::None);
    let path = world.path("mnt/p/a:v0/a/b");
    until("it is read again", || fs::read(&path).is_ok_and(|bytes| bytes == b"one"));
}

fn refer_two(world: &World, one: &str, other: &str) -> serde_json::Value {
    world.json(&["put", "-n", "p/a", "--reference", one, "--reference", other])
}

fn bytes_in_cache(world: &World) -> u64 {
    let mut sum = 0;
    for folder in fs::read_dir(world.path("cache/packs")).unwrap() {
        for segment in fs::read_dir(folder.unwrap().path()).unwrap() {
            sum += segment.unwrap().metadata().unwrap().blocks() * 512;
        }
    }
    sum
}

/// Mounts again, with an empty cache.
fn clear_cache(world: &mut World) {
    world.umount();
    let packs = world.path("cache/packs");
    if packs.exists() {
        fs::remove_dir_all(packs).unwrap();
    }
    world.mount_with(&["-o", "data_timeout=5"]);
}

/// Changes every byte of data in every segment of the cache.
fn damage_cache(world: &World) {
    let mut hurt = 0;
    for folder in fs::read_dir(world.path("cache/packs")).unwrap() {
        for segment in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = segment.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().filter(|b| **b != 0).for_each(|b| *b = if *b == 1 { 2 } else { 1 });
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            hurt += 1;
        }
    }
    assert!(hurt > 0);
}

#[test]
fn invalid_references_are_refused_with_a_hint() {
    let world = World::new();
    let source = source(&world);
    let web = Web::start(&source);
    let url = web.url();
    let (file, host) = (file_url(&source), url.trim_start_matches("http://"));
    let twice = format!("big={file}/d/small");
    for (references, code, told) in [
        (vec![format!("http://me:hunter2@{host}/big")], 2, "password"),
        (vec![format!("{url}/big?X-Amz-Signature=hunter2")], 2, "X-Amz-Signature"),
        (vec!["s3://AKIA:hunter2@bucket/x".to_owned()], 2, "password"),
        (vec!["ftp://host/x".to_owned()], 2, "scheme"),
        (vec!["file://relative".to_owned()], 2, "file:///DIR"),
        (vec![format!("{url}/")], 3, "NAME=URL"),
        (vec![format!("{url}/nothing")], 10, "nothing"),
        (vec![format!("{file}/nothing")], 10, "nothing"),
        (vec![file.clone(), twice], 11, "named twice"),
        (vec![file.clone(), file.clone()], 11, "named twice"),
        (vec![format!("../x={file}")], 3, "\"..\""),
    ] {
        let mut args = vec!["put", "-n", "p/a"];
        references.iter().for_each(|reference| args.extend(["--reference", reference]));
        let refused = world.run(&args);
        assert_eq!(refused.code, code, "{references:?}: {}", refused.err);
        assert!(refused.err.contains(told), "{references:?}: {}", refused.err);
        assert!(!refused.err.contains("hunter2"), "{}", refused.err);
    }
    let few = world.run(&["put", "-n", "p/a", "--reference", &file, "--max-objects", "2"]);
    assert_eq!(few.code, 2, "{}", few.err);
    assert!(few.err.contains("more than 2 objects") && few.err.contains("--max-objects"));
    world.ok(&["put", "-n", "p/a", "--reference", &file, "--max-objects", "3"]);
    assert_eq!(world.run(&["put", "-n", "p/a"]).code, 2, "something has to be put");
    // A name that the source also has.
    let plain = world.tree("plain", &[("big", b"mine")]);
    let both = world.run(&["put", "-n", "p/b", plain.to_str().unwrap(), "--reference", &file]);
    assert_eq!((both.code, both.err.contains("big is named twice")), (11, true), "{}", both.err);
    world.ok(&[
        "put",
        "-n",
        "p/b",
        plain.to_str().unwrap(),
        "--exclude",
        "big",
        "--reference",
        &format!("sub={file}"),
    ]);
    assert_eq!(world.json(&["ls", "p/b:v0"])[0]["name"], "sub");
}

#[test]
fn without_a_checksum_only_the_length_counts() {
    let mut world = World::new();
    let source = source(&world);
    let args = ["put", "-n", "p/a", "--no-checksum", "--reference", &file_url(&source)];
    assert_eq!(world.json(&args)["external"], 3);
    let listed = world.json(&["ls", "p/a:v0/big"]);
    let recorded = &listed[0]["external"];
    assert!(recorded["checksum"].is_null() && recorded["modified"].is_null(), "{listed}");
    let (read, _) = world.mount();
    write(&source.join("big"), &noise(2, BIG));
    assert_eq!(world.json(&args)["new_version"], false, "nothing of what is recorded changed");
    assert_eq!(fs::read(read.join("p/a:v0/big")).unwrap(), noise(2, BIG));
    assert_eq!(world.run(&["verify"]).code, 0);
    write(&source.join("big"), b"short");
    is_eio(&read.join("p/a:v0/big"));
}

#[test]
fn of_a_hundred_thousand_files_only_changed_ones_are_read_again() {
    let mut world = World::new();
    let source = world.path("many");
    for folder in 0..100 {
        let folder = source.join(format!("{folder:02}"));
        fs::create_dir_all(&folder).unwrap();
        for n in 0..1_000 {
            fs::write(folder.join(format!("{n:03}")), format!("{n}")).unwrap();
        }
    }
    let put = refer(&world, "p/a", &file_url(&source));
    assert_eq!(put["external"], 100_000);
    fs::write(source.join("07/123"), "other").unwrap();
    let again = refer(&world, "p/a", &file_url(&source));
    assert_eq!((&again["new_version"], &again["external"]), (&true.into(), &100_000.into()));
    // Files written within the last seconds cannot be recognized by their times yet.
    assert!(again["stored_bytes"].as_u64().unwrap() < 200_000, "{again}");
    assert_eq!(world.ok(&["diff", "p/a:v0", "p/a:v0"]), "");
    let changed = world.run(&["diff", "p/a:v0", "p/a:v1"]).out;
    assert!(changed.starts_with("~ 07/123") && changed.lines().count() == 1, "{changed}");
    let (read, _) = world.mount();
    assert_eq!(fs::read_dir(read.join("p/a:v1/42")).unwrap().count(), 1_000);
    assert_eq!(fs::read(read.join("p/a:v1/07/123")).unwrap(), b"other");
    same_tree(&source.join("31"), &read.join("p/a:v1/31"));
    world.sound();
}
