//! The ordered, transactional key-value store under the registry.
//!
//! Every engine passes one contract suite: reads see a snapshot, writes are serializable, a
//! closure that returns an error leaves no trace, what was written durably survives a crash.

pub mod memory;
pub mod redb;

use crate::error::Result;

/// Whether a transaction must survive a crash before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk when `write` returns, and everything committed before with it.
    Immediate,
    /// On the disk with the next [`Durability::Immediate`] transaction; a crash may undo it.
    Eventual,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A consistent view.
pub trait View {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the engine fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// At most `limit` pairs with `from <= key < to`, in the order of keys.
    ///
    /// # Errors
    /// When the engine fails.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>>;
}

/// A view that can be changed; it sees its own changes.
pub trait Transaction: View {
    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// When the engine fails.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Removes `key`, which need not be there.
    ///
    /// # Errors
    /// When the engine fails.
    fn delete(&mut self, key: &[u8]) -> Result<()>;
}

/// An engine.
pub trait Engine: Send + Sync {
    /// Runs `body` on a snapshot.
    ///
    /// # Errors
    /// Those of `body` and of the engine.
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()>;

    /// Runs `body` as one serializable transaction and commits it if it returns `Ok`. An engine
    /// that detects a conflict runs `body` again, so it must start from nothing each time.
    ///
    /// # Errors
    /// Those of `body`, after which nothing was changed, and of the engine.
    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()>;
}

/// [`Engine::read`] with a value.
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

/// [`Engine::write`] with a value.
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
