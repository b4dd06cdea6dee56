//! Freezes: while a draft is committed, nothing in it changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Result;
use crate::model::reference::ArtifactPath;

/// The name of a draft.
pub(crate) type DraftKey = Arc<ArtifactPath>;

/// The time that freezing waits for operations under way: each is one system call.
const SETTLE_DEADLINE: Duration = Duration::from_secs(10);

/// The time that an operation waits for a draft that is being committed.
const THAW_DEADLINE: Duration = Duration::from_secs(60);
/// The most operations that may wait at once: each has a thread of its own.
const WAITING_MAX: usize = 64;

#[derive(Default)]
struct Gate {
    frozen: bool,
    /// True if nothing may change until [`Freezes::unseal`].
    sealed: bool,
    /// The number of operations under way that change the draft.
    changing: u32,
    /// The number of handles open for writing.
    writers: u32,
}

/// The freezes of all drafts in use.
#[derive(Default)]
pub(crate) struct Freezes {
    gates: Mutex<HashMap<DraftKey, Gate>>,
    moved: Condvar,
    /// The time of the last change of each draft: as many entries as there are drafts.
    touched: Mutex<HashMap<DraftKey, Instant>>,
    /// The number of operations that wait for a draft to thaw.
    waiting: AtomicUsize,
    /// The number of frozen drafts.
    frozen: AtomicUsize,
    /// True while [`Freezes::wait_written`] waits.
    watched: AtomicBool,
    written: Condvar,
}

/// An operation that changes a draft.
pub(crate) struct Change<'a> {
    gates: &'a Freezes,
    key: DraftKey,
}

/// A draft that does not change while this lives.
pub(crate) struct Frozen {
    gates: Arc<Freezes>,
    key: DraftKey,
}

