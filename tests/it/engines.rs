//! Engines for tests: one that does something of the test's own before each of its writes, and a
//! table in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use artifactfs::error::Result;
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::engine::optimistic::Optimistic;
use artifactfs::registry::engine::redb::RedbEngine;
use artifactfs::registry::engine::table::{Change, Mode, RangeGuard, Row, Seen, Session, Table};
use artifactfs::registry::engine::{Durability, Engine, Transaction, View, Want};

/// Runs a check on each engine that needs no server.
pub fn each_engine(check: impl Fn(&dyn Engine)) {
    check(&MemoryEngine::default());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    check(&RedbEngine::open(&dir.path().join("r.redb")).unwrap());
    check(&Optimistic(MemoryTable { rows: Mutex::default(), disturb: |_: &mut Rows| () }));
}

/// Returns an empty engine that needs no server.
pub fn fresh_engine() -> Box<dyn Engine> {
    Box::<MemoryEngine>::default()
}

/// An engine whose writes begin with `before_write`, and fail with its error.
pub struct Watched<F> {
    pub inner: Arc<MemoryEngine>,
    pub before_write: F,
}

impl<F: Fn() -> Result<()> + Send + Sync> Engine for Watched<F> {
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()> {
        self.inner.read(body)
    }

    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        (self.before_write)()?;
        self.inner.write(durability, body)
    }
}

/// A table in memory that does something of the test's own before each look and change of a session
/// that is not alone.
pub struct MemoryTable<F> {
    pub rows: Mutex<Rows>,
    pub disturb: F,
}

/// The rows of a table in memory, by key, with their revisions.
#[derive(Clone, Default)]
pub struct Rows {
    pub map: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    revision: i64,
}

impl Rows {
    fn row(&self, key: &[u8]) -> Option<Row> {
        let (value, revision) = self.map.get(key)?;
        Some(Row { key: key.to_vec(), value: value.clone(), revision: *revision })
    }

    fn range(&self, from: &[u8], to: &[u8]) -> Vec<Row> {
        let range = self.map.range(from.to_vec()..to.to_vec());
        range.filter_map(|(key, _)| self.row(key)).collect()
    }

    fn look(&self, want: &Want) -> Seen {
        let rows = want.keys.iter().filter_map(|key| self.row(key)).collect();
        let spans = want.spans.iter();
        let spans = spans.map(|s| self.range(&s.from, &s.to).into_iter().take(s.limit).collect());
        Seen { rows, spans: spans.collect() }
    }

    fn holds(&self, guard: &RangeGuard) -> bool {
        let rows = self.range(&guard.from, &guard.to);
        let sum: i128 = rows.iter().map(|row| i128::from(row.revision)).sum();
        (rows.len() as u64, sum) == (guard.rows, guard.sum)
    }

    pub fn apply(&mut self, change: &Change) -> bool {
        let fits = |(key, revision): &(Vec<u8>, i64)| {
            self.map.get(key).map_or(0, |(_, revision)| *revision) == *revision
        };
        if !change.keys.iter().all(fits) || !change.ranges.iter().all(|guard| self.holds(guard)) {
            return false;
        }
        self.revision += 1;
        for key in &change.deletes {
            self.map.remove(key);
        }
        for (key, value) in &change.puts {
            self.map.insert(key.clone(), (value.clone(), self.revision));
        }
        for (log, value) in &change.entries {
            let last = self
                .map
                .get(log.counter)
                .map_or(0, |(value, _)| u64::from_be_bytes(value.as_slice().try_into().unwrap()));
            let number = last + 1;
            self.map.insert(log.counter.to_vec(), (number.to_be_bytes().into(), self.revision));
            self.map.insert(log.entry(number), (value.clone(), self.revision));
            self.map.remove(&log.entry(number.wrapping_sub(log.kept)));
        }
        true
    }
}

enum MemorySession<'a, F> {
    Snapshot(Rows),
    Latest(&'a MemoryTable<F>),
    Alone(MutexGuard<'a, Rows>),
}

impl<F: Fn(&mut Rows) + Send + Sync> Table for MemoryTable<F> {
    fn session(&self, mode: Mode) -> Result<Box<dyn Session + '_>> {
        let session = match mode {
            Mode::Snapshot => MemorySession::Snapshot(self.rows.lock().unwrap().clone()),
            Mode::Latest => MemorySession::Latest(self),
            Mode::Alone => MemorySession::Alone(self.rows.lock().unwrap()),
        };
        Ok(Box::new(session))
    }
}

impl<F: Fn(&mut Rows) + Send + Sync> Session for MemorySession<'_, F> {
    fn look(&mut self, want: &Want) -> Result<Seen> {
        Ok(match self {
            Self::Snapshot(rows) => rows.look(want),
            Self::Alone(rows) => rows.look(want),
            Self::Latest(table) => {
                let mut rows = table.rows.lock().unwrap();
                (table.disturb)(&mut rows);
                rows.look(want)
            }
        })
    }

    fn apply(self: Box<Self>, change: &Change, _durability: Durability) -> Result<bool> {
        Ok(match *self {
            Self::Snapshot(_) => unreachable!("a snapshot is not changed"),
            Self::Alone(mut rows) => rows.apply(change),
            Self::Latest(table) => {
                let mut rows = table.rows.lock().unwrap();
                (table.disturb)(&mut rows);
                rows.apply(change)
            }
        })
    }
}
