//! The threads that move bytes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Result};

/// The number of threads.
const WORKERS: usize = 2;

/// The threads that move bytes, shared so that a process needs only a few.
pub struct Threads {
    runtime: Option<Runtime>,
    retries: AtomicU64,
}

impl Threads {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system cannot start them.
    pub fn start() -> Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the threads that move bytes", e))?;
        Ok(Arc::new(Self { runtime: Some(runtime), retries: AtomicU64::new(0) }))
    }

    /// Returns the runtime that tasks run on.
    pub fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is there until the last user is gone").handle()
    }

    /// Blocks until `task` ends. The threads themselves must not call it.
    pub fn wait<T>(&self, task: impl Future<Output = T>) -> T {
        self.handle().block_on(task)
    }

    /// Counts an attempt that failed and is made again.
    pub fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of attempts that failed and were made again.
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
