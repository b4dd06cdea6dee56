//! The maintenance mark: one process at a time repairs the object table or moves the store.
//!
//! The mark is durable. While it is set every transaction that touches versions, counts or parts is
//! refused. So records that were read for a repair stay the same until it is applied. A mark
//! outlives a crash of its holder; a process that finds the holder dead takes the mark over by
//! compare-and-set.

use crate::error::{Error, Kind, Result};
use crate::registry::engine::{Durability, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::LEFT_HOLDER;
use crate::registry::paging::each_below;
use crate::registry::record::{self, LeaseRecord, Maintenance, MaintenanceMode};
use crate::registry::upkeep::mark::{held_mark, key, mark, put_mark, under_maintenance};
use crate::registry::{DRAFT_HOLDER, LeaseId};

/// Fails with a conflict if there is a lease other than drafts, left ones and those in `idle`.
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
                // A swap that has begun must be completed, whatever mode was requested.
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
