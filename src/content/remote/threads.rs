//! The threads that move bytes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Result};

/// Threads that move bytes.
const WORKERS: usize = 2;

/// The threads that move bytes; those who share them share a few.
pub struct Threads {
    runtime: Option<Runtime>,
    retries: AtomicU64,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// When the host gives none.
    pub fn start() -> Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the threads that move bytes", e))?;
        Ok(Arc::new(Self { runtime: Some(runtime), retries: AtomicU64::new(0) }))
    }

    /// What tasks run on.
    pub fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is there until the last user is gone").handle()
    }

    /// Waits for `task`; only for threads that are not these.
    pub fn wait<T>(&self, task: impl Future<Output = T>) -> T {
        self.handle().block_on(task)
    }

    /// Counts an attempt that failed and is made again.
    pub fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Attempts that failed and were made again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
