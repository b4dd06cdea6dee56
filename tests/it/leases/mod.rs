//! Leases and deletions, played call by call, as several processes make them.

mod freeing;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use artifactfs::content::options::StoreOptions;
use artifactfs::error::{Error, Kind, PutHint, Result};
use artifactfs::model::digest::Digest;
use artifactfs::model::host::Host;
use artifactfs::model::object::{NewObject, PackId};
use artifactfs::model::object_kind::ObjectKind;
use artifactfs::model::time::Timestamp;
use artifactfs::ops::gc;
use artifactfs::ops::process_id::this_process;
use artifactfs::ops::put::{PutReport, PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::engine::redb::RedbEngine;
use artifactfs::registry::prelude::*;
use artifactfs::registry::{
    Call, CommitRequest, EngineRegistry, Judged, LeaseId, LeasesCall, ObjectsCall, Transport,
    VersionsCall, dispatch,
};

use crate::engines::Watched;
use crate::world::{World, noise, until, write};

const HOUR: u64 = 3_600_000;

/// Opens a registry in memory. Returns its clock, in milliseconds, too.
fn registry() -> (EngineRegistry, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(HOUR));
    let time = Arc::clone(&clock);
    let time = Arc::new(move || Timestamp(time.load(Ordering::SeqCst)));
    (EngineRegistry::open(Box::new(MemoryEngine::default()), time).unwrap(), clock)
}

fn object(seed: u8, kind: ObjectKind, offset: u64, children: Vec<Digest>) -> NewObject {
    let digest = Digest::of(kind, &[seed]);
    NewObject { digest, kind, codec: 0, body_bytes: 1, offset, stored_bytes: 1, children }
}

fn request(path: &str, root: Digest) -> CommitRequest {
    CommitRequest::plain(path.parse().unwrap(), root)
}

/// Stores one tree in a pack of its own.
fn store_tree(registry: &dyn Registry, lease: LeaseId, seed: u8) -> Result<Digest> {
    let (pack, tree) = (PackId([seed; 16]), object(seed, ObjectKind::Tree, 0, vec![]));
    registry.register_pack(lease, pack)?;
    registry.add_objects(lease, pack, 1, vec![tree.clone()])?;
    Ok(tree.digest)
}

fn dead(lease: LeaseId, holder: &str) -> Judged {
    Judged { lease, holder: holder.to_owned(), dead: true }
}

fn is_there(registry: &dyn Registry, digest: Digest) -> bool {
    registry.locate(vec![digest]).unwrap()[0].is_some()
}

/// Collects all unreachable objects. They must have no children.
fn reap(registry: &dyn Registry) {
    let dead = registry.unreachable(100).unwrap();
    registry.collect(dead.into_iter().map(|(digest, _)| (digest, vec![])).collect()).unwrap();
}

#[test]
fn an_expired_lease_is_valid_until_it_is_ended() {
    let (registry, clock) = registry();
    let lease = registry.begin("put".into(), "one".into(), None).unwrap().lease;
    clock.fetch_add(11 * HOUR, Ordering::SeqCst);
    assert!(registry.leases().unwrap()[0].expired);
    let root = store_tree(&registry, lease, 1).unwrap();
    registry.commit(lease, request("p/a", root)).unwrap();
    // A lease that was renewed is not ended by an older judgement.
    let other = registry.begin("put".into(), "two".into(), None).unwrap().lease;
    let kept = store_tree(&registry, other, 2).unwrap();
    clock.fetch_add(HOUR, Ordering::SeqCst);
    let late = Judged { dead: false, ..dead(other, "two") };
    registry.renew(other).unwrap();
    registry.end_lease(late.clone(), true).unwrap();
    registry.commit(other, request("p/b", kept)).unwrap();
    // A lease that was ended is lost for good. That is no conflict: the work may be tried again.
    let third = registry.begin("put".into(), "three".into(), None).unwrap().lease;
    clock.fetch_add(HOUR, Ordering::SeqCst);
    registry.end_lease(Judged { dead: false, ..dead(third, "three") }, false).unwrap();
    let lost = [
        registry.renew(third).unwrap_err(),
        registry.missing(third, vec![root]).unwrap_err(),
        registry.register_pack(third, PackId([9; 16])).unwrap_err(),
        registry.commit(third, request("p/c", root)).unwrap_err(),
    ];
    assert!(lost.iter().all(|e| e.kind() == Kind::Unavailable), "{lost:?}");
}

