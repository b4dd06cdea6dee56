//! The marks of packs that have dead bytes.

use crate::error::Result;
use crate::model::object::PackId;
use crate::registry::counter::next_counter;
use crate::registry::engine::{Transaction, View};
use crate::registry::keys;

/// The mark of a pack with dead bytes. It has a number that no other mark ever has, and the lease
/// of the process that reclaims the pack (0: none).
///
/// ```text
/// 2:u8  number:u64be  claim:u64be      older releases: empty, or 1:u8 if the pack is deferred
/// ```
pub(in crate::registry) struct Mark {
    pub(in crate::registry) number: u64,
    pub(in crate::registry) claim: u64,
}

const MARK_FORMAT: u8 = 2;
/// The mark that an older release wrote for a pack whose dead bytes may stay for now.
pub(in crate::registry) const OLD_DEFERRED: &[u8] = &[1];

impl Mark {
    pub(in crate::registry) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![MARK_FORMAT];
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.claim.to_be_bytes());
        bytes
    }

    pub(in crate::registry) fn decode(bytes: &[u8]) -> Self {
        let number = |from: usize| -> Option<u64> {
            Some(u64::from_be_bytes(bytes.get(from..from + 8)?.try_into().ok()?))
        };
        Self { number: number(1).unwrap_or_default(), claim: number(9).unwrap_or_default() }
    }
}

pub(in crate::registry) fn mark(view: &dyn View, id: PackId) -> Result<Option<Mark>> {
    Ok(view.get(&keys::reclaimable(id))?.map(|bytes| Mark::decode(&bytes)))
}

/// Marks a pack as having new dead bytes. The mark gets a new number, because a process that
/// reclaims the pack now may not free them.
pub(in crate::registry) fn mark_reclaimable(
    transaction: &mut dyn Transaction,
    id: PackId,
) -> Result<()> {
    let claim = mark(&*transaction, id)?.map_or(0, |mark| mark.claim);
    let number = next_counter(transaction, "purge")?;
    transaction.delete(&keys::deferred(id))?;
    transaction.put(&keys::reclaimable(id), &Mark { number, claim }.encode())
}

pub(in crate::registry) fn forget_marks(
    transaction: &mut dyn Transaction,
    id: PackId,
) -> Result<()> {
    transaction.delete(&keys::reclaimable(id))?;
    transaction.delete(&keys::deferred(id))
}
