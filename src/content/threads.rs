//! The threads that move bytes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Result};

/// The number of threads.
const WORKERS: usize = 2;

/// The threads that move bytes, shared so that a process needs only a few.
pub(crate) struct Threads {
    runtime: Option<Runtime>,
    /// The number of attempts that failed and were made again.
    pub(crate) retries: AtomicU64,
}

impl Threads {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system cannot start them.
    pub(crate) fn start() -> Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the threads that move bytes", e))?;
        Ok(Arc::new(Self { runtime: Some(runtime), retries: AtomicU64::new(0) }))
    }

    /// Returns the runtime that tasks run on.
    pub(crate) fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is there until the last user is gone").handle()
    }

    /// Blocks until `task` ends. The threads themselves must not call it.
    pub(crate) fn wait<T>(&self, task: impl Future<Output = T>) -> T {
        self.handle().block_on(task)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
