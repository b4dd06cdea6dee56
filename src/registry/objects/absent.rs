//! The number of absent objects.

use crate::error::Result;
use crate::registry::counter::{counter_key, read_counter};
use crate::registry::engine::{Transaction, View};
use crate::registry::record;

/// The counter of absent objects.
const ABSENT: &str = "absent";

/// Returns the key of the number of absent objects.
pub(in crate::registry) fn absent_key() -> Vec<u8> {
    counter_key(ABSENT)
}

/// Returns the number of absent objects.
pub(in crate::registry) fn absent_objects(view: &dyn View) -> Result<u64> {
    read_counter(view, ABSENT)
}

/// Sets the number of absent objects.
pub(in crate::registry) fn set_absent(
    transaction: &mut dyn Transaction,
    objects: u64,
) -> Result<()> {
    transaction.put(&absent_key(), &record::encode(&objects))
}

/// Adds `change` to the number of absent objects.
pub(in crate::registry) fn count_absent(
    transaction: &mut dyn Transaction,
    change: i64,
) -> Result<()> {
    if change == 0 {
        return Ok(());
    }
    let absent = absent_objects(&*transaction)?;
    set_absent(transaction, absent.saturating_add_signed(change))
}
