//! Idempotence: every call is made twice, as if its first reply had been lost. The second call
//! changes nothing and succeeds.

use std::path::Path;
use std::sync::Arc;

use artifactfs::content::options::StoreOptions;
use artifactfs::error::Result;
use artifactfs::model::host::Host;
use artifactfs::model::name::RunId;
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::properties::Ttl;
use artifactfs::model::run::{Resume, RunLog, RunStart, RunState};
use artifactfs::ops::delete::{self};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::groups::{self, FinishRequest};
use artifactfs::ops::put::Upsert;
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::ops::{alias, runs};
use artifactfs::registry::engine::redb::RedbEngine;
use artifactfs::registry::{
    AliasChange, Call, Detail, EngineRegistry, Registry, Transport, Update, dispatch,
};

use crate::world::{World, noise, write};

/// A registry that makes each call `times` times.
struct Repeated {
    inner: EngineRegistry,
    times: u32,
}

impl Transport for Repeated {
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        let call = postcard::to_stdvec(&call).unwrap();
        let asked = || dispatch(&self.inner, postcard::from_bytes(&call).unwrap());
        for _ in 1..self.times {
            let _lost = asked();
        }
        asked()
    }
}

fn open(root: &Path, times: u32) -> Repository {
    let layout = Layout::new(root).unwrap();
    let engine = Box::new(RedbEngine::open(&layout.registry()).unwrap());
    let inner = EngineRegistry::open(engine, Host::system().clock).unwrap();
    let registry: Arc<dyn Registry> = Arc::new(Repeated { inner, times });
    Repository::new(layout, registry, &StoreOptions::default()).unwrap()
}

/// Does with a repository what people do in a day, and returns its state afterwards.
fn day(world: &World, times: u32) -> String {
    let repository = open(&world.repo(), times);
    let registry = &*repository.registry;
    let source = world.tree("src", &[]);
    let silent = || Arc::new(Silent);
    let change = |seed: u64| write(&source.join(format!("f{}", seed % 3)), &noise(seed, 300_000));
    let run: RunId = "night".parse().unwrap();
    runs::begin(registry, run_start(run.clone()), Resume::Never).unwrap();
    for seed in 0..5 {
        change(seed);
        let mut request = PutRequest::plain(source.clone(), "p/a".parse().unwrap());
        request.version.run = Some(run.clone());
        request.version.ttl = (seed == 3).then_some(Ttl::After(0));
        put(&repository, &request, silent()).unwrap();
    }
    let best = |version: &str| {
        let change = AliasChange::Add(vec!["best".parse().unwrap(), "kept".parse().unwrap()]);
        registry.change_aliases(version.parse().unwrap(), change, false).unwrap();
    };
    best("p/a:v1");
    best("p/a:v2");
    let removed = AliasChange::Remove(vec!["best".parse().unwrap()]);
    alias::change(&repository, "p/a:v2".parse().unwrap(), removed, false).unwrap();
    let update = Update { tag: vec!["good".parse().unwrap()], ..Update::default() };
    registry.update("p/a:v2".parse().unwrap(), update).unwrap();
    delete::delete(&repository, &"p/a:v0".parse().unwrap(), true, Reclaim::Later).unwrap();
    let expired = registry.lookup("p/a:v3".parse().unwrap()).unwrap();
    delete::expire(&repository, &expired, Reclaim::Now).unwrap().expect("its time is over");
    for seed in 10..12 {
        change(seed);
        let request = PutRequest {
            upsert: Some(Upsert { group: "g".parse().unwrap(), overwrite: true }),
            ..PutRequest::plain(source.clone(), "p/g".parse().unwrap())
        };
        put(&repository, &request, silent()).unwrap();
    }
    let version = NewVersion::plain("p/g".parse().unwrap());
    let request = FinishRequest { group: "g".parse().unwrap(), version };
    groups::finish(&repository, &request).unwrap();
    let summary = vec![("loss".to_owned(), "1".to_owned())];
    let log =
        RunLog { summary, metrics: vec![("x".to_owned(), 2.0)], token: 7, ..RunLog::default() };
    registry.log(run.clone(), log).unwrap();
    let a2 = registry.lookup("p/a:v2".parse().unwrap()).unwrap();
    registry.add_use(run.clone(), a2.path, a2.number, None).unwrap();
    registry.end_run(run.clone(), RunState::Finished, Some(0)).unwrap();
    let ended = registry.run(run.clone()).unwrap();
    runs::remove(registry, &run).unwrap();
    assert_eq!(registry.leases().unwrap().len(), 0);
    told(registry, &format!("{:?} {}", ended.state, ended.rows))
}

fn run_start(id: RunId) -> RunStart {
    RunStart {
        id,
        project: "p".parse().unwrap(),
        name: None,
        group: None,
        job_type: None,
        sweep: None,
        config: "{}".parse().unwrap(),
        holder: None,
        command: Vec::new(),
        token: 5,
    }
}

fn told(registry: &dyn Registry, more: &str) -> String {
    let mut lines = vec![more.to_owned()];
    for path in ["p/a", "p/g"] {
        let page = registry.versions(path.parse().unwrap(), None, 100, Detail::Full).unwrap();
        lines.extend(page.items.iter().map(|version| {
            let (number, root, tags) = (version.number, version.root, &version.tags);
            format!("{path} {number} {root} {:?} {tags:?}", version.aliases)
        }));
    }
    lines.push(format!("{:?}", registry.info().unwrap()));
    lines.join("\n")
}

#[test]
fn calls_made_twice_take_effect_once() {
    let [once, twice, thrice] = [1, 2, 3].map(|times| {
        let world = World::new();
        let told = day(&world, times);
        world.sound();
        told
    });
    assert_eq!(once, twice);
    assert_eq!(once, thrice);
}
