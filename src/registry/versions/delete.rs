//! The deletion of a version: its names, and one reference to its root, are removed.

use crate::error::Result;
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;
use crate::registry::engine::Transaction;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys;
use crate::registry::names::decide;
use crate::registry::names::naming::{count_one_less, lookup};
use crate::registry::objects::table::{PackCounts, drop_reference};

/// Removes a version with its aliases, and one reference to its root.
pub(in crate::registry) fn remove_version(
    transaction: &mut dyn Transaction,
    info: &VersionInfo,
) -> Result<()> {
    EngineRegistry::drop_aliases(transaction, &info.path, info.number)?;
    transaction.delete(&keys::version(&info.path, info.number))?;
    count_one_less(transaction, &info.path, info.number)?;
    let mut counts = PackCounts::default();
    drop_reference(transaction, &mut counts, &info.root)?;
    counts.store(transaction)
}

impl EngineRegistry {
    pub(in crate::registry) fn delete(
        &self,
        reference: &Reference,
        delete_aliases: bool,
    ) -> Result<VersionInfo> {
        self.write_names(&reference.path, |transaction| {
            let info = lookup(&*transaction, reference)?;
            decide::delete(&info, delete_aliases)?;
            remove_version(transaction, &info)?;
            Ok(info)
        })
    }
}
