//! A table over a network: consistent looks, and changes that are made only if the rows on which they
//! depend are unchanged.

use super::{Log, Span, Want};
use crate::error::Result;

/// A random number that a row gets with each change of its value; never 0. Rows of one change share it.
pub type Revision = i64;

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision of the value.
    pub revision: Revision,
}

/// The rows of one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The rows of the wanted keys that exist, in any order.
    pub rows: Vec<Row>,
    /// The rows of each wanted span, in the order of their keys.
    pub spans: Vec<Vec<Row>>,
}

/// The rows of a range as they were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeGuard {
    /// The first key that belongs to the range, if it exists.
    pub from: Vec<u8>,
    /// The first key after the range.
    pub to: Vec<u8>,
    /// The number of rows.
    pub rows: u64,
    /// The sum of their revisions. Revisions are random, so that other rows have another sum.
    pub sum: i128,
}

/// A change that is made whole or not at all, and only if all guards hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Keys and the revisions that they must have; 0: the key must not exist.
    pub keys: Vec<(Vec<u8>, Revision)>,
    /// Ranges that must have the same rows.
    pub ranges: Vec<RangeGuard>,
    /// Keys and their new values.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys to remove.
    pub deletes: Vec<Vec<u8>>,
    /// Entries for logs.
    pub entries: Vec<(Log, Vec<u8>)>,
}

impl Change {
    /// Returns whether there is nothing to write; such a change only checks its guards.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty() && self.entries.is_empty()
    }
}

/// The view that a session has of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All looks see the same moment.
    Snapshot,
    /// Each look sees the moment at which it is made.
    Latest,
    /// As `Latest`, and no other session changes the table until this one ends.
    Alone,
}

/// Looks at a table, one round trip each.
pub trait Session {
    /// Returns the wanted rows.
    ///
    /// # Errors
    /// Fails if the table cannot be reached in time.
    fn look(&mut self, want: &Want) -> Result<Seen>;

    /// Makes a change and ends the session. Returns `false`, with nothing changed, if a guard does
    /// not hold. It is made once, even if the connection breaks.
    ///
    /// # Errors
    /// Fails if the table cannot be reached in time.
    fn apply(self: Box<Self>, change: &Change, durability: super::Durability) -> Result<bool>;
}

/// A table over a network.
pub trait Table: Send + Sync {
    /// Begins a session. A session that is dropped has changed nothing.
    ///
    /// # Errors
    /// Fails if the table cannot be reached in time.
    fn session(&self, mode: Mode) -> Result<Box<dyn Session + '_>>;
}

impl Span {
    /// Returns whether no key can belong to the span.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to || self.limit == 0
    }
}
