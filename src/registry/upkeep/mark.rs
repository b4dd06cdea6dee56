//! The record of the maintenance mark.

use crate::error::{Error, Kind, Maintenance as Work, RepositoryHint, Result};
use crate::registry::engine::{Transaction, View};
use crate::registry::keys::{Key, Space};
use crate::registry::record::{self, Maintenance, MaintenanceMode};

pub(in crate::registry) fn key() -> Vec<u8> {
    Key::of(Space::Counter).name("maintenance").done()
}

pub(in crate::registry) fn mark(view: &dyn View) -> Result<Option<Maintenance>> {
    view.get(&key())?.map(|bytes| record::decode(&bytes)).transpose()
}

/// Fails with a conflict if the maintenance mark is set.
pub(in crate::registry) fn refuse_under_maintenance(view: &dyn View) -> Result<()> {
    mark(view)?.map_or(Ok(()), |mark| Err(under_maintenance(&mark)))
}

pub(in crate::registry) fn under_maintenance(mark: &Maintenance) -> Error {
    let (doing, work) = match mark.mode {
        MaintenanceMode::Repair => ("repaired", Work::Repair),
        MaintenanceMode::Rebuild | MaintenanceMode::Swap => ("rebuilt", Work::Rebuild),
        MaintenanceMode::Copy => ("moved to another store", Work::CopyStore),
    };
    let what = format!("the repository is being {doing}; nothing was changed");
    Error::new(Kind::Conflict, what).hint(RepositoryHint::AwaitMaintenance(work))
}

/// Returns the mark if `holder` has it, otherwise a conflict.
pub(in crate::registry) fn held_mark(view: &dyn View, holder: &str) -> Result<Maintenance> {
    match mark(view)? {
        Some(mark) if mark.holder == holder => Ok(mark),
        _ => Err(Error::new(Kind::Conflict, "another process took the maintenance over")
            .hint("nothing is lost; run it again")),
    }
}

pub(in crate::registry) fn put_mark(
    transaction: &mut dyn Transaction,
    mark: &Maintenance,
) -> Result<()> {
    transaction.put(&key(), &record::encode(mark))
}
