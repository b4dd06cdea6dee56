//! Random histories of damage, repairs, kills and crashes beside puts and deletions. When all
//! damage is undone, everything acknowledged is there, and the counts are exact.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use artifactfs::content::options::StoreOptions;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::host::Host;
use artifactfs::ops::delete::delete;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::gc::collect_deferred;
use artifactfs::ops::get;
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::{EngineRegistry, Judged};
use tempfile::TempDir;

use super::repair::files_of;
use crate::engines::Watched;
use crate::random::Random;
use crate::world::{noise, same_tree};

const CASES: u64 = 60;
const STEPS: u64 = 24;

/// Damage that can be undone.
enum Damage {
    /// A byte that was changed, and its value before.
    Flipped(PathBuf, u64, u8),
    /// A removed file and its bytes.
    Removed(PathBuf, Vec<u8>),
}

struct History {
    dir: TempDir,
    layout: Layout,
    inner: Arc<MemoryEngine>,
    random: Random,
    /// A host whose random numbers are the same in each run.
    host: Host,
    /// The source of each acknowledged version, and whether a deletion of it had an unknown result.
    versions: BTreeMap<u64, (PathBuf, bool)>,
    damage: Vec<Damage>,
    sources: u64,
    /// The seed and the steps so far, for the report of a failure.
    told: Vec<String>,
}

/// A write that never comes.
const NEVER: i64 = i64::MAX;

