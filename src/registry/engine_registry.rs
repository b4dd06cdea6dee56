//! The registry over an engine in this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::engine::{self, Durability, Engine, Log, Transaction, View, Want};
use super::record;
use super::seen_time::{self, note_time};
use super::upkeep::mark::{self, refuse_under_maintenance};
use crate::error::{Error, Result};
use crate::model::host::Clock;
use crate::model::reference::ArtifactPath;
use crate::model::version::Change;

/// The change log. A mount that missed more than it keeps drops all its caches.
pub(super) const CHANGES: Log = Log { counter: b"mchange\0", prefix: b"c", kept: 10_000 };
/// The time between two looks for changes by other processes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
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

/// The waits for changes.
struct Waits {
    last: Mutex<u64>,
    changed: Condvar,
    ending: AtomicBool,
    last_change: watch::Sender<LastChange>,
}

impl Waits {
    fn new(last: u64) -> Self {
        Self {
            last: Mutex::new(last),
            changed: Condvar::new(),
            ending: AtomicBool::new(false),
            last_change: watch::Sender::new(LastChange { last, ending: false }),
        }
    }

    /// Wakes all waits if the log has grown to `end`.
    fn grow(&self, end: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if end > *last {
            *last = end;
            self.changed.notify_all();
            self.last_change.send_modify(|last_change| last_change.last = end);
        }
    }

    /// Ends all waits.
    fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let _last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_all();
        self.last_change.send_modify(|last_change| last_change.ending = true);
    }

    fn wait(&self, after: u64, wait: Duration) {
        let deadline = Instant::now() + wait;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        while *last <= after && !self.ending.load(Ordering::SeqCst) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            last = self.changed.wait_timeout(last, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Looks for changes by other processes until the registry is closed.
fn look_for_changes(engine: &Weak<dyn Engine>, waits: &Weak<Waits>) {
    while let (Some(engine), Some(waits)) = (engine.upgrade(), waits.upgrade()) {
        match engine::read(&*engine, |view| view.log_end(&CHANGES)) {
            Ok(end) => waits.grow(end),
            Err(e) => tracing::debug!("changes by others are not seen: {e}"),
        }
        drop((engine, waits));
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A registry in this process.
pub struct EngineRegistry {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) clock: Clock,
    waits: Arc<Waits>,
}

impl EngineRegistry {
    /// Opens the registry in `engine`, which may be empty. If other processes change it too, a
    /// thread looks for their changes.
    ///
    /// # Errors
    /// Fails if the engine fails, or if the thread cannot be started.
    pub fn open(engine: Box<dyn Engine>, clock: Clock) -> Result<Self> {
        let engine: Arc<dyn Engine> = Arc::from(engine);
        let waits = Arc::new(Waits::new(engine::read(&*engine, |view| view.log_end(&CHANGES))?));
        if engine.is_shared() {
            let (others, waits) = (Arc::downgrade(&engine), Arc::downgrade(&waits));
            std::thread::Builder::new()
                .name("changes".to_owned())
                .spawn(move || look_for_changes(&others, &waits))
                .map_err(|e| Error::io("cannot start the thread that looks for changes", e))?;
        }
        Ok(Self { engine, clock, waits })
    }

    /// Returns a receiver of the newest change, for waits that block no thread.
    pub(crate) fn changed(&self) -> watch::Receiver<LastChange> {
        self.waits.last_change.subscribe()
    }

    /// Ends all waits for changes, because this process is about to close the registry.
    pub(crate) fn finish_waits(&self) {
        self.waits.end();
    }

    pub(super) fn read<T>(&self, body: impl FnMut(&dyn View) -> Result<T>) -> Result<T> {
        engine::read(&*self.engine, body)
    }

    /// Runs a transaction; refuses it while the repository is under maintenance.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        self.write_wanting(durability, &|| Ok(Want::default()), body)
    }

    /// Does the same, and announces the rows that `body` reads first.
    pub(super) fn write_wanting<T>(
        &self,
        durability: Durability,
        want: &dyn Fn() -> Result<Want>,
        mut body: impl FnMut(&mut dyn Transaction) -> Result<T>,
    ) -> Result<T> {
        engine::write(&*self.engine, durability, |transaction| {
            transaction.want(&|| {
                let mut want = want()?;
                want.keys.push(mark::key());
                Ok(want)
            })?;
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
        let (value, number) = self.write_aside(Durability::Immediate, |transaction| {
            transaction.want(&|| Ok(Want::keys([mark::key(), seen_time::key()])))?;
            // Changes of runs are allowed under maintenance.
            if !matches!(change, Change::Runs) {
                refuse_under_maintenance(&*transaction)?;
            }
            let value = body(transaction)?;
            note_time(transaction, (self.clock)())?;
            Ok((value, transaction.append(&CHANGES, &record::encode(change))?))
        })?;
        match number.map_or_else(|| self.read(|view| view.log_end(&CHANGES)), Ok) {
            Ok(end) => self.waits.grow(end),
            // The change is made. The thread that looks for changes wakes the waits.
            Err(e) => tracing::debug!("waits for changes are not woken yet: {e}"),
        }
        Ok(value)
    }

    pub(super) fn wait_for_change(&self, after: u64, wait: Duration) {
        self.waits.wait(after, wait);
    }
}
