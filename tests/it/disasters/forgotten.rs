//! A registry that is opened again, after a crash or a full disk, has forgotten the commits that
//! were not durable yet. Callers in other processes continue, and must not rely on those commits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artifactfs::content::options::StoreOptions;
use artifactfs::error::Result;
use artifactfs::model::host::Host;
use artifactfs::model::new_version::NewVersion;
use artifactfs::ops::delete::delete;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::gc::collect_deferred;
use artifactfs::ops::groups::{self, FinishRequest};
use artifactfs::ops::put::{PutRequest, Silent, Upsert, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::{EngineRegistry, Judged};

use super::repair::{check_all, hurt, open, shared_versions};
use crate::engines::Watched;
use crate::world::{World, host, noise};

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

/// Makes a source of 80 files, of which most are new.
fn more(world: &World) -> PathBuf {
    let files: Vec<(String, Vec<u8>)> =
        (0..80).map(|file| (format!("d/f{file}"), noise(file, 3_000))).collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    world.tree("more", &files)
}

/// Puts a source, as the next version of `p/a`.
fn put_version(repository: &Repository, case: &mut Case, source: PathBuf) -> Result<()> {
    let request = PutRequest::plain(source.clone(), "p/a".parse().unwrap());
    let version = put(repository, &request, Arc::new(Silent))?.committed.unwrap().number;
    case.sources.insert(format!("v{}", version.0), source);
    Ok(())
}

#[test]
fn a_put_that_resumes_does_not_rely_on_what_may_be_forgotten() {
    forgetting_before_each_write(
        "a resumed put",
        |case| {
            let source = more(&case.world);
            let (repository, _) = open(&case.layout, &case.inner, 4);
            let request = PutRequest::plain(source, "p/a".parse().unwrap());
            assert!(put(&repository, &request, Arc::new(Silent)).is_err(), "it was killed");
            drop(repository);
            let (repository, _) = open(&case.layout, &case.inner, i64::MAX);
            for lease in repository.registry.leases().unwrap() {
                let judged = Judged { lease: lease.id, holder: lease.holder, dead: true };
                repository.registry.end_lease(judged, false).unwrap();
            }
            // The end of another lease makes it durable.
            let lease =
                repository.registry.begin("other".into(), "test".into(), None).unwrap().lease;
            repository.registry.release(lease).unwrap();
        },
        |repository, case| {
            let source = case.world.path("more");
            put_version(repository, case, source)?;
            collect_deferred(repository, 0, true).map(drop)
        },
    );
}

#[test]
fn groups_do_not_rely_on_what_may_be_forgotten() {
    forgetting_before_each_write(
        "group",
        |_| {},
        |repository, case| {
            let source = more(&case.world);
            let parts = [source, case.world.path("source0")];
            for part in &parts {
                let request = PutRequest {
                    upsert: Some(Upsert { group: "g".parse().unwrap(), overwrite: true }),
                    ..PutRequest::plain(part.clone(), "p/a".parse().unwrap())
                };
                put(repository, &request, Arc::new(Silent))?;
            }
            let version = NewVersion::plain("p/a".parse().unwrap());
            let request = FinishRequest { group: "g".parse().unwrap(), version };
            let number = groups::finish(repository, &request)?.committed.number;
            let both = case.world.tree("both", &[]);
            for part in &parts {
                host("cp", &[Path::new("-r"), &part.join("."), &both]);
            }
            case.sources.insert(format!("v{}", number.0), both);
            Ok(())
        },
    );
}

#[test]
fn puts_and_deletions_do_not_rely_on_what_may_be_forgotten() {
    forgetting_before_each_write(
        "put and delete",
        |_| {},
        |repository, case| {
            let source = more(&case.world);
            put_version(repository, case, source)?;
            case.sources.remove("v1");
            delete(repository, &"p/a:v1".parse().unwrap(), true, Reclaim::Now).map(drop)
        },
    );
}
