//! A cache of the registry rows that decide the rights of users.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::error::Result;
use crate::model::access::ProjectAccess;
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::zone::Zone;

/// The time for which the cache answers for a key or for the rights in a project. Servers therefore
/// revoke both within a second.
pub(super) const BELIEVED: Duration = Duration::from_millis(500);
/// The number of projects, runs, sweeps and zones that are remembered, each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// The time for which a cache keeps a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// For ever, because the value never changes.
    Always,
    /// For the time of [`BELIEVED`].
    Shortly,
    /// Not at all.
    Never,
}

/// Returns the time for which a cache keeps the project of something. It does not keep an absence,
/// which ends as soon as another user makes the thing.
pub(super) fn if_there<T>(found: &Option<T>) -> Keep {
    if found.is_some() { Keep::Shortly } else { Keep::Never }
}

/// A cache whose values have a limited time to live.
pub(super) struct TimedCache<K, V>(Mutex<LruCache<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Default for TimedCache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl<K: Hash + Eq + Clone, V: Clone> TimedCache<K, V> {
    /// Returns the value of a key.
    pub(super) fn get(
        &self,
        key: &K,
        keep: impl Fn(&V) -> Keep,
        look_up: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(key).cloned();
        if let Some((_, value)) = known.filter(|(since, value)| match keep(value) {
            Keep::Always => true,
            Keep::Shortly => since.elapsed() < BELIEVED,
            Keep::Never => false,
        }) {
            return Ok(value);
        }
        // A change that is made during the look-up may not show in it.
        let since = Instant::now();
        let value = look_up()?;
        if keep(&value) != Keep::Never {
            lock().put(key.clone(), (since, value.clone()));
        }
        Ok(value)
    }
}

/// The rows that the rights of all users depend on.
#[derive(Default)]
pub(super) struct AccessCache {
    pub(super) zoned: TimedCache<(), bool>,
    pub(super) access: TimedCache<ProjectName, Arc<ProjectAccess>>,
    pub(super) zones: TimedCache<Zone, Option<ProjectName>>,
    pub(super) runs: TimedCache<RunId, Option<ProjectName>>,
    pub(super) sweeps: TimedCache<SweepId, Option<ProjectName>>,
}

impl AccessCache {
    /// Removes all visibilities and members, after a call through this server has changed one.
    pub(super) fn forget_access(&self) {
        self.access.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