#[test]
fn two_successors_of_a_dead_writer_each_make_a_version() {
    let (registry, _) = registry();
    let purpose = || "put p/a /w".to_owned();
    let killed = registry.begin(purpose(), "killed".into(), None).unwrap().lease;
    let stored = store_tree(&registry, killed, 1).unwrap();
    // Both have listed the leases, and found the holder dead.
    let begin = |holder: &str| {
        let lease = registry.begin(purpose(), holder.to_owned(), None).unwrap().lease;
        registry.adopt(lease, dead(killed, "killed")).unwrap();
        lease
    };
    let (one, two) = (begin("one"), begin("two"));
    assert!(one != two && one != killed && two != killed);
    let roots = [store_tree(&registry, one, 2).unwrap(), store_tree(&registry, two, 3).unwrap()];
    for (lease, root) in [one, two].into_iter().zip(roots) {
        let committed = registry.commit(lease, request("p/a", root)).unwrap();
        let name = format!("p/a:{}", committed.number);
        assert_eq!(registry.lookup(name.parse().unwrap()).unwrap().root, root);
    }
    assert_eq!(
        registry.commit(killed, request("p/a", stored)).unwrap_err().kind(),
        Kind::Unavailable
    );
    // The first of them has what the killed writer had stored, and it goes with its lease.
    registry.end_lease(dead(killed, "killed"), true).unwrap();
    assert!(is_there(&registry, stored));
    registry.release(one).unwrap();
    reap(&registry);
    assert!(!is_there(&registry, stored));
}

#[test]
fn a_judgement_before_an_adoption_does_not_harm_the_new_writer() {
    let (registry, _) = registry();
    let killed = registry.begin("put".into(), "killed".into(), None).unwrap().lease;
    let stored = store_tree(&registry, killed, 1).unwrap();
    let judged = dead(killed, "killed");
    let next = registry.begin("put".into(), "next".into(), None).unwrap().lease;
    registry.adopt(next, judged.clone()).unwrap();
    registry.end_lease(judged, true).unwrap();
    reap(&registry);
    assert!(registry.missing(next, vec![stored]).unwrap().is_empty());
    registry.commit(next, request("p/a", stored)).unwrap();
}

#[test]
fn a_lease_that_was_left_since_its_judgement_is_adopted() {
    let (registry, _) = registry();
    let killed = registry.begin("put".into(), "killed".into(), None).unwrap().lease;
    let stored = store_tree(&registry, killed, 1).unwrap();
    let judged = dead(killed, "killed");
    registry.end_lease(judged.clone(), false).unwrap();
    let next = registry.begin("put".into(), "next".into(), None).unwrap().lease;
    registry.adopt(next, judged.clone()).unwrap();
    registry.end_lease(judged, false).unwrap();
    reap(&registry);
    assert!(registry.missing(next, vec![stored]).unwrap().is_empty());
    registry.commit(next, request("p/a", stored)).unwrap();
    registry.release(next).unwrap();
    assert!(registry.leases().unwrap().is_empty(), "nothing is kept for a day");
}

/// Returns the holder of a lease whose process has ended: the same process id, but an earlier
/// start.
fn killed_process(earlier: u64) -> String {
    let own = this_process();
    let parts: Vec<_> = own.split('/').collect();
    let started = parts[2].parse::<u64>().unwrap() - earlier;
    format!("{}/{}/{started}/{}", parts[0], parts[1], parts[3])
}

