//! Threads for what would keep the mount's own threads waiting: no request that needs the network is
//! answered by a thread that the kernel's next request needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};

use super::lately::Lately;
use crate::error::{Error, Result};

/// Threads that may wait for listings and look-ups.
const METADATA_THREADS: usize = 32;
/// Threads that may wait for what is in files.
const DATA_THREADS: usize = 128;
/// Errands that wait for a thread; beyond that, who asks waits himself.
const QUEUE: usize = 4_096;

/// What an errand waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Names and attributes.
    Metadata,
    /// What is in files.
    Data,
}

/// Threads that wait for others. Metadata never waits for data: each has its own.
#[derive(Clone)]
pub struct Errands {
    pools: Arc<[Pool; 2]>,
    needed: bool,
    lately: Arc<Lately>,
}

struct Pool {
    runtime: Option<Runtime>,
    waiting: AtomicUsize,
}

impl Pool {
    fn new(threads: usize, name: &str) -> Result<Self> {
        // Only its threads that may block are used: made when needed, gone when idle.
        let runtime =
            Builder::new_current_thread().max_blocking_threads(threads).thread_name(name).build();
        let runtime = runtime.map_err(|e| Error::io("cannot make threads", e))?;
        Ok(Self { runtime: Some(runtime), waiting: AtomicUsize::new(0) })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Errands {
    /// Threads, made when something has to be waited for: always in a remote store, and for
    /// external files in any.
    ///
    /// # Errors
    /// When the host gives none.
    pub fn new(needed: bool) -> Result<Self> {
        let metadata = Pool::new(METADATA_THREADS, "metadata")?;
        let pools = Arc::new([metadata, Pool::new(DATA_THREADS, "data")?]);
        Ok(Self { pools, needed, lately: Arc::default() })
    }

    /// Whether whatever touches a version has to be waited for.
    pub fn are_needed(&self) -> bool {
        self.needed
    }

    /// What was waited for in vain just now.
    pub fn lately(&self) -> &Lately {
        &self.lately
    }

    /// Does `errand` in a thread that may wait.
    pub fn run(&self, waits: Waits, errand: impl FnOnce() + Send + 'static) {
        let pools = &self.pools;
        let index = usize::from(waits == Waits::Data);
        let pool = &pools[index];
        let Some(runtime) = &pool.runtime else {
            return errand();
        };
        if pool.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            pool.waiting.fetch_sub(1, Ordering::Relaxed);
            return errand();
        }
        let pools = Arc::downgrade(pools);
        runtime.spawn_blocking(move || {
            errand();
            if let Some(pools) = pools.upgrade() {
                pools[index].waiting.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
}
