//! The records of live leases, and the fingerprints of their completed requests.

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::registry::LeaseId;
use crate::registry::engine::{Transaction, View};
use crate::registry::keys;
use crate::registry::leases::{ENDING_HOLDER, LEFT_HOLDER};
use crate::registry::record::{self, LeaseRecord};

pub(in crate::registry) fn lease(view: &dyn View, id: LeaseId) -> Result<Option<LeaseRecord>> {
    view.get(&keys::lease(id.0))?.map(|bytes| record::decode(&bytes)).transpose()
}

fn is_over(record: &LeaseRecord) -> bool {
    matches!(record.holder.as_str(), LEFT_HOLDER | ENDING_HOLDER)
}

/// Returns the record of a live lease.
///
/// # Errors
/// [`Kind::Unavailable`] if the lease was left or ended, or does not exist.
pub(in crate::registry) fn live_lease(view: &dyn View, id: LeaseId) -> Result<LeaseRecord> {
    lease(view, id)?.filter(|record| !is_over(record)).ok_or_else(|| {
        let what = format!("another process took this writer for dead and ended lease {}", id.0);
        Error::new(Kind::Unavailable, what).hint("nothing was committed: begin again")
    })
}

/// Returns whether a lease exists and was neither left nor ended.
pub(in crate::registry) fn is_live(view: &dyn View, id: u64) -> Result<bool> {
    Ok(lease(view, LeaseId(id))?.is_some_and(|record| !is_over(&record)))
}

pub(in crate::registry) fn put_lease(
    transaction: &mut dyn Transaction,
    id: LeaseId,
    record: &LeaseRecord,
) -> Result<()> {
    transaction.put(&keys::lease(id.0), &record::encode(record))
}

/// Returns a hash that distinguishes a request from others.
pub(in crate::registry) fn fingerprint<T: Serialize>(request: &T) -> [u8; 32] {
    *blake3::hash(&record::encode(request)).as_bytes()
}

/// Returns whether a lease has completed this very request, so that the caller repeats it because
/// the reply was lost.
pub(in crate::registry) fn has_answered(
    view: &dyn View,
    id: LeaseId,
    asked: &[u8; 32],
) -> Result<bool> {
    Ok(view.get(&keys::answered(id.0))?.is_some_and(|known| known == asked))
}

/// Records the result in a lease, with the fingerprint of its request.
pub(in crate::registry) fn answer(
    transaction: &mut dyn Transaction,
    id: LeaseId,
    record: &LeaseRecord,
    asked: &[u8; 32],
) -> Result<()> {
    transaction.put(&keys::answered(id.0), asked)?;
    put_lease(transaction, id, record)
}
