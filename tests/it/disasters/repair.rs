//! Repair destroys nothing: not with any damage, at any kill, or beside any other work.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use artifactfs::content::options::StoreOptions;
use artifactfs::error::{Error, Kind};
use artifactfs::model::host::Host;
use artifactfs::model::object::Located;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::ops::{delete, get};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::{EngineRegistry, Fix, MaintenanceMode};

use crate::engines::Watched;
use crate::world::{PATIENCE, World, noise, ran, same_tree};

/// Returns the files of the store with this extension, sorted.
fn stored(world: &World, extension: &str) -> Vec<PathBuf> {
    files_of(&world.repo().join("store/packs"), extension)
}

pub(super) fn files_of(packs: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in fs::read_dir(packs).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], offset).unwrap();
}

/// Returns the longest pack.
fn biggest(world: &World) -> PathBuf {
    let packs = stored(world, "pack").into_iter();
    packs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn readable(world: &World, reference: &str, source: &Path) -> bool {
    let out = world.path("out");
    let _ = fs::remove_dir_all(&out);
    if world.run(&["get", reference, "--root", out.to_str().unwrap()]).code != 0 {
        return false;
    }
    same_tree(source, &out);
    true
}

/// Puts six models, each as a version of an artifact of its own.
fn six(world: &World) -> Vec<PathBuf> {
    let model = |number: u64| {
        let name = format!("s{number}");
        let source = world.tree(&name, &[("model.bin", &noise(number, 9 << 20)), ("note", b"n")]);
        world.ok(&["put", "-n", &format!("p/m{number}"), source.to_str().unwrap()]);
        source
    };
    (0..6).map(model).collect()
}

fn all_readable(world: &World, sources: &[PathBuf]) {
    for (number, source) in sources.iter().enumerate() {
        assert!(readable(world, &format!("p/m{number}"), source), "m{number} is lost");
    }
}

#[test]
fn a_damaged_or_missing_index_costs_nothing() {
    let world = World::new();
    let sources = six(&world);
    let indexes = stored(&world, "idx");
    flip(&indexes[2], 100);
    fs::remove_file(&indexes[4]).unwrap();
    let found = world.json_of_failed(&["fsck"]);
    assert_eq!(found["problems"], 2, "{found}");

    let packs = stored(&world, "pack");
    world.ok(&["fsck", "--rebuild"]);
    assert_eq!(stored(&world, "pack"), packs);
    all_readable(&world, &sources);
    world.sound();

    flip(&indexes[1], 100);
    fs::remove_file(&indexes[5]).unwrap();
    world.ok(&["fsck", "--repair"]);
    world.sound();
    all_readable(&world, &sources);
    // The rebuilt indexes name everything.
    world.ok(&["fsck", "--rebuild"]);
    world.ok(&["verify"]);
    world.sound();
}

#[test]
fn one_put_of_the_good_copy_mends_every_version_that_needs_it() {
    for (lost, repair) in [
        (false, None),
        (false, Some("--repair")),
        (false, Some("--rebuild")),
        (true, None),
        (true, Some("--repair")),
        (true, Some("--rebuild")),
    ] {
        let world = World::new();
        let source = world.tree("s", &[("model.bin", &noise(1, 3 << 20)), ("note", b"n")]);
        let path = source.to_str().unwrap();
        world.ok(&["put", "-n", "p/a", path]);
        world.ok(&["put", "-n", "q/b", path]);
        let pack = biggest(&world);
        match lost {
            true => fs::remove_file(&pack).unwrap(),
            false => flip(&pack, 1_000_000),
        }
        assert_eq!(world.run(&["verify"]).code, 13);
        if let Some(repair) = repair {
            assert_eq!(world.run(&["fsck", repair]).code, 13, "lost {lost}, {repair}");
        }
        // First from another path, then from the path in the put index.
        let again = world.path("again");
        crate::world::host("cp", &[Path::new("-r"), &source, &again]);
        let told = world.json(&["put", "-n", "p/c", again.to_str().unwrap()]);
        assert!(told["stored_bytes"].as_u64().unwrap() > 0, "lost {lost}, {repair:?}: {told}");
        for reference in ["p/a", "q/b", "p/c"] {
            assert!(readable(&world, reference, &source), "{reference}: lost {lost}, {repair:?}");
        }
        world.ok(&["verify"]);
        world.sound();
        // Counts are exact: the deletion of the last version frees every byte.
        for reference in ["p/a:v0", "q/b:v0", "p/c:v0"] {
            world.ok(&["delete", reference, "--delete-aliases"]);
        }
        world.ok(&["fsck", "--repair"]);
        assert!(stored(&world, "pack").is_empty(), "lost {lost}, {repair:?}");
    }
}

#[test]
fn damage_found_by_a_reader_of_the_mount_is_mended_by_a_put() {
    let mut world = World::new();
    let source = world.tree("s", &[("model.bin", &noise(1, 3 << 20))]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    flip(&biggest(&world), 1_000_000);
    let (read, _) = world.mount();
    let file = read.join("p/a:v0/model.bin");
    assert_eq!(fs::read(&file).unwrap_err().raw_os_error(), Some(5), "EIO");
    let told = world.json(&["put", "-n", "p/b", source.to_str().unwrap()]);
    assert!(told["stored_bytes"].as_u64().unwrap() > 0, "{told}");
    assert!(fs::read(&file).unwrap() == noise(1, 3 << 20));
    world.umount();
    world.ok(&["verify"]);
    world.sound();
}

#[test]
fn an_unchanged_file_also_serves_as_the_good_copy() {
    let world = World::new();
    let source = world.tree("s", &[("model.bin", &noise(1, 3 << 20))]);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(600);
    fs::File::open(source.join("model.bin")).unwrap().set_modified(old).unwrap();
    let path = source.to_str().unwrap();
    world.ok(&["put", "-n", "p/a", path]);
    flip(&biggest(&world), 1_000_000);
    assert_eq!(world.run(&["verify"]).code, 13);
    world.ok(&["put", "-n", "p/a", path]);
    world.ok(&["verify"]);
}

#[test]
fn a_lost_pack_that_returns_is_found_again() {
    let world = World::new();
    let source = world.tree("s", &[("model.bin", &noise(1, 3 << 20)), ("note", b"n")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let (pack, aside) = (biggest(&world), world.path("aside"));
    fs::rename(&pack, &aside).unwrap();
    assert_eq!(world.run(&["verify"]).code, 13);
    for mode in ["--repair", "--rebuild"] {
        assert_eq!(world.run(&["fsck", mode]).code, 13);
    }
    fs::rename(&aside, &pack).unwrap();
    world.ok(&["fsck", "--repair"]);
    world.ok(&["verify"]);
    world.sound();
}

#[test]
fn an_unreadable_node_makes_nothing_below_it_garbage() {
    for mode in ["--repair", "--rebuild"] {
        let world = World::new();
        let source = world.tree("s", &[("d/model.bin", &noise(1, 3 << 20)), ("d/note", b"n")]);
        world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
        let packs = stored(&world, "pack").into_iter();
        let nodes = packs.min_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        let good = fs::read(&nodes).unwrap();
        flip(&nodes, 10);
        assert_eq!(world.run(&["fsck", mode]).code, 13, "{mode}");
        assert_eq!(world.run(&["gc", "--garbage", "0"]).code, 0);
        // The good bytes return from a copy of the disk: everything is there.
        fs::write(&nodes, good).unwrap();
        world.ok(&["fsck", "--repair"]);
        assert!(readable(&world, "p/a", &source), "{mode}");
        world.sound();
    }
}

#[test]
fn an_unmounted_store_is_not_taken_for_a_lost_one() {
    let world = World::new();
    let sources = six(&world);
    let (store, away) = (world.repo().join("store"), world.path("away"));
    fs::rename(&store, &away).unwrap();
    fs::create_dir(&store).unwrap();
    for verb in [&["fsck", "--repair"][..], &["fsck", "--rebuild"], &["fsck"]] {
        let ran = world.run(verb);
        assert_eq!(ran.code, 15, "{verb:?}: {}{}", ran.out, ran.err);
    }
    assert_ne!(world.run(&["put", "-n", "p/x", sources[0].to_str().unwrap()]).code, 0);
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    world.ok(&["verify"]);
    all_readable(&world, &sources);
}

#[test]
fn two_repositories_never_share_a_store() {
    let world = World::new();
    let shared = format!("file:{}", world.path("shared").display());
    let init = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_artifactfs"));
        command.args(["init", "--store", &shared]).arg("--repo").arg(world.path(name));
        ran(command.output().unwrap())
    };
    assert_eq!(init("one").code, 0);
    let second = init("two");
    assert_eq!(second.code, 11, "{}", second.err);
    assert!(second.err.contains("belongs to another repository"), "{}", second.err);
    assert!(!world.path("two/repository.json").exists());

    // A repository that was pointed there by hand changes nothing.
    let settings = world.repo().join("repository.json");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace("file:store", &shared)).unwrap();
    assert_eq!(world.run(&["fsck", "--repair"]).code, 11);
}

#[test]
fn unknown_packs_stay_until_they_are_named_and_old() {
    let world = World::new();
    let sources = six(&world);
    let (pack, index) = (biggest(&world), biggest(&world).with_extension("idx"));
    let folder = world.repo().join("store/packs/01");
    fs::create_dir_all(&folder).unwrap();
    let foreign = folder.join(format!("{}.pack", "0123456789abcdef".repeat(2)));
    fs::copy(&pack, &foreign).unwrap();
    fs::copy(&index, foreign.with_extension("idx")).unwrap();
    let found = world.json_of_failed(&["fsck"]);
    assert_eq!(found["unknown_packs"], 1, "{found}");
    for mode in ["--repair", "--rebuild"] {
        world.ok(&["fsck", mode]);
        assert!(foreign.exists(), "{mode}");
    }
    let young = world.json(&["fsck", "--remove-unknown"]);
    assert_eq!(young["too_young"].as_array().unwrap().len(), 1, "{young}");
    assert!(foreign.exists());
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    fs::File::open(&foreign).unwrap().set_modified(old).unwrap();
    world.ok(&["fsck", "--remove-unknown"]);
    assert!(!foreign.exists());
    // Only the index is left of another pack.
    let left = foreign.with_extension("idx");
    fs::copy(&index, &left).unwrap();
    assert_eq!(world.json_of_failed(&["fsck"])["unknown_packs"], 1);
    world.ok(&["fsck", "--remove-unknown"]);
    assert!(left.exists());
    fs::File::open(&left).unwrap().set_modified(old).unwrap();
    world.ok(&["fsck", "--remove-unknown"]);
    assert!(!left.exists());
    all_readable(&world, &sources);
    world.sound();
}

/// Opens a repository whose engine dies before one of its writes, and makes no later write either.
pub(super) fn open(
    layout: &Layout,
    inner: &Arc<MemoryEngine>,
    lives: i64,
) -> (Repository, Arc<AtomicI64>) {
    let left = Arc::new(AtomicI64::new(lives));
    let lives = Arc::clone(&left);
    let before_write = move || match lives.fetch_sub(1, Ordering::SeqCst) {
        1.. => Ok(()),
        _ => Err(Error::new(Kind::Unavailable, "killed")),
    };
    let engine = Watched { inner: Arc::clone(inner), before_write };
    let registry = EngineRegistry::open(Box::new(engine), Host::system().clock).unwrap();
    let repository =
        Repository::new(layout.clone(), Arc::new(registry), &StoreOptions::default()).unwrap();
    (repository, left)
}

/// Makes a repository whose versions share much. Returns the source of each version, too.
pub(super) fn shared_versions(
    world: &World,
) -> (Layout, Arc<MemoryEngine>, BTreeMap<String, PathBuf>) {
    let layout = Layout::new(&world.path("memory")).unwrap();
    layout.init(None, BTreeMap::new(), None, &Host::system()).unwrap();
    let inner = Arc::new(MemoryEngine::default());
    let (repository, _) = open(&layout, &inner, i64::MAX);
    let mut sources = BTreeMap::new();
    for version in 0..4u64 {
        let name = format!("v{version}");
        let files: Vec<(String, Vec<u8>)> = (0..40)
            .map(|file| {
                let seed = if file % 4 == 0 { version * 100 + file } else { file };
                (format!("d{}/f{file}", file % 5), noise(seed, 3_000))
            })
            .collect();
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        let source = world.tree(&format!("source{version}"), &files);
        let request = PutRequest::plain(source.clone(), "p/a".parse().unwrap());
        put(&repository, &request, Arc::new(Silent)).unwrap();
        sources.insert(name, source);
    }
    (layout, inner, sources)
}

pub(super) fn check_all(
    world: &World,
    repository: &Repository,
    sources: &BTreeMap<String, PathBuf>,
) {
    for (name, source) in sources {
        let info = repository.registry.lookup(format!("p/a:{name}").parse().unwrap()).unwrap();
        let out = world.path("out");
        let _ = fs::remove_dir_all(&out);
        get::get(repository, info.root, &out, &Default::default(), &Silent).unwrap();
        same_tree(source, &out);
    }
}

/// Counts some references too high, and removes the indexes of some packs.
pub(super) fn hurt(layout: &Layout, inner: &Arc<MemoryEngine>) {
    let (repository, _) = open(layout, inner, i64::MAX);
    let registry = &repository.registry;
    let holder = || "hurt".to_owned();
    registry.begin_maintenance(MaintenanceMode::Repair, holder(), None, Vec::new()).unwrap();
    let objects = registry.scan_objects(None, 10_000).unwrap();
    let fixes = objects.into_iter().step_by(3).map(|(digest, seen)| {
        let now = Located { refs: seen.refs + 1, ..seen };
        Fix::Object { digest, seen: Some(seen), now }
    });
    assert!(registry.repair(holder(), fixes.collect()).unwrap() > 10);
    registry.end_maintenance(holder()).unwrap();
    for index in files_of(&layout.root.join("store/packs"), "idx").iter().step_by(2) {
        fs::remove_file(index).unwrap();
    }
    assert!(fsck(&repository, Mode::Check).unwrap().problems > 10);
}

#[test]
fn fsck_killed_before_any_of_its_writes_loses_nothing() {
    let modes = [Mode::Repair, Mode::Rebuild];
    for (mode, is_hurt) in modes.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let mut step = 0;
        loop {
            let world = World::new();
            let (layout, inner, mut sources) = shared_versions(&world);
            if is_hurt {
                hurt(&layout, &inner);
            }
            let (repository, left) = open(&layout, &inner, step);
            let ended = fsck(&repository, mode).is_ok();
            drop(repository);
            let died = left.load(Ordering::SeqCst) < 0;
            // The next command goes on or cleans up: here a deletion, and then a put.
            let (repository, _) = open(&layout, &inner, i64::MAX);
            check_all(&world, &repository, &sources);
            if is_hurt {
                fsck(&repository, Mode::Repair).unwrap();
            }
            let gone = "p/a:v1".parse().unwrap();
            delete::delete(&repository, &gone, true, Reclaim::Now).unwrap();
            sources.remove("v1");
            check_all(&world, &repository, &sources);
            let again = PutRequest::plain(sources["v0"].clone(), "p/a".parse().unwrap());
            put(&repository, &again, Arc::new(Silent)).unwrap();
            let report = fsck(&repository, Mode::Check).unwrap();
            assert_eq!(report.problems, 0, "{mode:?} {is_hurt} {step}: {:?}", report.findings);
            assert_eq!(repository.registry.maintenance().unwrap(), None);
            check_all(&world, &repository, &sources);
            if ended && !died {
                assert!(step > 3, "it was never killed");
                break;
            }
            step += 1;
        }
    }
}

#[test]
fn puts_and_deletions_beside_repair_are_refused_or_done() {
    let mut world = World::new();
    let mut files: Vec<(String, Vec<u8>)> =
        (0..600).map(|n| (format!("d{}/f{n}", n / 100), noise(n, 300))).collect();
    files.push(("version".to_owned(), b"0".to_vec()));
    let borrowed: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let source = world.tree("s", &borrowed);
    world.mount();
    world.ok(&["put", "-n", "p/d", source.to_str().unwrap()]);
    let mut acknowledged = BTreeMap::from([("p/d:v0".to_owned(), 0u64)]);
    let (mut refused, mut done) = (0, 0);
    for round in 1..=30u64 {
        let mode = if round % 2 == 0 { "--repair" } else { "--rebuild" };
        let mut repair = world.start(&["fsck", mode]);
        fs::write(source.join("version"), round.to_string()).unwrap();
        let start = std::time::Instant::now();
        loop {
            let ran = world.run(&["--json", "put", "-n", "p/d", source.to_str().unwrap()]);
            if ran.code == 0 {
                let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
                let reference = told["reference"].as_str().unwrap().to_owned();
                acknowledged.insert(reference, round);
                done += 1;
                break;
            }
            assert_eq!(ran.code, 11, "{}", ran.err);
            refused += 1;
            assert!(start.elapsed() < PATIENCE, "{}", ran.err);
        }
        if round % 3 == 0 {
            let oldest = acknowledged.keys().next().unwrap().clone();
            let ran = world.run(&["delete", "--delete-aliases", &oldest]);
            assert!([0, 11].contains(&ran.code), "{}", ran.err);
            if ran.code == 0 {
                acknowledged.remove(&oldest);
            }
        }
        let code = repair.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 11)), "{mode}: {code:?}");
    }
    assert_eq!(done, 30);
    eprintln!("{refused} puts were refused while the table was repaired");
    world.sound();
    for (reference, round) in &acknowledged {
        fs::write(source.join("version"), round.to_string()).unwrap();
        assert!(readable(&world, reference, &source), "{reference} is lost");
    }
}