/// Lets a request of a killed process take effect after its successor has looked. Here the request
/// adopts the lease of another killed process.
#[test]
fn a_put_resumes_from_what_a_killed_put_adopted_late() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("w");
    large(&source, 1, 1);
    let (repository, meddled) = open(&folder.path().join("repository"));
    let purpose = format!("put p/a {}", source.display());
    let first = repository.registry.begin(purpose.clone(), killed_process(1), None).unwrap().lease;
    let stored = store_tree(&*repository.registry, first, 1).unwrap();
    let mut second = None;
    *meddled.before.lock().unwrap() = Some(Box::new(move |registry, call| {
        if matches!(call, Call::Leases(LeasesCall::Adopt { .. })) && second.is_none() {
            let late = registry.begin(purpose.clone(), killed_process(2), None)?.lease;
            registry.adopt(late, dead(first, &killed_process(1)))?;
            second = Some(late);
        }
        Ok(())
    }));
    put_tree(&repository, &source, "p/a").unwrap();
    assert!(!is_there(&*repository.registry, stored));
    let leases = repository.registry.leases().unwrap();
    assert!(leases.is_empty(), "kept for a day: {leases:?}");
}

#[test]
fn a_lease_repeats_a_reply_only_for_the_same_request() {
    let (registry, _) = registry();
    let lease = registry.begin("put".into(), "one".into(), None).unwrap().lease;
    let (one, two) =
        (store_tree(&registry, lease, 1).unwrap(), store_tree(&registry, lease, 2).unwrap());
    let first = registry.commit(lease, request("p/a", one)).unwrap();
    assert_eq!(registry.commit(lease, request("p/a", one)).unwrap(), first);
    let second = registry.commit(lease, request("p/a", two)).unwrap();
    assert_eq!((second.number.0, second.new), (1, true));
    let mut aliased = request("p/a", two);
    aliased.version.aliases = vec!["best".parse().unwrap()];
    registry.commit(lease, aliased).unwrap();
    assert_eq!(registry.lookup("p/a:best".parse().unwrap()).unwrap().number.0, 1);
}

#[test]
fn a_lease_that_is_begun_twice_is_one() {
    let (registry, _) = registry();
    let begin = |holder: &str| registry.begin("put".into(), holder.to_owned(), None).unwrap().lease;
    let lease = begin("one");
    assert_eq!(begin("one"), lease, "the same request after a lost reply");
    assert_ne!(begin("two"), lease);
    assert_eq!(registry.leases().unwrap().len(), 2);
}

#[test]
fn the_objects_of_a_dead_writer_are_kept_for_a_day() {
    let (registry, clock) = registry();
    let there = registry.begin("put".into(), "other".into(), None).unwrap().lease;
    let version = store_tree(&registry, there, 7).unwrap();
    registry.commit(there, request("p/a", version)).unwrap();
    registry.release(there).unwrap();
    let lease = registry.begin("put".into(), "killed".into(), None).unwrap().lease;
    let stored = store_tree(&registry, lease, 1).unwrap();
    registry.register_pack(lease, PackId([2; 16])).unwrap();
    registry.missing(lease, vec![version]).unwrap();
    // Each pass over the leases judges it again.
    let sweep = || {
        for lease in registry.leases().unwrap() {
            let dead = lease.holder == "killed";
            let judged = Judged { lease: lease.id, holder: lease.holder, dead };
            registry.end_lease(judged, false).unwrap();
        }
        reap(&registry);
    };
    sweep();
    // Its pins and its unfinished pack go at once.
    assert_eq!(registry.reclaimable(None, 9, false).unwrap()[0].0.id, PackId([2; 16]));
    registry.delete("p/a:v0".parse().unwrap(), true).unwrap();
    reap(&registry);
    assert!(!is_there(&registry, version));
    for _ in 0..23 {
        clock.fetch_add(HOUR, Ordering::SeqCst);
        sweep();
        assert!(is_there(&registry, stored));
    }
    clock.fetch_add(HOUR, Ordering::SeqCst);
    sweep();
    assert!(!is_there(&registry, stored));
    assert!(registry.leases().unwrap().is_empty());
}

