//! One run of a closure: what it read, and what it wants to change.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::rows::Rows;
use crate::error::{Error, Result};
use crate::registry::engine::table::{Change, RangeGuard, Revision, Session};
use crate::registry::engine::{Durability, Log, Pair, Span, Transaction, View, Want};
use crate::registry::keys;

/// The least number of rows that a look asks for. Listings often continue where they stopped.
const SPAN_ROWS: usize = 16;

/// A view of a table that can be changed at the end.
pub(super) struct Run<'a> {
    looked: RefCell<Looked<'a>>,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    entries: Vec<(Log, Vec<u8>)>,
}

struct Looked<'a> {
    session: Box<dyn Session + 'a>,
    rows: Rows,
    looks: usize,
    /// The first error of the table; the closure's own error only follows from it.
    failure: Option<Error>,
    guards: BTreeMap<Vec<u8>, Revision>,
    ranges: Vec<RangeGuard>,
}

impl Looked<'_> {
    /// Looks up what is not known yet, in one round trip.
    fn look(&mut self, want: &Want) -> Result<()> {
        let want = self.rows.unknown(want);
        if want == Want::default() {
            return Ok(());
        }
        self.looks += 1;
        match self.session.look(&want) {
            Ok(seen) => {
                self.rows.add(&want, seen);
                Ok(())
            }
            Err(error) => {
                let again = Error::new(error.kind(), error.message());
                self.failure.get_or_insert(error);
                Err(again)
            }
        }
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.rows.get(key).is_none() {
            self.look(&Want::keys([key.to_vec()]))?;
        }
        let row = self.rows.get(key).flatten();
        self.guards.entry(key.to_vec()).or_insert_with(|| row.map_or(0, |(_, revision)| *revision));
        Ok(row.map(|(value, _)| value.clone()))
    }

    /// Returns the first rows of a span, as they are in the table.
    fn span(&mut self, span: &Span) -> Result<Vec<Pair>> {
        while let Some(mut unknown) = self.rows.span(span).unknown {
            unknown.limit = unknown.limit.max(SPAN_ROWS);
            self.look(&Want { keys: Vec::new(), spans: vec![unknown] })?;
        }
        let rows = self.rows.span(span).rows;
        let to = match rows.last() {
            Some((last, _)) if rows.len() == span.limit => keys::next(last),
            _ => span.to.clone(),
        };
        let sum = rows.iter().map(|(_, (_, revision))| i128::from(*revision)).sum();
        let guard = RangeGuard { from: span.from.clone(), to, rows: rows.len() as u64, sum };
        let pairs = rows.into_iter().map(|(key, (value, _))| (key.clone(), value.clone()));
        let pairs = pairs.collect();
        if self.ranges.last() != Some(&guard) {
            self.ranges.push(guard);
        }
        Ok(pairs)
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(session: Box<dyn Session + 'a>) -> Self {
        let looked = Looked {
            session,
            rows: Rows::default(),
            looks: 0,
            failure: None,
            guards: BTreeMap::new(),
            ranges: Vec::new(),
        };
        Self { looked: RefCell::new(looked), changes: BTreeMap::new(), entries: Vec::new() }
    }

    /// Returns the error of the table, if it failed.
    pub(super) fn failure(&self) -> Option<Error> {
        self.looked.borrow_mut().failure.take()
    }

    /// Makes the changes. Returns `false`, with nothing changed, if a row or range that the closure
    /// read has changed.
    pub(super) fn apply(self, durability: Durability) -> Result<bool> {
        self.finish(durability, true)
    }

    /// Changes nothing. Returns whether everything that was read is unchanged.
    pub(super) fn check(self) -> Result<bool> {
        self.finish(Durability::Eventual, false)
    }

    fn finish(self, durability: Durability, changes: bool) -> Result<bool> {
        let looked = self.looked.into_inner();
        if looked.rows.torn {
            return Ok(false);
        }
        let mut change = Change::default();
        if changes {
            change.entries = self.entries;
            for (key, value) in self.changes {
                match value {
                    Some(value) => change.puts.push((key, value)),
                    None => change.deletes.push(key),
                }
            }
        }
        // The rows of one look are all of one moment, so nothing has to be checked.
        if change.is_empty() && looked.looks <= 1 {
            return Ok(true);
        }
        change.keys = looked.guards.into_iter().collect();
        change.ranges = looked.ranges;
        looked.session.apply(&change, durability)
    }
}

impl View for Run<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.looked.borrow_mut().get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let changed = || self.changes.range(from.to_vec()..to.to_vec());
        let removed = changed().filter(|(_, value)| value.is_none()).count();
        let limit_below = limit.saturating_add(removed);
        let span = Span { from: from.to_vec(), to: to.to_vec(), limit: limit_below };
        let below = self.looked.borrow_mut().span(&span)?;
        // Beyond the last row of a full page nothing is known.
        let end = below.last().filter(|_| below.len() == limit_below).map(|(key, _)| key.clone());
        let mut pairs: BTreeMap<_, _> = below.into_iter().collect();
        for (key, value) in changed() {
            match value {
                Some(value) if end.as_ref().is_none_or(|end| key <= end) => {
                    pairs.insert(key.clone(), value.clone());
                }
                Some(_) => {}
                None => drop(pairs.remove(key)),
            }
        }
        Ok(pairs.into_iter().take(limit).collect())
    }

    fn want(&self, want: &dyn Fn() -> Result<Want>) -> Result<()> {
        let want = want()?;
        self.looked.borrow_mut().look(&want)
    }

    fn log_end(&self, log: &Log) -> Result<u64> {
        let value = self.looked.borrow_mut().get(log.counter)?;
        let bytes = value.and_then(|value| value.try_into().ok());
        Ok(bytes.map_or(0, u64::from_be_bytes))
    }
}

impl Transaction for Run<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.changes.insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.changes.insert(key.to_vec(), None);
        Ok(())
    }

    fn append(&mut self, log: &Log, value: &[u8]) -> Result<Option<u64>> {
        self.entries.push((*log, value.to_vec()));
        Ok(None)
    }
}
