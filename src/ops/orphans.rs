//! Orphans: leases whose writer is gone.

use std::sync::Arc;

use super::garbage::collect_garbage;
use super::judgement::judge;
use super::maintenance::finish_interrupted;
use super::repository::Repository;
use crate::error::Result;

/// Ends leases whose writer is gone, and frees what only they held. Finished packs of such a writer
/// are kept for a day, so that it can resume. Returns the bytes of the freed objects.
pub fn release_orphans(repository: &Repository) -> Result<u64> {
    finish_interrupted(repository)?;
    end_orphans(repository, false)
}

/// Ends leases whose writer is gone, as [`release_orphans`] does, and keeps nothing.
pub(crate) fn release_unfinished(repository: &Repository) -> Result<u64> {
    let freed_bytes = release_orphans(repository)?;
    // The first pass over a lease only leaves it; the second ends what was left.
    Ok(freed_bytes + end_orphans(repository, true)?)
}

fn end_orphans(repository: &Repository, wholly: bool) -> Result<u64> {
    let registry = Arc::clone(&repository.registry);
    for judged in registry.leases()?.iter().filter_map(judge) {
        registry.end_lease(judged, wholly)?;
    }
    collect_garbage(repository)
}