#[test]
fn an_object_that_is_stored_again_before_its_collection_stays() {
    let (registry, _) = registry();
    let tree = object(1, ObjectKind::Tree, 0, vec![]);
    let store = |pack: u8| {
        let lease = registry.begin(format!("put {pack}"), "h".into(), None).unwrap().lease;
        let pack = PackId([pack; 16]);
        registry.register_pack(lease, pack).unwrap();
        registry.add_objects(lease, pack, 1, vec![tree.clone()]).unwrap();
        lease
    };
    // Nothing refers to the object, so it is unreachable after the first lease.
    registry.release(store(1)).unwrap();
    let located = registry.locate(vec![tree.digest]).unwrap()[0].unwrap();
    assert_eq!(registry.unreachable(10).unwrap().len(), 1);
    registry.doubt(vec![(tree.digest, located.extent)]).unwrap();
    let lease = store(2);
    reap(&registry);
    registry.commit(lease, request("p/a", tree.digest)).unwrap();
    registry.release(lease).unwrap();
    assert!(is_there(&registry, tree.digest));
}

#[test]
fn a_deletion_during_a_lease_release_leaves_no_garbage() {
    let chunk = object(1, ObjectKind::Chunk, 0, vec![]);
    let tree = object(2, ObjectKind::Tree, 1, vec![chunk.digest]);
    let (leaf, root) = (chunk.digest, tree.digest);
    let mut played = 0;
    for step in 0.. {
        let at = Arc::new(AtomicI64::new(i64::MAX));
        let hook = Arc::new(OnceLock::<Box<dyn Fn() + Send + Sync>>::new());
        let (count, other, busy) = (Arc::clone(&at), Arc::clone(&hook), AtomicBool::new(false));
        let before_write = move || {
            let is_it = !busy.load(Ordering::SeqCst) && count.fetch_sub(1, Ordering::SeqCst) == 0;
            if is_it {
                busy.store(true, Ordering::SeqCst);
                (other.get().unwrap())();
                busy.store(false, Ordering::SeqCst);
            }
            Ok(())
        };
        let engine = Watched { inner: Arc::default(), before_write };
        let registry =
            Arc::new(EngineRegistry::open(Box::new(engine), Host::system().clock).unwrap());
        let lease = registry.begin("put".into(), "h".into(), None).unwrap().lease;
        let pack = PackId([1; 16]);
        registry.register_pack(lease, pack).unwrap();
        registry.add_objects(lease, pack, 2, vec![chunk.clone()]).unwrap();
        registry.add_objects(lease, pack, 2, vec![tree.clone()]).unwrap();
        registry.commit(lease, request("p/a", root)).unwrap();
        let bury = move |registry: &EngineRegistry| {
            let dead = registry.unreachable(10).unwrap();
            let below = |digest| if digest == root { vec![leaf] } else { vec![] };
            registry
                .collect(dead.into_iter().map(|(digest, _)| (digest, below(digest))).collect())
                .unwrap()
        };
        let other = Arc::clone(&registry);
        let deleted = move || {
            other.delete("p/a:v0".parse().unwrap(), true).unwrap();
            bury(&other);
        };
        assert!(hook.set(Box::new(deleted)).is_ok());
        at.store(step, Ordering::SeqCst);
        registry.release(lease).unwrap();
        if at.load(Ordering::SeqCst) >= 0 {
            break;
        }
        while bury(&registry) > 0 {}
        assert_eq!(registry.scan_objects(None, 10).unwrap(), [], "before write {step}");
        assert_eq!(registry.reclaimable(None, 9, false).unwrap().len(), 1, "before write {step}");
        played += 1;
    }
    assert!(played > 3);
}

/// A registry that calls a hook before each call; the hook may refuse the call.
struct Meddled {
    inner: EngineRegistry,
    before: Mutex<Option<Box<Meddling>>>,
}

type Meddling = dyn FnMut(&EngineRegistry, &Call) -> Result<()> + Send;

impl Transport for Meddled {
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        if let Some(before) = self.before.lock().unwrap().as_mut() {
            before(&self.inner, &call)?;
        }
        dispatch(&self.inner, call)
    }
}

