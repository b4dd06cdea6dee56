//! The registry over an engine in this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::counter::{next_counter, read_counter};
use super::engine::{self, Durability, Engine, Transaction, View};
use super::keys::{Key, Space};
use super::record;
use super::seen_time::note_time;
use super::upkeep::mark::refuse_under_maintenance;
use crate::error::Result;
use crate::model::host::Clock;
use crate::model::reference::ArtifactPath;
use crate::model::version::Change;

/// The counter of the change log.
pub(super) const CHANGES: &str = "change";
/// The number of entries that the change log keeps: a mount that missed more drops all its caches.
const CHANGES_KEPT: u64 = 10_000;
/// The longest wait for a change in milliseconds; longer requested waits are shortened.
pub const CHANGES_WAIT_MAX: u64 = 60_000;

/// The position of the change log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastChange {
    /// The number of the newest entry.
    pub(crate) last: u64,
    /// True if the registry is about to close, so that all waits end.
    pub(crate) ending: bool,
}

impl LastChange {
    /// Returns whether a wait for an entry above `after` is over.
    pub(crate) fn is_news(&self, after: u64) -> bool {
        self.last > after || self.ending
    }
}

/// A registry in this process.
pub struct EngineRegistry {
    pub(super) engine: Box<dyn Engine>,
    pub(super) clock: Clock,
    changed: (Mutex<u64>, Condvar),
    ending: AtomicBool,
    last_change: watch::Sender<LastChange>,
}

impl EngineRegistry {
    /// Opens the registry in `engine`, which may be empty.
    ///
    /// # Errors
    /// Fails if the engine fails.
    pub fn open(engine: Box<dyn Engine>, clock: Clock) -> Result<Self> {
        let last = engine::read(&*engine, |view| read_counter(view, CHANGES))?;
        Ok(Self {
            engine,
            clock,
            changed: (Mutex::new(last), Condvar::new()),
            ending: AtomicBool::new(false),
            last_change: watch::Sender::new(LastChange { last, ending: false }),
        })
    }

    /// Returns a receiver of the newest change, for waits that block no thread.
    pub(crate) fn changed(&self) -> watch::Receiver<LastChange> {
        self.last_change.subscribe()
    }

    /// Ends all waits for changes, because this process is about to close the registry.
    pub(crate) fn finish_waits(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let _last = self.changed.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.1.notify_all();
        self.last_change.send_modify(|last_change| last_change.ending = true);
    }

    pub(super) fn read<T>(&self, body: impl FnMut(&dyn View) -> Result<T>) -> Result<T> {
        engine::read(&*self.engine, body)
    }

    /// Runs a transaction; refuses it while the repository is under maintenance.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        mut body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        engine::write(&*self.engine, durability, |transaction| {
            refuse_under_maintenance(&*transaction)?;
            body(transaction)
        })
    }

    /// Runs a transaction that is allowed under maintenance: it touches neither versions nor counts
    /// nor parts, or belongs to maintenance itself.
    pub(super) fn write_aside<T>(
        &self,
        durability: Durability,
        body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        engine::write(&*self.engine, durability, body)
    }

    /// Runs a durable transaction that changes names of `path`, adds it to the change log, and
    /// wakes all waits for changes.
    pub(super) fn write_names<T>(
        &self,
        path: &ArtifactPath,
        body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        self.write_change(&Change::Artifact(path.clone()), body)
    }

    /// Does the same for any change that mounts must see.
    pub(super) fn write_change<T>(
        &self,
        change: &Change,
        mut body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        let (value, sequence) = self.write_aside(Durability::Immediate, |transaction| {
            // Changes of runs are allowed under maintenance.
            if !matches!(change, Change::Runs) {
                refuse_under_maintenance(&*transaction)?;
            }
            let value = body(transaction)?;
            note_time(transaction, (self.clock)())?;
            let sequence = next_counter(transaction, CHANGES)?;
            let key = Key::of(Space::Change).number(sequence).done();
            transaction.put(&key, &record::encode(change))?;
            if let Some(old) = sequence.checked_sub(CHANGES_KEPT) {
                transaction.delete(&Key::of(Space::Change).number(old).done())?;
            }
            Ok((value, sequence))
        })?;
        let (last, waiters) = &self.changed;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(sequence);
        waiters.notify_all();
        self.last_change.send_modify(|last_change| last_change.last = *last);
        Ok(value)
    }

    pub(super) fn wait_for_change(&self, after: u64, wait: Duration) {
        let (last, waiters) = &self.changed;
        let deadline = Instant::now() + wait;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        while *last <= after && !self.ending.load(Ordering::SeqCst) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            last = waiters.wait_timeout(last, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
