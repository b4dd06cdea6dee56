//! A rebuild beside a deletion that is about to free bytes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artifactfs::content::options::StoreOptions;
use artifactfs::error::Result;
use artifactfs::model::object::PackId;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::repository::Repository;
use artifactfs::registry::{Call, Registry, Transport, UpkeepCall, dispatch};

use crate::world::{World, noise, same_tree};

/// The time for which a deletion waits in the middle of its work, if a rebuild waits for it.
const SUSPENDED: Duration = Duration::from_millis(300);

/// A deletion that waits to write into a pack.
struct Deletion {
    guarded: Guarded,
    process: Child,
}

impl Deletion {
    fn start(world: &World, pack: &Path) -> Self {
        let mut guarded = Guarded::new(pack);
        let process = world.start(&["delete", "p/a:v1", "--delete-aliases"]);
        guarded.wait_until("wanted");
        Self { guarded, process }
    }

    fn finish(mut self) {
        drop(self.guarded);
        let code = self.process.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 11)), "{code:?}");
    }
}

/// The registry of a rebuild. Just before its first call under maintenance, the deletion starts;
/// after the `at`th call it is finished.
struct Interrupted {
    inner: Arc<dyn Registry>,
    calls: AtomicU64,
    at: u64,
    start: Box<dyn Fn() + Send + Sync>,
    finish: Box<dyn Fn() + Send + Sync>,
}

impl Transport for Interrupted {
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        if matches!(call, Call::Upkeep(UpkeepCall::BeginMaintenance { .. })) {
            (self.start)();
            self.calls.store(1, Ordering::SeqCst);
        }
        let done = dispatch(&*self.inner, call);
        let calls = self.calls.load(Ordering::SeqCst);
        self.calls.store(calls + u64::from(calls > 0), Ordering::SeqCst);
        if calls == self.at {
            (self.finish)();
        }
        done
    }
}

/// A lease on a file (fcntl(2)): others that open it for writing wait until this is dropped.
struct Guarded {
    holder: Child,
    told: BufReader<ChildStdout>,
}

/// Takes the lease, and tells when somebody waits.
const HOLDER: &str = r"
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: os.write(1, b'wanted\n'))
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
os.write(1, b'held\n')
sys.stdin.read()
";

impl Guarded {
    fn new(path: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", HOLDER]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let told = BufReader::new(holder.stdout.take().unwrap());
        let mut guarded = Self { holder, told };
        guarded.wait_until("held");
        guarded
    }

    fn wait_until(&mut self, state: &str) {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), state);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Puts a version with one file below each of some folders.
fn put(world: &World, name: &str, folders: &[(u64, u64)]) -> PathBuf {
    let files: Vec<(String, Vec<u8>)> =
        folders.iter().map(|(name, seed)| (format!("d{name}/f"), noise(*seed, 5_000))).collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let source = world.tree(name, &files);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    source
}

/// The pack of the tree at `path` of a version.
fn pack_of_root(world: &World, reference: &str) -> PackId {
    let repository = world.open();
    let info = repository.registry.lookup(reference.parse().unwrap()).unwrap();
    repository.registry.locate(vec![info.root]).unwrap()[0].unwrap().extent.pack
}

/// Makes a world in which the deletion of v1 frees a part of one pack of nodes, and then the whole
/// of another. Returns the path of the first, and the sources of v1 and v2.
fn world_of_two_packs() -> (World, PathBuf, PathBuf) {
    loop {
        let world = World::new();
        put(&world, "s0", &[(0, 0), (1, 1), (2, 2), (3, 3)]);
        put(&world, "s1", &[(0, 10), (1, 1), (2, 2), (3, 3)]);
        let (part, whole) = (pack_of_root(&world, "p/a:v0"), pack_of_root(&world, "p/a:v1"));
        if part < whole {
            let kept = put(&world, "s2", &[(0, 20), (3, 3)]);
            world.ok(&["delete", "p/a:v0", "--delete-aliases"]);
            let name = part.to_string();
            let pack = world.repo().join("store/packs").join(&name[..2]).join(&name);
            return (world, pack.with_extension("pack"), kept);
        }
    }
}

#[test]
fn a_rebuild_revives_nothing_whose_bytes_are_being_freed() {
    // Each run takes a while, so it is not every call.
    for at in (1..).step_by(6) {
        let (mut world, pack, kept) = world_of_two_packs();
        world.mount();
        let world = Arc::new(world);
        let deletion = Arc::new(Mutex::new(None));
        let inner = world.open();
        let finish = {
            let deletion = Arc::clone(&deletion);
            move || {
                let deletion: Option<Deletion> = deletion.lock().unwrap().take();
                deletion.into_iter().for_each(Deletion::finish);
            }
        };
        let (there, finish_late) = (Arc::clone(&world), finish.clone());
        let start = move || {
            *deletion.lock().unwrap() = Some(Deletion::start(&there, &pack));
            let finish = finish_late.clone();
            std::thread::spawn(move || {
                std::thread::sleep(SUSPENDED);
                finish();
            });
        };
        let registry = Arc::new(Interrupted {
            inner: Arc::clone(&inner.registry),
            calls: AtomicU64::new(0),
            at,
            start: Box::new(start),
            finish: Box::new(finish),
        });
        let options = StoreOptions::default();
        let repository =
            Repository::new(inner.layout.clone(), Arc::clone(&registry) as _, &options).unwrap();
        let rebuilt = fsck(&repository, Mode::Rebuild);
        rebuilt.unwrap();
        (registry.finish)();
        drop((repository, inner));
        world.ok(&["gc", "--garbage", "0"]);
        world.sound();
        let out = world.path("out");
        world.ok(&["get", "p/a:v2", "--root", out.to_str().unwrap()]);
        same_tree(&kept, &out);
        if registry.calls.load(Ordering::SeqCst) <= at {
            assert!(at > 10, "it was never interrupted");
            return;
        }
    }
}