fn open(root: &Path) -> (Repository, Arc<Meddled>) {
    let layout = Layout::new(root).unwrap();
    if !layout.exists() {
        layout.init(None, Default::default(), None, &Host::system()).unwrap();
    }
    let engine = Box::new(RedbEngine::open(&layout.registry()).unwrap());
    let inner = EngineRegistry::open(engine, Host::system().clock).unwrap();
    let meddled = Arc::new(Meddled { inner, before: Mutex::new(None) });
    let registry: Arc<dyn Registry> = Arc::<Meddled>::clone(&meddled);
    (Repository::new(layout, registry, &StoreOptions::default()).unwrap(), meddled)
}

fn put_tree(repository: &Repository, source: &Path, path: &str) -> Result<PutReport> {
    let request = PutRequest::plain(source.to_owned(), path.parse().unwrap());
    put(repository, &request, Arc::new(Silent))
}

/// Makes a folder with `count` files of 4 MiB.
fn large(root: &Path, seed: u64, count: u64) {
    fs::create_dir_all(root).unwrap();
    for number in 0..count {
        write(&root.join(format!("{number:03}")), &noise(seed * 1_000 + number, 4 << 20));
    }
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn a_writer_without_its_lease_removes_the_pack_it_just_stored() {
    let dir = temporary();
    let (repository, meddled) = open(&dir.path().join("repo"));
    large(&dir.path().join("src"), 1, 3);
    *meddled.before.lock().unwrap() = Some(Box::new(|registry, call| {
        if let Call::Objects(ObjectsCall::AddObjects { lease, .. }) = call {
            // Another process takes the writer for dead, and frees what it has.
            let holder = registry.leases()?[0].holder.clone();
            registry.end_lease(dead(*lease, &holder), true)?;
            for (pack, mark) in registry.reclaimable(None, 9, false)? {
                registry.reclaimed(pack.id, 0, mark)?;
            }
        }
        Ok(())
    }));
    let error = put_tree(&repository, &dir.path().join("src"), "p/a").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(repository.store.list().unwrap(), []);
    *meddled.before.lock().unwrap() = None;
    put_tree(&repository, &dir.path().join("src"), "p/a").unwrap();
}

#[test]
fn a_put_that_store_or_registry_stopped_resumes() {
    let dir = temporary();
    let source = dir.path().join("src");
    let (repository, meddled) = open(&dir.path().join("repo"));
    large(&source, 2, 30);
    let mut added = 0;
    *meddled.before.lock().unwrap() = Some(Box::new(move |_, call| {
        if let Call::Objects(ObjectsCall::AddObjects { .. }) = call {
            added += 1;
            if added == 3 {
                return Err(Error::new(Kind::TimedOut, "it took too long"));
            }
        }
        Ok(())
    }));
    let error = put_tree(&repository, &source, "p/a").unwrap_err();
    *meddled.before.lock().unwrap() = None;
    assert_eq!(error.kind(), Kind::TimedOut);
    assert!(error.hints().contains(&PutHint::GoOn.into()), "{error:?}");
    // No cleanup takes it away.
    artifactfs::ops::orphans::release_orphans(&repository).unwrap();
    gc::collect_deferred(&repository, 0, false).unwrap();
    artifactfs::ops::fsck::fsck(&repository, artifactfs::ops::fsck::Mode::Check).unwrap();
    let kept = repository.registry.info().unwrap().live_bytes;
    assert!(kept > 60_000_000, "{kept}");
    let report = put_tree(&repository, &source, "p/a").unwrap();
    assert!(report.stored_bytes + kept < (30 << 22) + 1_000_000, "{}", report.stored_bytes);
    assert!(repository.registry.leases().unwrap().is_empty());
    // A put that failed for good keeps nothing.
    fs::write(source.join("more"), noise(3, 1_000_000)).unwrap();
    *meddled.before.lock().unwrap() = Some(Box::new(|_, call| match call {
        Call::Versions(VersionsCall::Commit { .. }) => Err(Error::new(Kind::Conflict, "no")),
        _ => Ok(()),
    }));
    let before = repository.registry.info().unwrap();
    put_tree(&repository, &source, "p/a").unwrap_err();
    assert_eq!(repository.registry.info().unwrap().live_bytes, before.live_bytes);
}

#[test]
fn the_progress_of_a_killed_put_stays_until_it_is_freed() {
    let mut world = World::new();
    let source = world.path("src");
    large(&source, 3, 40);
    let small = world.tree("small", &[("x", b"x")]);
    world.ok(&["put", "-n", "p/small", small.to_str().unwrap()]);
    world.ok(&["put", "-n", "p/small", source.join("000").to_str().unwrap()]);
    let status = |world: &World| world.json(&["status"])["store_bytes"].as_u64().unwrap();
    let killed = |world: &World| {
        let before = indexes(world);
        let mut child = world.start(&["put", "-n", "p/big", source.to_str().unwrap()]);
        until("packs are stored", || indexes(world) >= before + 3);
        child.kill().unwrap();
        child.wait().unwrap();
    };
    killed(&world);
    world.mount();
    world.ok(&["delete", "p/small:v0", "--delete-aliases"]);
    world.ok(&["gc", "--garbage", "0"]);
    world.umount();
    world.ok(&["fsck", "--repair"]);
    // The last of the three may not have been registered.
    assert!(status(&world) > 60 << 20);
    let told = world.json(&["put", "-n", "p/big", source.to_str().unwrap()]);
    assert!(told["stored_bytes"].as_u64().unwrap() < 100 << 20, "{told}");
    world.sound();
    world.ok(&["delete", "p/big:v0", "--delete-aliases"]);
    let before = status(&world);
    killed(&world);
    world.ok(&["delete", "p/small:v1", "--delete-aliases"]);
    assert!(status(&world) > before);
    let left = status(&world);
    let collected = world.json(&["gc", "--unfinished"]);
    assert!(collected["freed_bytes"].as_u64().unwrap() >= left, "{collected}, {left} were left");
    assert_eq!(status(&world), 0);
    world.sound();
}

fn indexes(world: &World) -> usize {
    let Ok(folders) = fs::read_dir(world.repo().join("store/packs")) else { return 0 };
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    files
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "idx"))
        .count()
}