impl Freezes {
    fn lock(&self) -> MutexGuard<'_, HashMap<DraftKey, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, key: &DraftKey, act: impl FnOnce(&mut Gate)) {
        let mut gates = self.lock();
        let gate = gates.entry(Arc::clone(key)).or_default();
        act(gate);
        if !gate.frozen && !gate.sealed && gate.changing == 0 && gate.writers == 0 {
            gates.remove(key);
        }
        self.moved.notify_all();
    }

    /// Records that the draft was changed now.
    pub(crate) fn touch(&self, key: &DraftKey) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.insert(Arc::clone(key), Instant::now());
    }

    /// Returns when the draft was last changed.
    pub(crate) fn touched(&self, key: &ArtifactPath) -> Option<Instant> {
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.get(key).copied()
    }

    /// Refuses every change of the draft from now on.
    pub(crate) fn seal(&self, key: &DraftKey) {
        self.with(key, |gate| gate.sealed = true);
    }

    /// Allows changes of the draft again.
    pub(crate) fn unseal(&self, key: &DraftKey) {
        self.with(key, |gate| gate.sealed = false);
    }

    /// Forgets a draft that is gone.
    pub(crate) fn forget(&self, key: &DraftKey) {
        self.unseal(key);
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Begins an operation that changes the draft; waits while the draft is frozen. EBUSY if that
    /// takes more than `THAW_DEADLINE` or more than `WAITING_MAX` wait; EIO if it is sealed.
    pub(crate) fn change(&self, key: &DraftKey) -> Result<Change<'_>> {
        let mut gates = self.lock();
        if gates.get(key).is_some_and(|gate| gate.frozen) {
            gates = self.wait_thawed(gates, key)?;
        }
        if gates.get(key).is_some_and(|gate| gate.sealed) {
            return Err(Errno::IO);
        }
        let gate = gates.entry(Arc::clone(key)).or_default();
        gate.changing += 1;
        Ok(Change { gates: self, key: Arc::clone(key) })
    }

    fn wait_thawed<'a>(
        &'a self,
        mut gates: MutexGuard<'a, HashMap<DraftKey, Gate>>,
        key: &DraftKey,
    ) -> Result<MutexGuard<'a, HashMap<DraftKey, Gate>>> {
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(Errno::BUSY);
        }
        let deadline = Instant::now() + THAW_DEADLINE;
        let mut thawed = true;
        while gates.get(key).is_some_and(|gate| gate.frozen) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                thawed = false;
                break;
            };
            gates = self.moved.wait_timeout(gates, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if thawed { Ok(gates) } else { Err(Errno::BUSY) }
    }

    /// Returns whether any draft is frozen; called before every change, so it takes no lock.
    pub(crate) fn any_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst) > 0
    }

    /// Returns whether the draft is frozen.
    pub(crate) fn is_frozen(&self, key: &DraftKey) -> bool {
        self.lock().get(key).is_some_and(|gate| gate.frozen)
    }

    /// Counts a handle that was opened for writing.
    pub(crate) fn add_writer(&self, key: &DraftKey) {
        self.with(key, |gate| gate.writers += 1);
        if self.watched.load(Ordering::Relaxed) {
            self.written.notify_all();
        }
    }

    /// Waits until a file is opened for writing, at most `wait`.
    pub(crate) fn wait_written(&self, wait: Duration) {
        let gates = self.lock();
        self.watched.store(true, Ordering::Relaxed);
        let (gates, _) =
            self.written.wait_timeout(gates, wait).unwrap_or_else(PoisonError::into_inner);
        self.watched.store(false, Ordering::Relaxed);
        drop(gates);
    }

    /// Uncounts a handle that was open for writing and is closed.
    pub(crate) fn drop_writer(&self, key: &DraftKey) {
        self.touch(key);
        self.with(key, |gate| gate.writers = gate.writers.saturating_sub(1));
    }

    /// Waits until no file of the draft is open for writing; returns `false` if `wait` ends first.
    /// (The kernel reports a close a little after close(2) has returned.)
    pub(crate) fn wait_quiet(&self, key: &DraftKey, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut gates = self.lock();
        while gates.get(key).is_some_and(|gate| gate.writers > 0) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            gates = self.moved.wait_timeout(gates, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Freezes a draft; EBUSY if it is frozen or has writers, or if changes under way do not end in
    /// time.
    pub(crate) fn freeze(self: &Arc<Self>, key: &DraftKey) -> Result<Frozen> {
        let mut gates = self.lock();
        let gate = gates.entry(Arc::clone(key)).or_default();
        if gate.frozen || gate.writers > 0 {
            return Err(Errno::BUSY);
        }
        gate.frozen = true;
        self.frozen.fetch_add(1, Ordering::SeqCst);
        let frozen = Frozen { gates: Arc::clone(self), key: Arc::clone(key) };
        let deadline = Instant::now() + SETTLE_DEADLINE;
        while gates.get(key).is_some_and(|gate| gate.changing > 0) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                drop(gates);
                return Err(Errno::BUSY);
            };
            gates = self.moved.wait_timeout(gates, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        // One of the operations just waited for may have opened a file for writing.
        let writers = gates.get(key).is_some_and(|gate| gate.writers > 0);
        drop(gates);
        if writers { Err(Errno::BUSY) } else { Ok(frozen) }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.gates.touch(&self.key);
        self.gates.with(&self.key, |gate| gate.changing -= 1);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.gates.frozen.fetch_sub(1, Ordering::SeqCst);
        self.gates.with(&self.key, |gate| gate.frozen = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DraftKey {
        Arc::new("p/a".parse().unwrap())
    }

    #[test]
    fn a_draft_with_writers_is_not_frozen() {
        let gates = Arc::new(Freezes::default());
        let frozen = gates.freeze(&key()).unwrap();
        assert!(gates.freeze(&key()).is_err());
        drop(frozen);
        drop(gates.change(&key()).unwrap());
        gates.add_writer(&key());
        assert!(gates.freeze(&key()).is_err());
        assert!(!gates.wait_quiet(&key(), Duration::from_millis(1)));
        gates.drop_writer(&key());
        assert!(gates.wait_quiet(&key(), Duration::ZERO));
        assert!(gates.freeze(&key()).is_ok());
    }

    #[test]
    fn changes_wait_for_the_thaw_and_not_too_many_of_them() {
        let gates = Arc::new(Freezes::default());
        let frozen = gates.freeze(&key()).unwrap();
        std::thread::scope(|scope| {
            let change = || gates.change(&key()).map(drop);
            let waiting: Vec<_> = (0..WAITING_MAX).map(|_| scope.spawn(change)).collect();
            while gates.waiting.load(Ordering::SeqCst) < WAITING_MAX {
                std::thread::yield_now();
            }
            assert_eq!(gates.change(&key()).map(drop), Err(Errno::BUSY));
            assert!(waiting.iter().all(|thread| !thread.is_finished()));
            drop(frozen);
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap().is_ok()));
        });
        assert!(gates.change(&key()).is_ok());
    }

    #[test]
    fn freezing_waits_for_what_has_begun() {
        let gates = Arc::new(Freezes::default());
        let change = gates.change(&key()).unwrap();
        std::thread::scope(|scope| {
            let freezer = scope.spawn(|| gates.freeze(&key()));
            while !gates.is_frozen(&key()) {
                std::thread::yield_now();
            }
            assert!(!freezer.is_finished());
            drop(change);
            assert!(freezer.join().unwrap().is_ok());
        });
    }
}
