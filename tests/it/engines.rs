//! An engine that does something of the test's own before each of its writes.

use std::sync::Arc;

use artifactfs::error::Result;
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::engine::{Durability, Engine, Transaction, View};

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
