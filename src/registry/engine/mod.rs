//! The ordered, transactional key-value store under the registry.
//!
//! Every engine passes one contract suite. Reads see a snapshot, writes are serializable, a closure
//! that returns an error changes nothing, and durable writes survive a crash.

pub mod memory;
pub mod redb;

use crate::error::Result;

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
}

/// An ordered, transactional key-value store.
pub trait Engine: Send + Sync {
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
