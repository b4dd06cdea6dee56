//! Random trees, merged, against a map of paths that are laid over one another in order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifactfs::content::options::StoreOptions;
use artifactfs::error::Kind;
use artifactfs::model::digest::Digest;
use artifactfs::model::host::Host;
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::reference::Reference;
use artifactfs::model::version::Totals;
use artifactfs::ops::delete::delete;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::groups::{FinishRequest, discard, finish};
use artifactfs::ops::process_id::this_process;
use artifactfs::ops::put::Upsert;
use artifactfs::ops::put::{PutReport, PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::{
    CommitRequest, EngineRegistry, LeaseId, NewPart, Registry, SealRequest,
};
use tempfile::TempDir;

use crate::random::Random;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Directory,
    File(u8, bool),
    Symlink(u8),
}

type Tree = BTreeMap<PathBuf, Thing>;

impl Random {
    fn thing(&mut self) -> Thing {
        match self.below(6) {
            0 => Thing::Directory,
            1 => Thing::Symlink(self.below(2) as u8),
            _ => Thing::File(self.below(4) as u8, self.below(5) == 0),
        }
    }
}

/// Sets a path to `thing`. Removes what is at the path, below it, and in its way.
fn set(tree: &mut Tree, path: &Path, thing: Thing) {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        if tree.get(above) != Some(&Thing::Directory) {
            tree.insert(above.to_owned(), Thing::Directory);
        }
    }
    if thing == Thing::Directory && tree.get(path) == Some(&Thing::Directory) {
        return;
    }
    tree.retain(|at, _| !at.starts_with(path));
    tree.insert(path.to_owned(), thing);
}

/// Lays `part` over `tree`.
fn lay_over(tree: &mut Tree, part: &Tree) {
    part.iter().for_each(|(path, thing)| set(tree, path, thing.clone()));
}

