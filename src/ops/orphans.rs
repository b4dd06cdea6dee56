//! Orphans: leases whose writer is gone.

use std::sync::Arc;

use super::delete::collect_garbage;
use super::maintenance::finish_interrupted;
use super::process_id::{Life, life};
use super::repository::Repository;
use crate::error::Result;
use crate::registry::{Judged, LeaseId, LeaseInfo, Registry};

/// Returns the judgement on a lease whose writer is gone, or `None` while the writer may go on.
fn judge(lease: &LeaseInfo) -> Option<Judged> {
    let judged = |dead| Judged { lease: lease.id, holder: lease.holder.clone(), dead };
    if !lease.writes() {
        return None;
    }
    if lease.is_left() || lease.is_ending() {
        return Some(judged(false));
    }
    match life(&lease.holder) {
        Life::Dead => Some(judged(true)),
        // Its clock may have jumped, or it was suspended; it is there.
        Life::Alive => None,
        Life::Unknown => lease.expired.then(|| judged(false)),
    }
}

/// Returns the leases besides `own` that writers which are gone left for the same purpose: what they wrote need not
/// be written again.
///
/// # Errors
/// When the registry fails.
pub(super) fn orphans_for(
    registry: &dyn Registry,
    purpose: &str,
    own: LeaseId,
) -> Result<Vec<Judged>> {
    let leases = registry.leases()?;
    let same = leases.iter().filter(|lease| lease.purpose == purpose && lease.id != own);
    let unfinished = same.filter(|lease| !lease.committed && !lease.is_ending());
    Ok(unfinished.filter_map(judge).collect())
}

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

/// Returns the leases under which nobody writes any more.
///
/// # Errors
/// When the registry fails.
pub(super) fn idle_leases(registry: &dyn Registry) -> Result<Vec<LeaseId>> {
    Ok(registry.leases()?.iter().filter_map(judge).map(|judged| judged.lease).collect())
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
