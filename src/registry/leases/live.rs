//! Records of living leases, and the answers that they remember.

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

/// The record of a lease that nobody has ended.
///
/// # Errors
/// [`Kind::Unavailable`] for one that was ended.
pub(in crate::registry) fn live_lease(view: &dyn View, id: LeaseId) -> Result<LeaseRecord> {
    lease(view, id)?.filter(|record| !is_over(record)).ok_or_else(|| {
        let what = format!("lease {} was ended by somebody who took its holder for dead", id.0);
        Error::new(Kind::Unavailable, what).hint("nothing was committed: begin again")
    })
}

/// Whether there is such a lease and nobody has ended it.
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

/// What tells a request from others.
pub(in crate::registry) fn fingerprint<T: Serialize>(request: &T) -> [u8; 32] {
    *blake3::hash(&record::encode(request)).as_bytes()
}

/// Whether what a lease has answered was this request, asked again by who heard no answer.
pub(in crate::registry) fn has_answered(
    view: &dyn View,
    id: LeaseId,
    asked: &[u8; 32],
) -> Result<bool> {
    Ok(view.get(&keys::answered(id.0))?.is_some_and(|known| known == asked))
}

/// Remembers in a lease what was answered, and to which request.
pub(in crate::registry) fn answer(
    transaction: &mut dyn Transaction,
    id: LeaseId,
    record: &LeaseRecord,
    asked: &[u8; 32],
) -> Result<()> {
    transaction.put(&keys::answered(id.0), asked)?;
    put_lease(transaction, id, record)
}
