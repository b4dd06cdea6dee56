//! Orphans: leases whose writer is gone.

use std::sync::Arc;

use super::garbage::collect_garbage;
use super::judgement::judge;
use super::maintenance::finish_interrupted;
use super::repository::Repository;
use crate::error::Result;

/// Ends leases whose writer is gone, and frees what only they held; packs that such a writer had finished
/// are kept for a day, so that it can be run again and goes on. Returns how many there were.
///
/// # Errors
/// When the registry or the store fails; the next call goes on.
pub fn release_orphans(repository: &Repository) -> Result<usize> {
    finish_interrupted(repository)?;
    end_orphans(repository, false)
}

/// The same, and keeps nothing.
///
/// # Errors
/// As [`release_orphans`].
pub fn release_unfinished(repository: &Repository) -> Result<usize> {
    release_orphans(repository)?;
    // Those whose writer was only now found to be gone are left first.
    end_orphans(repository, true)
}

fn end_orphans(repository: &Repository, wholly: bool) -> Result<usize> {
    let registry = Arc::clone(&repository.registry);
    let mut released = 0;
    for judged in registry.leases()?.iter().filter_map(judge) {
        registry.end_lease(judged, wholly)?;
        released += 1;
    }
    collect_garbage(repository)?;
    Ok(released)
}
