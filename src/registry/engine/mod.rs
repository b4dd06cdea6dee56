//! The ordered, transactional key-value store under the registry.
//!
//! Every engine passes one contract suite. Reads see a snapshot, writes are serializable, a closure
//! that returns an error changes nothing, and durable writes survive a crash. An engine in this
//! process runs closures in its transactions. One over a network is a [`table::Table`], which knows
//! only looks and guarded changes; [`optimistic`] runs closures over it.

pub mod memory;
pub mod optimistic;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(not(feature = "postgres"))]
#[path = "postgres_absent.rs"]
pub mod postgres;
pub mod redb;
pub mod table;

use crate::error::{Error, Kind, Result};

/// The time at which a transaction becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The transaction and all earlier commits are on the disk when `write` returns.
    Immediate,
    /// The transaction is on the disk with the next [`Durability::Immediate`] one; a crash before
    /// that may undo it.
    Eventual,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A part of the keys in their order: `from <= key < to`, at most `limit` of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The first key that belongs to the span, if it exists.
    pub from: Vec<u8>,
    /// The first key after the span.
    pub to: Vec<u8>,
    /// The maximum number of pairs.
    pub limit: usize,
}

/// The rows that a caller is about to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// Single keys.
    pub keys: Vec<Vec<u8>>,
    /// Parts of the keys.
    pub spans: Vec<Span>,
}

impl Want {
    /// Returns a want of single keys.
    pub fn keys(keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { keys: keys.into_iter().collect(), spans: Vec::new() }
    }
}

/// A log: numbered entries, of which the newest are kept. The first has number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The key of the number of the newest entry.
    pub counter: &'static [u8],
    /// The first bytes of the keys of entries; the number follows, big-endian.
    pub prefix: &'static [u8],
    /// The number of entries that are kept.
    pub kept: u64,
}

impl Log {
    /// Returns the key of an entry.
    pub fn entry(&self, number: u64) -> Vec<u8> {
        [self.prefix, &number.to_be_bytes()].concat()
    }
}

/// A consistent view of all keys.
pub trait View {
    /// Returns the value of `key`.
    ///
    /// # Errors
    /// Fails if the engine fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Returns at most `limit` pairs with `from <= key < to`, in the order of keys.
    ///
    /// # Errors
    /// Fails if the engine fails.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>>;

    /// Announces rows that are about to be read, so that an engine over a network fetches them in
    /// one round trip. It changes no result. An engine in this process does not call `want`.
    ///
    /// # Errors
    /// Fails if the engine fails, and with the errors of `want`.
    fn want(&self, _want: &dyn Fn() -> Result<Want>) -> Result<()> {
        Ok(())
    }

    /// Returns the number of the newest entry of a log; 0 if it never had one.
    ///
    /// # Errors
    /// Fails if the engine fails.
    fn log_end(&self, log: &Log) -> Result<u64> {
        let value = self.get(log.counter)?;
        value.map_or(Ok(0), |bytes| {
            let damaged = |e| Error::new(Kind::Corrupt, "a counter is damaged").because(e);
            postcard::from_bytes(&bytes).map_err(damaged)
        })
    }
}

/// A view that can be changed; it sees its own changes.
pub trait Transaction: View {
    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// Fails if the engine fails.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Removes `key` if it exists.
    ///
    /// # Errors
    /// Fails if the engine fails.
    fn delete(&mut self, key: &[u8]) -> Result<()>;

    /// Adds an entry to a log, and removes the oldest if there are too many. Returns its number,
    /// or `None` if the engine only finds it when the transaction is done.
    ///
    /// # Errors
    /// Fails if the engine fails.
    fn append(&mut self, log: &Log, value: &[u8]) -> Result<Option<u64>> {
        let number = self.log_end(log)? + 1;
        let counter = postcard::to_stdvec(&number)
            .map_err(|e| Error::new(Kind::Unavailable, "cannot encode a number").because(e))?;
        self.put(log.counter, &counter)?;
        self.put(&log.entry(number), value)?;
        if let Some(old) = number.checked_sub(log.kept) {
            self.delete(&log.entry(old))?;
        }
        Ok(Some(number))
    }
}

/// An ordered, transactional key-value store.
pub trait Engine: Send + Sync {
    /// Returns whether other processes change the same data, so that changes have to be looked for.
    fn is_shared(&self) -> bool {
        false
    }

    /// Runs `body` on a snapshot.
    ///
    /// # Errors
    /// The errors of `body` and of the engine.
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()>;

    /// Runs `body` as one serializable transaction and commits it if it returns `Ok`. An engine
    /// that detects a conflict runs `body` again, so `body` must keep no state between calls.
    ///
    /// # Errors
    /// The errors of `body`, after which nothing is changed, and those of the engine.
    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()>;
}

/// Runs [`Engine::read`] and returns the value of `body`.
///
/// # Errors
/// As [`Engine::read`].
pub fn read<T>(engine: &dyn Engine, mut body: impl FnMut(&dyn View) -> Result<T>) -> Result<T> {
    let mut value = None;
    engine.read(&mut |view| {
        value = Some(body(view)?);
        Ok(())
    })?;
    Ok(value.expect("an engine that returns Ok has run the body"))
}

/// Runs [`Engine::write`] and returns the value of `body`.
///
/// # Errors
/// As [`Engine::write`].
pub fn write<T>(
    engine: &dyn Engine,
    durability: Durability,
    mut body: impl FnMut(&mut dyn Transaction) -> Result<T>,
) -> Result<T> {
    let mut value = None;
    engine.write(durability, &mut |transaction| {
        value = Some(body(transaction)?);
        Ok(())
    })?;
    Ok(value.expect("an engine that returns Ok has run the body"))
}
