//! A lock for each draft: held exclusively while its names move, shared while a path of it is used.
//!
//! It is held while the lower tree is read, which may take as long as a store does not reply. So no
//! two drafts share a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, RawRwLock, RwLock};

use super::freeze::DraftKey;
use crate::model::reference::ArtifactPath;

/// A shared lock: no name of the draft moves while it is held.
pub(crate) type Still = ArcRwLockReadGuard<RawRwLock, ()>;
/// An exclusive lock: no other thread uses a path of the draft while it is held.
pub(crate) type Moving = ArcRwLockWriteGuard<RawRwLock, ()>;

/// The number of locks from which on unused ones are forgotten.
const IDLE_MAX: usize = 1024;

/// The locks of all drafts.
#[derive(Default)]
pub(crate) struct NamesLocks {
    locks: Mutex<HashMap<DraftKey, Arc<RwLock<()>>>>,
}

impl NamesLocks {
    /// Waits until no name of the draft moves.
    pub(crate) fn still(&self, key: &ArtifactPath) -> Still {
        self.of(key).read_arc()
    }

    /// Waits until no other thread uses a path of the draft.
    pub(crate) fn moving(&self, key: &ArtifactPath) -> Moving {
        self.of(key).write_arc()
    }

    fn of(&self, key: &ArtifactPath) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(key) {
            return Arc::clone(lock);
        }
        if locks.len() >= IDLE_MAX {
            // A thread that holds or waits for a lock has a reference to it, and gets it from this
            // map only.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        let lock = Arc::default();
        locks.insert(Arc::new(key.clone()), Arc::clone(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_draft_has_anothers_and_a_held_one_is_never_forgotten() {
        let locks = NamesLocks::default();
        let key = |number: usize| format!("p/a{number}").parse::<ArtifactPath>().unwrap();
        let held = locks.moving(&key(0));
        for number in 1..=IDLE_MAX * 3 {
            drop(locks.moving(&key(number)));
        }
        assert!(locks.locks.lock().unwrap().len() <= IDLE_MAX + 1);
        assert!(locks.of(&key(0)).try_read().is_none());
        drop(held);
        assert!(locks.of(&key(0)).try_write().is_some());
    }
}
