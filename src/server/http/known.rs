//! What the rights of users depend on, as it was looked up a moment ago.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::error::Result;
use crate::model::access::ProjectAccess;
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::zone::Zone;

/// The time for which a key that was looked up is believed, and who may do what in a project: so both are
/// revoked within a second.
pub(super) const BELIEVED: Duration = Duration::from_millis(500);
/// The number of projects, runs, sweeps and zones that are remembered, each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// Values that are believed for a moment after they were looked up.
pub(super) struct Believed<K, V>(Mutex<LruCache<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Default for Believed<K, V> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Believed<K, V> {
    /// Returns the value of a key. One for which `stays` holds is never looked up again.
    pub(super) fn get(
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
    pub(super) zoned: Believed<(), bool>,
    pub(super) access: Believed<ProjectName, Arc<ProjectAccess>>,
    pub(super) zones: Believed<Zone, Option<ProjectName>>,
    pub(super) runs: Believed<RunId, Option<ProjectName>>,
    pub(super) sweeps: Believed<SweepId, Option<ProjectName>>,
}

impl Known {
    /// Forgets who may do what, because a call through this server has changed it.
    pub(super) fn forget_access(&self) {
        self.access.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
