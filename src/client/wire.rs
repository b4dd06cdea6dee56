//! The parts that all connections share: bounds, the failures of a call, and the thread that waits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::error::{Error, Result};

/// The longest duration of a call. A commit is one transaction; a release may go through a million
/// objects.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(300);
/// The maximum length of a reply: a page of any listing is far shorter.
pub(super) const ANSWER_MAX_BYTES: usize = 256 << 20;

/// The reason why a call has no result.
#[derive(Debug)]
pub enum Failure {
    /// A missing reply: the call may be repeated, also to another server on the same socket.
    Silence(Error),
    /// A final error: a repeated call would fail in the same way.
    Answer(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Silence(error) | Failure::Answer(error) => error,
        }
    }
}

/// Returns the one runtime for all connections of this process.
pub(super) fn runtime() -> Result<Arc<Runtime>> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(Arc::clone(runtime));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("client")
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start a thread", e))?;
    Ok(Arc::clone(RUNTIME.get_or_init(|| Arc::new(runtime))))
}