fn write(root: &Path, tree: &Tree) {
    let _ = fs::remove_dir_all(root);
    fs::create_dir(root).unwrap();
    for (path, thing) in tree {
        let at = root.join(path);
        match thing {
            Thing::Directory => fs::create_dir(&at).unwrap(),
            Thing::Symlink(target) => symlink(format!("t{target}"), &at).unwrap(),
            Thing::File(seed, executable) => {
                fs::write(&at, vec![*seed; usize::from(*seed) * 3]).unwrap();
                if *executable {
                    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        }
    }
}

struct Bench {
    dir: TempDir,
    repository: Repository,
}

impl Bench {
    /// Opens a repository in memory, so that thousands of trees take seconds.
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let layout = Layout::new(&dir.path().join("repo")).unwrap();
        layout.init(None, BTreeMap::new(), None, &Host::system()).unwrap();
        let registry =
            EngineRegistry::open(Box::<MemoryEngine>::default(), Host::system().clock).unwrap();
        let registry: Arc<dyn Registry> = Arc::new(registry);
        let repository = Repository::new(layout, registry, &StoreOptions::default()).unwrap();
        Self { dir, repository }
    }

    fn put(&self, artifact: &str, tree: &Tree, upsert: Option<Upsert>) -> PutReport {
        let source = self.dir.path().join("source");
        write(&source, tree);
        let request = PutRequest { upsert, ..PutRequest::plain(source, artifact.parse().unwrap()) };
        put(&self.repository, &request, Arc::new(Silent)).unwrap()
    }

    /// Puts the parts, finishes the group, and compares it with one put of their sum. Then deletes
    /// everything.
    fn check(&self, parts: &[Tree], what: &str) {
        let mut sum = Tree::new();
        for part in parts {
            lay_over(&mut sum, part);
            let upsert = Upsert { group: "g".parse().unwrap(), overwrite: true };
            self.put("p/merged", part, Some(upsert));
        }
        let expected = self.put("p/expected", &sum, None);
        let version = NewVersion::plain("p/merged".parse().unwrap());
        let request = FinishRequest { group: "g".parse().unwrap(), version };
        let done = finish(&self.repository, &request).unwrap();
        let found: (Digest, Totals) = (done.root, done.totals);
        assert_eq!(found, (expected.root, expected.totals), "{what}: {parts:#?}\n{sum:#?}");
        for reference in ["p/merged", "p/expected"] {
            let reference: Reference = reference.parse().unwrap();
            delete(&self.repository, &reference, true, Reclaim::Now).unwrap();
        }
        assert_eq!(self.repository.registry.info().unwrap().live_bytes, 0, "{what}");
    }
}

/// Returns a tree of few names, so that parts collide.
fn small(random: &mut Random) -> Tree {
    let mut tree = Tree::new();
    for _ in 0..random.below(9) {
        let depth = 1 + random.below(3);
        let path: PathBuf = (0..depth).map(|_| format!("{}", random.below(4))).collect();
        let thing = random.thing();
        set(&mut tree, &path, thing);
    }
    tree
}

/// Returns directories of many nodes: ranges of names that touch, overlap or are equal.
fn large(random: &mut Random) -> Tree {
    let mut tree = Tree::new();
    tree.insert("d".into(), Thing::Directory);
    for _ in 0..=random.below(2) {
        let (from, count) = (random.below(8) * 500, random.below(2_500));
        let (step, seed) = (1 + random.below(3), random.below(2) as u8);
        for number in (from..from + count).step_by(step as usize) {
            tree.insert(format!("d/{number:05}").into(), Thing::File(seed, false));
        }
    }
    if random.below(3) == 0 {
        let number = random.below(4_000);
        set(&mut tree, Path::new(&format!("d/{number:05}")), Thing::Directory);
        set(&mut tree, Path::new(&format!("d/{number:05}/x")), Thing::File(1, false));
    }
    tree
}

#[test]
fn merging_small_trees_equals_laying_them_over_each_other() {
    let bench = Bench::new();
    let mut random = Random(1);
    for case in 0..400 {
        let mut parts: Vec<Tree> = (0..2 + random.below(5)).map(|_| small(&mut random)).collect();
        if random.below(3) == 0 {
            // The same part again, later.
            let again = parts[random.below(parts.len() as u64) as usize].clone();
            parts.push(again);
        }
        bench.check(&parts, &format!("case {case}"));
    }
    assert_eq!(fsck(&bench.repository, Mode::Check).unwrap().problems, 0);
}

#[test]
fn merged_large_directories_have_the_nodes_of_one_put() {
    let bench = Bench::new();
    let mut random = Random(2);
    for case in 0..25 {
        let parts: Vec<Tree> = (0..2 + random.below(3)).map(|_| large(&mut random)).collect();
        bench.check(&parts, &format!("case {case}"));
    }
    assert_eq!(fsck(&bench.repository, Mode::Check).unwrap().problems, 0);
}

#[test]
fn more_parts_than_one_merge_takes_are_laid_in_order() {
    let bench = Bench::new();
    let mut random = Random(3);
    let parts: Vec<Tree> = (0..600).map(|_| small(&mut random)).collect();
    bench.check(&parts, "600 parts");
}

fn new_part(put: &PutReport) -> NewPart {
    NewPart {
        path: "p/merged".parse().unwrap(),
        group: "g".parse().unwrap(),
        artifact_type: None,
        root: put.root,
        totals: put.totals,
        writer: "somebody".to_owned(),
        run: None,
        seen: None,
    }
}

/// Calls `done` under a lease, and releases the lease.
fn leased<T>(registry: &dyn Registry, done: impl FnOnce(LeaseId) -> T) -> T {
    let lease = registry.begin("test".to_owned(), this_process(), None).unwrap().lease;
    let value = done(lease);
    registry.release(lease).unwrap();
    value
}

#[test]
fn group_calls_are_idempotent() {
    let bench = Bench::new();
    let registry = &*bench.repository.registry;
    let tree = Tree::from([("a".into(), Thing::File(1, false))]);
    let put = bench.put("p/other", &tree, None);
    let new = new_part(&put);
    let refs = || registry.locate(vec![put.root]).unwrap()[0].unwrap().refs;
    let parts = || registry.parts(new.path.clone(), new.group.clone(), 0, 10).unwrap().len();
    let add = |lease, new: &NewPart| {
        let added = registry.add_part(lease, new.clone()).unwrap();
        assert_eq!(registry.add_part(lease, new.clone()).unwrap(), added);
        added.sequence
    };
    let first = leased(registry, |lease| add(lease, &new));
    assert_eq!((parts(), refs()), (1, 2));
    // A caller that saw fewer parts than there are must read them again.
    let unseen = NewPart { seen: Some(first - 1), ..new.clone() };
    let refused = leased(registry, |lease| registry.add_part(lease, unseen).unwrap_err());
    assert_eq!((refused.kind(), parts()), (Kind::Stale, 1));
    let seen = NewPart { seen: Some(first), ..new.clone() };
    let second = leased(registry, |lease| add(lease, &seen));
    assert_eq!((parts(), refs()), (2, 3));

    let discard = |last| registry.discard_group(new.path.clone(), new.group.clone(), last);
    discard(first).unwrap();
    discard(first).unwrap();
    assert_eq!((parts(), refs()), (1, 2), "the later part stays");
    let commit =
        CommitRequest { totals: put.totals, ..CommitRequest::plain(new.path.clone(), put.root) };
    let group = new.group.clone();
    let seal =
        |parts, last| SealRequest { group: group.clone(), parts, last, commit: commit.clone() };
    for (parts, last) in [(2, second), (1, first)] {
        let refused =
            leased(registry, |lease| registry.seal_group(lease, seal(parts, last)).unwrap_err());
        assert_eq!(refused.kind(), Kind::Stale);
    }
    leased(registry, |lease| {
        let sealed = registry.seal_group(lease, seal(1, second)).unwrap();
        assert_eq!(registry.seal_group(lease, seal(1, second)).unwrap(), sealed);
    });
    assert_eq!((parts(), refs()), (0, 2));
    discard(second).unwrap();
    let refused =
        leased(registry, |lease| registry.seal_group(lease, seal(1, second)).unwrap_err());
    assert_eq!(refused.kind(), Kind::Conflict);
    assert_eq!(fsck(&bench.repository, Mode::Check).unwrap().problems, 0);
}

#[test]
fn a_full_group_refuses_parts_and_can_be_finished_or_discarded() {
    const PARTS: u64 = 65_536;
    let bench = Bench::new();
    let registry = &*bench.repository.registry;
    let tree = Tree::from([("a".into(), Thing::File(1, false))]);
    let put = bench.put("p/other", &tree, None);
    let new = new_part(&put);
    let fill = || {
        for _ in 0..PARTS {
            leased(registry, |lease| registry.add_part(lease, new.clone())).unwrap();
        }
        let refused = leased(registry, |lease| registry.add_part(lease, new.clone()).unwrap_err());
        assert_eq!(refused.kind(), Kind::Full);
        assert!(!refused.hints().is_empty());
    };
    fill();
    let (info, freed) = discard(&bench.repository, &new.path, &new.group).unwrap();
    assert_eq!((info.parts, freed), (PARTS, 0));
    fill();
    let version = NewVersion::plain(new.path.clone());
    let request = FinishRequest { group: new.group.clone(), version };
    let done = finish(&bench.repository, &request).unwrap();
    assert_eq!((done.parts, done.root, done.totals), (PARTS, put.root, put.totals));
    assert_eq!(registry.locate(vec![put.root]).unwrap()[0].unwrap().refs, 2);
}