#[test]
fn fsck_killed_at_any_moment_is_settled_by_the_next_command() {
    let world = World::new();
    let sources = six(&world);
    for round in 0..24u64 {
        let mode = if round % 2 == 0 { "--repair" } else { "--rebuild" };
        let mut child = world.start(&["fsck", mode]);
        std::thread::sleep(std::time::Duration::from_millis(round * 3));
        let _ = child.kill();
        child.wait().unwrap();
        let number = round as usize % 6;
        assert!(readable(&world, &format!("p/m{number}"), &sources[number]));
        fs::write(sources[number].join("note"), round.to_string()).unwrap();
        world.ok(&["put", "-n", &format!("p/m{number}"), sources[number].to_str().unwrap()]);
        let deleted = format!("p/m{number}:v{}", round / 6);
        world.ok(&["delete", "--delete-aliases", &deleted]);
    }
    world.sound();
    all_readable(&world, &sources);
}

#[test]
fn puts_beside_copy_store_are_in_the_copy() {
    let world = World::new();
    let mut sources = six(&world);
    for round in 0..4u64 {
        let from = if round == 0 { "file:store".to_owned() } else { format!("file:store{round}") };
        let to = format!("file:store{}", round + 1);
        let mut copy = world.start(&["copy-store", &from, &to, "--use"]);
        loop {
            let number = sources.len() as u64;
            let source = world.tree(&format!("s{number}"), &[("f", &noise(number, 300_000))]);
            let ran = world.run(&["put", "-n", &format!("p/m{number}"), source.to_str().unwrap()]);
            match ran.code {
                0 => sources.push(source),
                other => assert_eq!(other, 11, "{}", ran.err),
            }
            if copy.try_wait().unwrap().is_some() {
                break;
            }
        }
        if copy.wait().unwrap().code() == Some(11) {
            // Another process wrote during the last round: the repository keeps its store.
            world.ok(&["copy-store", &from, &to, "--use"]);
        }
        fs::remove_dir_all(world.repo().join(from.strip_prefix("file:").unwrap())).unwrap();
        all_readable(&world, &sources);
        world.sound();
    }
    assert!(sources.len() > 6, "nothing was put meanwhile");
}

