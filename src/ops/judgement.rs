//! Judgements on leases: whether the writer of one is gone.

use super::process_id::{Life, life};
use crate::error::Result;
use crate::registry::{Judged, LeaseId, LeaseInfo, Registry};

/// Returns the judgement on a lease whose writer is gone, or `None` while the writer may go on.
pub(super) fn judge(lease: &LeaseInfo) -> Option<Judged> {
    let judged = |dead| Judged { lease: lease.id, holder: lease.holder.clone(), dead };
    if !lease.writes() {
        return None;
    }
    if lease.is_left() || lease.is_ending() {
        return Some(judged(false));
    }
    match life(&lease.holder) {
        Life::Dead => Some(judged(true)),
        // The clock may have jumped, or the process was suspended; it still exists.
        Life::Alive => None,
        Life::Unknown => lease.expired.then(|| judged(false)),
    }
}

/// Returns the leases, besides `own`, that writers that are gone left for the same purpose. What
/// they wrote need not be written again.
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

/// Returns the leases whose writers are gone.
pub(super) fn idle_leases(registry: &dyn Registry) -> Result<Vec<LeaseId>> {
    Ok(registry.leases()?.iter().filter_map(judge).map(|judged| judged.lease).collect())
}
