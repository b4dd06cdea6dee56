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

/// How long a value is believed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Belief {
    /// It never changes.
    Always,
    /// For a moment.
    Shortly,
    /// It is looked up again each time.
    Not,
}

/// Returns the belief in what something belongs to: that it is not there is no longer true as soon
/// as somebody makes it.
pub(super) fn if_there<T>(found: &Option<T>) -> Belief {
    if found.is_some() { Belief::Shortly } else { Belief::Not }
}

/// Values that are believed for a moment after they were looked up.
pub(super) struct Believed<K, V>(Mutex<LruCache<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Default for Believed<K, V> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Believed<K, V> {
    /// Returns the value of a key.
    pub(super) fn get(
        &self,
        key: &K,
        belief: impl Fn(&V) -> Belief,
        look_up: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(key).cloned();
        if let Some((_, value)) = known.filter(|(since, value)| match belief(value) {
            Belief::Always => true,
            Belief::Shortly => since.elapsed() < BELIEVED,
            Belief::Not => false,
        }) {
            return Ok(value);
        }
        // A change that is made during the look-up may not show in it.
        let since = Instant::now();
        let value = look_up()?;
        if belief(&value) != Belief::Not {
            lock().put(key.clone(), (since, value.clone()));
        }
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
