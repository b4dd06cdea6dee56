//! Named counters.

use super::engine::{Transaction, View};
use super::keys::{Key, Space};
use super::record;
use crate::error::Result;

/// Returns the key of a counter.
pub(super) fn counter_key(name: &str) -> Vec<u8> {
    Key::of(Space::Counter).name(name).done()
}

/// Returns the value of a counter; 0 before its first use.
pub(super) fn read_counter(view: &dyn View, name: &str) -> Result<u64> {
    let value = view.get(&counter_key(name))?;
    value.map_or(Ok(0), |bytes| record::decode(&bytes))
}

/// Increments a counter and returns its new value; the first is 1.
pub(super) fn next_counter(transaction: &mut dyn Transaction, name: &str) -> Result<u64> {
    let value = read_counter(&*transaction, name)? + 1;
    transaction.put(&counter_key(name), &record::encode(&value))?;
    Ok(value)
}