#[test]
fn a_put_in_another_pid_namespace_is_not_taken_for_dead() {
    assert!(rustix::process::geteuid().is_root(), "a PID namespace of its own needs root");
    let world = World::new();
    let source = world.path("src");
    large(&source, 4, 60);
    let small = world.tree("small", &[("x", b"x")]);
    world.ok(&["put", "-n", "p/small", small.to_str().unwrap()]);
    let before = indexes(&world);
    // As in a container: the same host and repository, but a PID namespace of its own.
    let inside = world.command(&["put", "-n", "p/big", source.to_str().unwrap()]);
    let mut contained = std::process::Command::new("unshare");
    contained
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(inside.get_program())
        .args(inside.get_args());
    contained.envs(inside.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let child = contained.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it stores", || indexes(&world) > before);
    world.ok(&["delete", "p/small:v0", "--delete-aliases"]);
    let put = crate::world::ran(child.wait_with_output().unwrap());
    assert_eq!(put.code, 0, "{}{}", put.out, put.err);
    let out = world.path("out");
    world.ok(&["get", "p/big", "--root", out.to_str().unwrap()]);
    crate::world::same_tree(&source, &out);
    world.sound();
}

#[test]
fn a_resumed_run_is_not_ended_by_an_older_judgement() {
    let world = World::new();
    let id = world.ok(&["run", "start", "-p", "p"]).trim().to_owned();
    let (repository, _) = open(&world.repo());
    let registry = &*repository.registry;
    let id = id.parse::<artifactfs::model::name::RunId>().unwrap();
    let before = registry.run(id.clone()).unwrap();
    let after = registry.crash_run(id.clone(), "somebody".to_owned()).unwrap();
    assert_eq!((before.state, before.ended), (after.state, after.ended));
    assert_eq!(registry.run(id).unwrap().state, before.state);
}
