//! A registry that is opened again, after a crash or a full disk, forgets the commits that were not
//! durable yet. Its callers live on, and must not rely on those.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artifactfs::content::options::StoreOptions;
use artifactfs::error::Result;
use artifactfs::model::host::Host;
use artifactfs::ops::delete::delete;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::registry::EngineRegistry;
use artifactfs::registry::engine::memory::MemoryEngine;

use super::repair::{check_all, hurt, open, shared_versions};
use crate::engines::Watched;
use crate::world::{World, noise};

/// A repository of versions that share much, and the sources of its versions.
struct Case {
    world: World,
    layout: Layout,
    inner: Arc<MemoryEngine>,
    sources: BTreeMap<String, PathBuf>,
}

/// Runs `work` on a repository that forgets once, before each of the writes of `work` in turn; then
/// everything must be there, and no byte too many.
fn forgetting_before_each_write(
    what: &str,
    prepare: impl Fn(&mut Case),
    work: impl Fn(&Repository, &mut Case) -> Result<()>,
) {
    for at in 0.. {
        let world = World::new();
        let (layout, inner, sources) = shared_versions(&world);
        let mut case = Case { world, layout, inner, sources };
        prepare(&mut case);
        case.inner.forget();
        let writes = Arc::new(AtomicU64::new(0));
        let (inner, counter) = (Arc::clone(&case.inner), Arc::clone(&writes));
        let before_write = {
            let inner = Arc::clone(&inner);
            move || {
                if counter.fetch_add(1, Ordering::SeqCst) == at {
                    inner.forget();
                }
                Ok(())
            }
        };
        let engine = Watched { inner, before_write };
        let registry = EngineRegistry::open(Box::new(engine), Host::system().clock).unwrap();
        let options = StoreOptions::default();
        let repository =
            Repository::new(case.layout.clone(), Arc::new(registry), &options).unwrap();
        work(&repository, &mut case).unwrap();
        drop(repository);
        let (repository, _) = open(&case.layout, &case.inner, i64::MAX);
        check_all(&case.world, &repository, &case.sources);
        let report = fsck(&repository, Mode::Check).unwrap();
        assert_eq!(report.findings, [] as [&str; 0], "{what}, before write {at}");
        for name in case.sources.keys() {
            let reference = format!("p/a:{name}").parse().unwrap();
            delete(&repository, &reference, true, Reclaim::Now).unwrap();
        }
        let left = repository.registry.scan_objects(None, 10).unwrap();
        assert_eq!(left, [], "{what}, before write {at}");
        if writes.load(Ordering::SeqCst) <= at {
            assert!(at > 3, "it never forgot");
            return;
        }
    }
}

#[test]
fn repairs_and_rebuilds_do_not_rely_on_what_may_be_forgotten() {
    for mode in [Mode::Repair, Mode::Rebuild] {
        forgetting_before_each_write(
            &format!("{mode:?}"),
            |case| hurt(&case.layout, &case.inner),
            |repository, _| {
                fsck(repository, mode)?;
                fsck(repository, Mode::Repair).map(drop)
            },
        );
    }
}

#[test]
fn puts_and_deletions_do_not_rely_on_what_may_be_forgotten() {
    forgetting_before_each_write(
        "put and delete",
        |_| {},
        |repository, case| {
            let files: Vec<(String, Vec<u8>)> =
                (0..80).map(|file| (format!("d/f{file}"), noise(file, 3_000))).collect();
            let files: Vec<(&str, &[u8])> =
                files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
            let source = case.world.tree("more", &files);
            let request = PutRequest::plain(source.clone(), "p/a".parse().unwrap());
            let version = put(repository, &request, Arc::new(Silent))?.committed.unwrap().number;
            case.sources.insert(format!("v{}", version.0), source);
            case.sources.remove("v1");
            delete(repository, &"p/a:v1".parse().unwrap(), true, Reclaim::Now).map(drop)
        },
    );
}
