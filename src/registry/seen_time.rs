//! The highest time that the registry has seen.

use super::counter::{counter_key, read_counter};
use super::engine::{Transaction, View};
use super::record;
use crate::error::{Error, Kind, RepositoryHint, Result};
use crate::model::time::Timestamp;

/// The maximum distance of the clock from the last change for versions to expire by it. It allows a
/// `prune` every week, and a clock that is years ahead deletes nothing.
const TIME_JUMP_MILLISECONDS: u64 = 8 * 24 * 3600 * 1000;
/// The least distance of a time that is recorded from the one before. All commits read the record, so
/// in a shared registry they must not all change it.
const NOTED_EVERY_MILLISECONDS: u64 = 60_000;
/// The counter that holds the highest time seen.
const TIME: &str = "time";

/// Returns the key of the highest time seen.
pub(super) fn key() -> Vec<u8> {
    counter_key(TIME)
}

/// Records `now` if it is well above the highest time seen.
pub(super) fn note_time(transaction: &mut dyn Transaction, now: Timestamp) -> Result<()> {
    let seen = read_counter(&*transaction, TIME)?;
    if seen > 0 && now.0 <= seen.saturating_add(NOTED_EVERY_MILLISECONDS) {
        return Ok(());
    }
    transaction.put(&key(), &record::encode(&now.0))
}

/// Refuses a time that is more than 8 days beyond the highest seen.
pub(super) fn refuse_jump(view: &dyn View, now: Timestamp) -> Result<()> {
    let seen = read_counter(view, TIME)?;
    if seen == 0 || now.0 <= seen.saturating_add(TIME_JUMP_MILLISECONDS) {
        return Ok(());
    }
    let seen = Timestamp(seen);
    let what = format!("the clock says {now}, and the repository was changed last at {seen}");
    Err(Error::new(Kind::Conflict, what).hint(RepositoryHint::TrustClock))
}
