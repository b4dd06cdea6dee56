//! Work under a lease that ends with it.

use super::garbage::collect_garbage;
use super::lease::Lease;
use super::repository::Repository;
use crate::error::{Error, Kind, PutHint, Result};
use crate::model::name::ProjectName;

/// Does `work` under a lease of its own in `project`, and ends the lease with it. The lease takes over what
/// writers that are gone stored for the same purpose.
///
/// # Errors
/// The errors of `work`.
pub(super) fn with_lease<T>(
    repository: &Repository,
    project: &ProjectName,
    purpose: String,
    work: impl FnOnce(&Lease) -> Result<T>,
) -> Result<T> {
    let lease = Lease::begin(repository, Some(project), purpose)?;
    let done = work(&lease);
    end(lease, repository, done)
}

/// Ends a lease after its work. If a retry of the work may succeed, what is stored is kept for it.
///
/// # Errors
/// The error of `done`.
fn end<T>(lease: Lease, repository: &Repository, done: Result<T>) -> Result<T> {
    let kept = done.as_ref().is_err_and(|e| goes_on_later(e, repository.store.is_remote()));
    let ended = match kept {
        true => lease.leave(),
        false => lease.release().map(|()| 0),
    };
    // A store that did not respond would only be waited for again. The next process frees what
    // died.
    let answers = !done.as_ref().is_err_and(|e| e.kind().is_silence());
    let ended = ended.and_then(|kept_bytes| match answers {
        true => collect_garbage(repository).map(|_| kept_bytes),
        false => Ok(kept_bytes),
    });
    match (done, ended) {
        (Err(error), Ok(kept_bytes)) if kept_bytes > 0 => Err(error.and_hint(PutHint::GoOn)),
        (Ok(value), Err(e)) => {
            // The work is done and durable. The next process frees what could not be freed.
            tracing::warn!("a lease whose work is done could not be ended: {e}");
            Ok(value)
        }
        (done, _) => done,
    }
}

/// Reports whether the same work may succeed later. On a full local disk it keeps nothing: others
/// need the room.
fn goes_on_later(error: &Error, remote: bool) -> bool {
    match error.kind() {
        Kind::Stale => true,
        Kind::Full => remote,
        kind => kind.is_silence(),
    }
}
