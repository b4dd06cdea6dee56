//! Checks beside deletions: they report no damage where there is none, and all where there is some.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use artifactfs::content::options::StoreOptions;
use artifactfs::error::{Kind, Result};
use artifactfs::model::host::Host;
use artifactfs::ops::delete::delete;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::registry::EngineRegistry;
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::engine::{Durability, Engine, Transaction, View};

use super::repair::{files_of, open};
use crate::world::{World, noise};

const VERSIONS: u64 = 60;

/// An engine that deletes a version after every `pace`th read.
struct Restless {
    inner: Arc<MemoryEngine>,
    other: Repository,
    reads: AtomicU64,
    pace: u64,
    left: Arc<Mutex<Vec<u64>>>,
}

impl Engine for Restless {
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()> {
        self.inner.read(body)?;
        if self.reads.fetch_add(1, Ordering::SeqCst).is_multiple_of(self.pace)
            && let Some(version) = self.left.lock().unwrap().pop()
        {
            let reference = format!("p/a:v{version}").parse().unwrap();
            delete(&self.other, &reference, true, Reclaim::Now).unwrap();
        }
        Ok(())
    }

    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        self.inner.write(durability, body)
    }
}

/// Makes a repository of many small versions that share files. Its reads delete versions; the list
/// holds the numbers that are left.
fn restless(world: &World, pace: u64) -> (Repository, Arc<Mutex<Vec<u64>>>) {
    let layout = Layout::new(&world.path(&format!("memory{pace}"))).unwrap();
    layout.init(None, BTreeMap::new(), None, &Host::system()).unwrap();
    let inner = Arc::new(MemoryEngine::default());
    let (other, _) = open(&layout, &inner, i64::MAX);
    for version in 0..VERSIONS {
        let (own, shared) = (noise(version, 3_000), noise(1_000 + version / 3, 3_000));
        let files: [(&str, &[u8]); 2] = [("own", &own), ("d/shared", &shared)];
        let source = world.tree(&format!("{pace}-{version}"), &files);
        let request = PutRequest::plain(source, "p/a".parse().unwrap());
        put(&other, &request, Arc::new(Silent)).unwrap();
    }
    let left = Arc::new(Mutex::new((0..VERSIONS).collect::<Vec<_>>()));
    let engine = Restless { inner, other, reads: AtomicU64::new(0), pace, left: Arc::clone(&left) };
    let registry = EngineRegistry::open(Box::new(engine), Host::system().clock).unwrap();
    let repository = Repository::new(layout, Arc::new(registry), &StoreOptions::default()).unwrap();
    (repository, left)
}

#[test]
fn deletions_beside_a_check_are_not_reported_as_damage() {
    let world = World::new();
    let mut unsettled = 0;
    for pace in [1, 2, 3, 5, 7, 11] {
        let (repository, left) = restless(&world, pace);
        while !left.lock().unwrap().is_empty() {
            match fsck(&repository, Mode::Check) {
                Ok(report) => assert_eq!(report.findings, [] as [&str; 0], "every {pace} reads"),
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Conflict, "every {pace} reads: {e}");
                    unsettled += 1;
                }
            }
        }
        assert_eq!(fsck(&repository, Mode::Check).unwrap().problems, 0);
    }
    assert!(unsettled > 0, "nothing was deleted in the middle of a check");
}

#[test]
fn damage_is_found_beside_deletions() {
    let world = World::new();
    let (repository, left) = restless(&world, 5);
    // The pack of the oldest version, which is deleted last.
    let info = repository.registry.lookup("p/a:v0".parse().unwrap()).unwrap();
    let at = repository.registry.locate(vec![info.root]).unwrap()[0].unwrap();
    let name = format!("{}.pack", at.extent.pack);
    let packs = files_of(&repository.layout.root.join("store/packs"), "pack");
    fs::remove_file(packs.iter().find(|path| path.ends_with(&name)).unwrap()).unwrap();
    let mut found = 0;
    while left.lock().unwrap().len() > 3 {
        match fsck(&repository, Mode::Check) {
            Ok(report) => {
                let lost = |finding: &String| finding.contains("is missing with");
                assert!(report.findings.iter().any(lost), "{:?}", report.findings);
                found += 1;
            }
            Err(e) => assert_eq!(e.kind(), Kind::Conflict, "{e}"),
        }
    }
    assert!(found > 0);
}