/// Restores the registry of an older backup, which lacks all later puts.
#[test]
fn packs_unknown_to_an_older_registry_survive_every_repair() {
    for lost in [false, true] {
        let world = World::new();
        let first = world.tree("a", &[("f", b"first")]);
        world.ok(&["put", "-n", "p/a", first.to_str().unwrap()]);
        let registry = world.repo().join("registry.redb");
        let (old, new) = (world.path("old"), world.path("new"));
        fs::copy(&registry, &old).unwrap();
        let files: [(&str, &[u8]); 2] = [("d/big", &noise(1, 5 << 20)), ("d/e/small", b"small")];
        let second = world.tree("b", &files);
        world.ok(&["put", "-n", "p/b", second.to_str().unwrap()]);
        fs::copy(&registry, &new).unwrap();
        fs::copy(&old, &registry).unwrap();
        let (biggest, aside) = (biggest(&world), world.path("aside"));
        if lost {
            // Part of the store is missing for now.
            fs::rename(&biggest, &aside).unwrap();
        }
        let packs = stored(&world, "pack");
        for mode in ["--repair", "--rebuild", "--repair", "--rebuild"] {
            world.ok(&["fsck", mode]);
            world.ok(&["gc", "--garbage", "0"]);
            world.ok(&["verify"]);
            let found = world.json_of_failed(&["fsck"]);
            assert_eq!(found["problems"], found["unknown_packs"], "{mode}: {found}");
        }
        assert_eq!(stored(&world, "pack"), packs, "lost: {lost}");
        if lost {
            fs::rename(&aside, &biggest).unwrap();
        }
        fs::copy(&new, &registry).unwrap();
        assert!(readable(&world, "p/b", &second), "lost: {lost}");
        world.sound();
    }
}
