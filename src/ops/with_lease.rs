//! Work under a lease that ends with it.

use super::garbage::collect_garbage;
use super::lease::Lease;
use super::repository::Repository;
use crate::error::{Error, Kind, PutHint, Result};

/// Does `work` under a lease of its own, and ends that with it. What writers that are gone had stored for the same
/// purpose is gone on with.
///
/// # Errors
/// Those of `work`, and when the registry fails.
pub(super) fn with_lease<T>(
    repository: &Repository,
    purpose: String,
    work: impl FnOnce(&Lease) -> Result<T>,
) -> Result<T> {
    let lease = Lease::begin(repository, purpose)?;
    let done = work(&lease);
    end(lease, repository, done)
}

/// Ends a lease with what it was for. If that ended for want of a store, of its room or of time, what is stored is
/// kept for the next try.
///
/// # Errors
/// That of `done`.
fn end<T>(lease: Lease, repository: &Repository, done: Result<T>) -> Result<T> {
    let kept = done.as_ref().is_err_and(|e| goes_on_later(e, repository.store.is_remote()));
    let ended = match kept {
        true => lease.leave(),
        false => lease.release().map(|()| 0),
    };
    // A store that did not answer would only be waited for again: whoever comes next frees what died.
    let answers = !done.as_ref().is_err_and(|e| is_silence(e.kind()));
    let ended = ended.and_then(|kept_bytes| match answers {
        true => collect_garbage(repository).map(|_| kept_bytes),
        false => Ok(kept_bytes),
    });
    match (done, ended) {
        (Err(error), Ok(kept_bytes)) if kept_bytes > 0 => Err(error.and_hint(PutHint::GoOn)),
        (Ok(value), Err(e)) => {
            // What it was for is done and durable; whoever comes next frees what could not be.
            tracing::warn!("a lease whose work is done could not be ended: {e}");
            Ok(value)
        }
        (done, _) => done,
    }
}

/// Whether the same put may well succeed later. On a disk that is full it takes nothing meanwhile: others need the room.
fn goes_on_later(error: &Error, remote: bool) -> bool {
    match error.kind() {
        Kind::Stale => true,
        Kind::Full => remote,
        kind => is_silence(kind),
    }
}

/// Returns whether an error means that the store did not respond.
fn is_silence(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable | Kind::TimedOut)
}
