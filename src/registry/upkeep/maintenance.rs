//! The maintenance mark: one process at a time puts the object table right, or moves the store.
//!
//! The mark is durable. While it stands every transaction that touches versions, counts or parts is refused, so what
//! was read for a repair stays true until it is applied. A mark outlives a crash of its holder; whoever sees that the
//! holder is gone takes the mark over by compare-and-set.

use crate::error::{Error, Kind, Result};
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::{EngineRegistry, each_below};
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::LEFT_HOLDER;
use crate::registry::record::{self, LeaseRecord, Maintenance, MaintenanceMode};
use crate::registry::{DRAFT_HOLDER, LeaseId};

fn key() -> Vec<u8> {
    Key::of(Space::Counter).name("maintenance").done()
}

pub(in crate::registry) fn mark(view: &dyn View) -> Result<Option<Maintenance>> {
    view.get(&key())?.map(|bytes| record::decode(&bytes)).transpose()
}

/// Refuses what maintenance excludes.
pub(in crate::registry) fn refuse_under_maintenance(view: &dyn View) -> Result<()> {
    mark(view)?.map_or(Ok(()), |mark| Err(under_maintenance(&mark)))
}

fn under_maintenance(mark: &Maintenance) -> Error {
    let (doing, go_on) = match mark.mode {
        MaintenanceMode::Repair => ("repaired", "`artifactfs fsck --repair`"),
        MaintenanceMode::Rebuild | MaintenanceMode::Swap => {
            ("rebuilt", "`artifactfs fsck --rebuild`")
        }
        MaintenanceMode::Copy => ("moved to another store", "`artifactfs copy-store`"),
    };
    let what = format!("the repository is being {doing}; nothing was changed");
    Error::new(Kind::Conflict, what)
        .hint(format!("try again when that has ended; if it was interrupted, run {go_on} again"))
}

/// The mark of `holder`, or a conflict.
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

/// Refuses while a lease other than those in `idle` writes.
fn refuse_writers(view: &dyn View, idle: &[LeaseId]) -> Result<()> {
    let mut writers = Vec::new();
    each_below(view, Key::of(Space::Lease), &mut |key, value| {
        let lease: LeaseRecord = record::decode(value)?;
        let known_idle = keys::number_of(key).is_some_and(|id| idle.contains(&LeaseId(id)));
        let idle = [DRAFT_HOLDER, LEFT_HOLDER].contains(&lease.holder.as_str());
        if !idle && !known_idle {
            writers.push(lease.purpose);
        }
        Ok(())
    })?;
    if writers.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, format!("somebody is writing: {}", writers.join(", ")))
        .hint("try again when they have finished"))
}

impl EngineRegistry {
    pub(in crate::registry) fn maintenance(&self) -> Result<Option<Maintenance>> {
        self.read(|view| mark(view))
    }

    pub(in crate::registry) fn begin_maintenance(
        &self,
        mode: MaintenanceMode,
        holder: &str,
        seen: Option<&Maintenance>,
        idle: &[LeaseId],
    ) -> Result<()> {
        let now = (self.clock)();
        self.write_aside(Durability::Immediate, |transaction| {
            let found = mark(&*transaction)?;
            let mine = |mark: &Maintenance| mark.holder == holder && mark.mode == mode;
            if found.as_ref().is_some_and(mine) {
                return Ok(());
            }
            let mut wanted = mode;
            match &found {
                Some(mark) if Some(mark) != seen => return Err(under_maintenance(mark)),
                // A swap that has begun is brought to its end, whatever else was wanted.
                Some(mark) if mark.mode == MaintenanceMode::Swap => wanted = mark.mode,
                _ => {}
            }
            refuse_writers(&*transaction, idle)?;
            let holder = holder.to_owned();
            put_mark(transaction, &Maintenance { mode: wanted, holder, begun: now, renewed: now })
        })
    }

    pub(in crate::registry) fn renew_maintenance(&self, holder: &str) -> Result<()> {
        let now = (self.clock)();
        self.write_aside(Durability::Eventual, |transaction| {
            let mark = held_mark(&*transaction, holder)?;
            put_mark(transaction, &Maintenance { renewed: now, ..mark })
        })
    }

    pub(in crate::registry) fn end_maintenance(&self, holder: &str) -> Result<()> {
        self.write_aside(Durability::Immediate, |transaction| match mark(&*transaction)? {
            Some(mark) if mark.holder == holder => {
                if mark.mode == MaintenanceMode::Swap {
                    return Err(under_maintenance(&mark));
                }
                transaction.delete(&key())
            }
            _ => Ok(()),
        })
    }
}
