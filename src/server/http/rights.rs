//! The rights of users in the projects of a repository, looked up at most once a second.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;

use super::app::{BELIEVED, Served};
use crate::error::{Kind, Result};
use crate::model::access::{Level, Principal, ProjectAccess};
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::zone::Zone;
use crate::ops::repository::Repository;
use crate::registry::guard::Rights;

/// The number of projects, runs, sweeps and zones that are remembered, each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// Values that are believed for a moment after they were looked up.
struct Believed<K, V>(Mutex<LruCache<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Default for Believed<K, V> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Believed<K, V> {
    /// Returns the value of a key. One for which `stays` holds is never looked up again.
    fn get(
        &self,
        key: &K,
        stays: impl Fn(&V) -> bool,
        look_up: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(key).cloned();
        if let Some((_, value)) =
            known.filter(|(since, value)| stays(value) || since.elapsed() < BELIEVED)
        {
            return Ok(value);
        }
        // A change that is made during the look-up may not show in it.
        let since = Instant::now();
        let value = look_up()?;
        lock().put(key.clone(), (since, value.clone()));
        Ok(value)
    }
}

/// What the rights of all users depend on.
#[derive(Default)]
pub(super) struct Known {
    zoned: Believed<(), bool>,
    access: Believed<ProjectName, Arc<ProjectAccess>>,
    zones: Believed<Zone, Option<ProjectName>>,
    runs: Believed<RunId, Option<ProjectName>>,
    sweeps: Believed<SweepId, Option<ProjectName>>,
}

impl Known {
    /// Forgets who may do what, because a call through this server has changed it.
    pub(super) fn forget_access(&self) {
        self.access.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The rights of a user.
pub(super) struct UserRights<'a> {
    served: &'a Served,
    principal: &'a Principal,
}

impl<'a> UserRights<'a> {
    pub(super) fn new(served: &'a Served, principal: &'a Principal) -> Self {
        Self { served, principal }
    }

    fn repository(&self) -> &Repository {
        &self.served.team.repository
    }
}

/// Returns `None` for something that is not there.
fn if_found<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

impl Rights for UserRights<'_> {
    fn principal(&self) -> &Principal {
        self.principal
    }

    fn is_zoned(&self) -> Result<bool> {
        let look_up = || self.repository().registry.is_zoned();
        self.served.known.zoned.get(&(), |zoned| *zoned, look_up)
    }

    fn level(&self, project: &ProjectName) -> Result<Level> {
        let look_up = || Ok(Arc::new(self.repository().registry.project_access(project.clone())?));
        let access = self.served.known.access.get(project, |_| false, look_up)?;
        Ok(access.level(self.principal))
    }

    fn project_of_zone(&self, zone: Zone) -> Result<Option<ProjectName>> {
        let look_up = || self.repository().registry.project_of_zone(zone);
        self.served.known.zones.get(&zone, Option::is_some, look_up)
    }

    fn project_of_run(&self, run: &RunId) -> Result<Option<ProjectName>> {
        let look_up = || {
            let found = if_found(self.repository().registry.run(run.clone()))?;
            Ok(found.map(|run| run.start.project))
        };
        self.served.known.runs.get(run, |_| false, look_up)
    }

    fn project_of_sweep(&self, sweep: &SweepId) -> Result<Option<ProjectName>> {
        let look_up = || {
            let found = if_found(self.repository().registry.sweep(sweep.clone()))?;
            Ok(found.map(|sweep| sweep.project))
        };
        self.served.known.sweeps.get(sweep, |_| false, look_up)
    }
}