impl History {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let layout = Layout::new(&dir.path().join("repo")).unwrap();
        layout.init(None, BTreeMap::new(), None, &Host::system()).unwrap();
        let (inner, random) = (Arc::new(MemoryEngine::default()), Random(seed));
        let numbers = Mutex::new(Random(seed ^ u64::MAX));
        let number = move || {
            let mut numbers = numbers.lock().unwrap();
            u128::from(numbers.number()) << 64 | u128::from(numbers.number())
        };
        let host = Host::new(Host::system().clock, Arc::new(number));
        let (versions, damage) = (BTreeMap::new(), Vec::new());
        let told = vec![format!("seed {seed}")];
        Self { dir, layout, inner, random, host, versions, damage, sources: 0, told }
    }

    /// Opens the repository. Before one of its writes the engine forgets the commits that are not
    /// durable, and before another it dies and makes no later write.
    fn open(&self, forgets: i64, dies: i64) -> (Repository, Arc<AtomicI64>) {
        let (forgets, dies) = (AtomicI64::new(forgets), Arc::new(AtomicI64::new(dies)));
        let (inner, left) = (Arc::clone(&self.inner), Arc::clone(&dies));
        let before_write = move || {
            if forgets.fetch_sub(1, Ordering::SeqCst) == 0 {
                inner.forget();
            }
            match left.fetch_sub(1, Ordering::SeqCst) {
                1.. => Ok(()),
                _ => Err(Error::new(Kind::Unavailable, "killed")),
            }
        };
        let engine = Watched { inner: Arc::clone(&self.inner), before_write };
        let registry = EngineRegistry::open(Box::new(engine), Host::system().clock).unwrap();
        let options = StoreOptions::default();
        let mut repository =
            Repository::new(self.layout.clone(), Arc::new(registry), &options).unwrap();
        repository.host = self.host.clone();
        (repository, dies)
    }

    /// Does `work` as a process of its own, which may be killed, on a registry that may crash.
    /// Returns `None` if it failed for a reason.
    fn run<T>(&mut self, what: &str, work: impl FnOnce(&Repository) -> Result<T>) -> Option<T> {
        let forgets = if self.random.below(4) == 0u64 { self.random.below(60) } else { NEVER };
        let dies = if self.random.below(4) == 0u64 { self.random.below(60) } else { NEVER };
        let (repository, left) = self.open(forgets, dies);
        let done = work(&repository);
        drop(repository);
        let killed = dies < NEVER && left.load(Ordering::SeqCst) < 0;
        if killed {
            self.bury();
        }
        let result = done.as_ref().map_or_else(|e| format!("failed: {e}"), |_| "done".to_owned());
        self.told.push(format!("{what} (forgets {forgets}, killed {killed}): {result}"));
        if let Err(e) = &done {
            let excused = killed || !self.damage.is_empty();
            assert!(excused, "{e}\n{}", self.told.join("\n"));
        }
        done.ok()
    }

    /// Ends the leases of a killed process, as the next one does.
    fn bury(&self) {
        let (repository, _) = self.open(NEVER, NEVER);
        for lease in repository.registry.leases().unwrap() {
            let judged = Judged { lease: lease.id, holder: lease.holder, dead: true };
            // Under maintenance nobody can; the next process ends that first.
            let _ = repository.registry.end_lease(judged, false);
        }
        // This makes it durable.
        let lease = repository.registry.begin("bury".to_owned(), "test".to_owned(), None);
        let _ = lease.and_then(|begun| repository.registry.release(begun.lease));
    }

    fn source(&mut self) -> PathBuf {
        self.sources += 1;
        let root = self.dir.path().join(format!("s{}", self.sources));
        for file in 0..4u64 {
            let folder = root.join(format!("d{}", file % 2));
            fs::create_dir_all(&folder).unwrap();
            let seed = self.random.below(5u64) * 4 + file;
            fs::write(folder.join(format!("f{file}")), noise(seed, 2_000)).unwrap();
        }
        fs::write(root.join("number"), self.sources.to_string()).unwrap();
        root
    }

    fn put(&mut self) {
        let source = self.source();
        let request = PutRequest::plain(source.clone(), "p/a".parse().unwrap());
        let report = self.run("put", |repository| put(repository, &request, Arc::new(Silent)));
        if let Some(committed) = report.and_then(|report| report.committed) {
            self.told.push(format!("  v{}", committed.number.0));
            self.versions.insert(committed.number.0, (source, false));
        }
    }

    fn delete(&mut self) {
        let Some(number) = self.some_version() else { return };
        let reference = format!("p/a:v{number}").parse().unwrap();
        let when = if self.random.below(2) == 0u64 { Reclaim::Now } else { Reclaim::Later };
        let what = format!("delete v{number} {when:?}");
        let done = self.run(&what, |repository| delete(repository, &reference, true, when));
        match done {
            Some(_) => drop(self.versions.remove(&number)),
            None => self.versions.get_mut(&number).unwrap().1 = true,
        }
    }

    fn some_version(&mut self) -> Option<u64> {
        let sure = self.versions.iter().filter(|(_, (_, fading))| !fading);
        let numbers: Vec<u64> = sure.map(|(number, _)| *number).collect();
        (!numbers.is_empty()).then(|| numbers[self.random.below(numbers.len())])
    }

    fn hurt(&mut self) {
        let suffix = if self.random.below(3) == 0u64 { "idx" } else { "pack" };
        let files = files_of(&self.layout.root.join("store/packs"), suffix);
        if files.is_empty() {
            return;
        }
        let path = files[self.random.below(files.len())].clone();
        let bytes = fs::read(&path).unwrap();
        self.told.push(format!("hurt {}", path.file_name().unwrap().display()));
        if self.random.below(2) == 0u64 || bytes.is_empty() {
            fs::remove_file(&path).unwrap();
            return self.damage.push(Damage::Removed(path, bytes));
        }
        let at = self.random.below(bytes.len());
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[bytes[at] ^ 0x40], at as u64).unwrap();
        self.damage.push(Damage::Flipped(path, at as u64, bytes[at]));
    }

    fn undo(&mut self) {
        self.told.push("undo".to_owned());
        let (repository, _) = self.open(NEVER, NEVER);
        while let Some(damage) = self.damage.pop() {
            match damage {
                Damage::Flipped(path, at, was) => {
                    let Ok(file) = fs::File::options().read(true).write(true).open(&path) else {
                        continue;
                    };
                    let mut now = [0];
                    if file.read_exact_at(&mut now, at).is_ok() && now[0] == was ^ 0x40 {
                        file.write_all_at(&[was], at).unwrap();
                    }
                }
                Damage::Removed(path, bytes) => {
                    let id = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
                    let known = repository.registry.pack(id).unwrap().is_some();
                    let whole =
                        path.extension().unwrap() == "pack" || path.with_extension("pack").exists();
                    if known && whole && !path.exists() {
                        fs::write(&path, bytes).unwrap();
                    }
                }
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(100u64) {
            0..30 => self.put(),
            30..48 => self.delete(),
            48..56 => drop(self.run("repair", |repository| fsck(repository, Mode::Repair))),
            56..66 => drop(self.run("rebuild", |repository| fsck(repository, Mode::Rebuild))),
            66..72 => drop(self.run("gc", |repository| collect_deferred(repository, 0, false))),
            72..76 => drop(self.run("gc all", |repository| collect_deferred(repository, 0, true))),
            76..88 => self.hurt(),
            _ => self.undo(),
        }
    }

    /// Removes versions that are gone although their deletion failed.
    fn settle(&mut self, repository: &Repository) {
        self.versions.retain(|number, (_, fading)| {
            let there = repository.registry.lookup(format!("p/a:v{number}").parse().unwrap());
            assert!(*fading || there.is_ok(), "v{number}: {there:?}");
            there.is_ok()
        });
    }

    fn read(&self, repository: &Repository, number: u64, source: &Path) -> Result<()> {
        let info = repository.registry.lookup(format!("p/a:v{number}").parse().unwrap())?;
        let out = self.dir.path().join("out");
        let _ = fs::remove_dir_all(&out);
        get::get(repository, info.root, &out, &Default::default(), &Silent)?;
        same_tree(source, &out);
        Ok(())
    }

    /// Puts good copies of everything again, if something cannot be read, and repairs the counts.
    fn mend(&mut self, repository: &Repository) {
        let unreadable = |(number, (source, _)): (&u64, &(PathBuf, bool))| {
            self.read(repository, *number, source)
        };
        if self.versions.iter().any(|version| unreadable(version).is_err()) {
            for (source, _) in self.versions.values() {
                let request = PutRequest::plain(source.clone(), "p/mend".parse().unwrap());
                let copy = put(repository, &request, Arc::new(Silent)).unwrap().committed.unwrap();
                let reference = format!("p/mend:v{}", copy.number.0).parse().unwrap();
                delete(repository, &reference, true, Reclaim::Now).unwrap();
            }
        }
        if fsck(repository, Mode::Check).unwrap().problems > 0 {
            fsck(repository, Mode::Repair).unwrap();
        }
    }

    fn check(&mut self) {
        let (repository, _) = self.open(NEVER, NEVER);
        collect_deferred(&repository, 0, true).unwrap();
        self.settle(&repository);
        self.mend(&repository);
        for (number, (source, _)) in &self.versions {
            let read = self.read(&repository, *number, source);
            assert!(read.is_ok(), "v{number}: {read:?}\n{}", self.told.join("\n"));
        }
        let report = fsck(&repository, Mode::Check).unwrap();
        assert_eq!(report.findings, [] as [&str; 0], "{}", self.told.join("\n"));
        for number in 0..self.sources {
            let reference = format!("p/a:v{number}").parse().unwrap();
            let _ = delete(&repository, &reference, true, Reclaim::Now);
        }
        let left = repository.registry.scan_objects(None, 10).unwrap();
        assert_eq!(left, [], "{}", self.told.join("\n"));
        let files = files_of(&self.layout.root.join("store/packs"), "pack");
        assert_eq!(files, [] as [&Path; 0], "{}", self.told.join("\n"));
    }
}

#[test]
fn after_any_history_everything_acknowledged_is_there_and_nothing_else() {
    let first = std::env::var("ARTIFACTFS_SEED").map_or(0, |text| text.parse().unwrap());
    for seed in first..first + CASES {
        let mut history = History::new(seed);
        for _ in 0..STEPS {
            history.step();
        }
        history.undo();
        history.check();
    }
}
