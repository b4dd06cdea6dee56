//! The correction of the object table, for `fsck`. Every correction holds the record from which it
//! was computed, and is made only if that record is unchanged. It never removes objects from the
//! table.

use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, PackId, Presence};
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys;
use crate::registry::leases::pins::Pins;
use crate::registry::objects::absent::count_absent;
use crate::registry::objects::table::{PackCounts, add_reference, object, pack_info};
use crate::registry::record::{self, PackRecord, encode_object};
use crate::registry::upkeep::mark::held_mark;
use crate::registry::upkeep::reclaim_mark::mark_reclaimable;
use crate::registry::{Fix, PackInfo};

impl EngineRegistry {
    pub(in crate::registry) fn repair(&self, holder: &str, fixes: &[Fix]) -> Result<u64> {
        self.write_aside(Durability::Immediate, |transaction| {
            held_mark(&*transaction, holder)?;
            let (mut applied, mut pins) = (0, Pins::default());
            for fix in fixes {
                applied += u64::from(apply(transaction, &mut pins, fix)?);
            }
            Ok(applied)
        })
    }

    /// Marks objects absent that are still at the places where their bytes were found wrong.
    /// Returns how many. It is allowed under maintenance, because it removes nothing.
    pub(in crate::registry) fn doubt(&self, found: &[(Digest, Extent)]) -> Result<u64> {
        self.write_aside(Durability::Immediate, |transaction| {
            let mut marked = 0;
            for (digest, extent) in found {
                let Some(old) = object(&*transaction, digest)? else { continue };
                if old.is_absent() || old.extent != *extent {
                    continue;
                }
                let absent = Located { presence: Presence::Absent, ..old };
                transaction.put(&keys::object(digest), &encode_object(&absent))?;
                marked += 1;
            }
            count_absent(transaction, marked)?;
            Ok(marked as u64)
        })
    }
}

/// Applies a correction. Returns whether it changed anything.
fn apply(transaction: &mut dyn Transaction, pins: &mut Pins, fix: &Fix) -> Result<bool> {
    match fix {
        Fix::Object { digest, seen, now } => {
            fix_object(transaction, pins, digest, (seen.as_ref(), now))
        }
        Fix::Pack { seen, now } => fix_pack(transaction, seen.as_ref(), now),
        Fix::Free(id) => mark_if_reclaimable(transaction, *id),
        Fix::Revival { digest, seen, children } => revive(transaction, digest, seen, children),
    }
}

fn fix_object(
    transaction: &mut dyn Transaction,
    pins: &mut Pins,
    digest: &Digest,
    (seen, now): (Option<&Located>, &Located),
) -> Result<bool> {
    let old = object(&*transaction, digest)?;
    if old.as_ref() != seen {
        return Ok(false);
    }
    let changed = old.as_ref() != Some(now);
    if changed {
        let mut counts = PackCounts::default();
        if let Some(old) = &old {
            counts.count(&*transaction, old, -1)?;
            count_absent(transaction, -i64::from(old.is_absent()))?;
        }
        counts.count(&*transaction, now, 1)?;
        counts.store(transaction)?;
        count_absent(transaction, i64::from(now.is_absent()))?;
        transaction.put(&keys::object(digest), &encode_object(now))?;
    }
    let dead = keys::unreachable(digest);
    let marked = transaction.get(&dead)?.is_some();
    let is_dead = now.refs == 0 && !is_held(&*transaction, pins, digest, now)?;
    match is_dead {
        true if !marked => transaction.put(&dead, &[])?,
        false if marked => transaction.delete(&dead)?,
        _ => {}
    }
    Ok(changed || is_dead != marked)
}

/// Marks an object present and counts its children. One that is not in the table is recorded as lost.
fn revive(
    transaction: &mut dyn Transaction,
    digest: &Digest,
    seen: &Located,
    children: &[Digest],
) -> Result<bool> {
    if object(&*transaction, digest)?.as_ref() != Some(seen) || !seen.is_absent() {
        return Ok(false);
    }
    let mut counts = PackCounts::default();
    let mut absent = -1;
    for child in children {
        if !add_reference(transaction, &mut counts, child)? {
            transaction.put(&keys::object(child), &encode_object(&Located::lost(1)))?;
            absent += 1;
        }
    }
    let now = Located { presence: Presence::Present, ..*seen };
    transaction.put(&keys::object(digest), &encode_object(&now))?;
    count_absent(transaction, absent)?;
    counts.store(transaction)?;
    Ok(true)
}

/// Returns whether a lease holds an object: by a pin, or because its pack is under the lease.
pub(in crate::registry) fn is_held(
    view: &dyn View,
    pins: &mut Pins,
    digest: &Digest,
    located: &Located,
) -> Result<bool> {
    let bytes = view.get(&keys::pack(located.extent.pack))?;
    let pack: Option<PackRecord> = bytes.map(|bytes| record::decode(&bytes)).transpose()?;
    let leased = pack.is_some_and(|pack| pack.lease.is_some());
    Ok(leased || pins.hold(view, digest)?)
}

fn fix_pack(
    transaction: &mut dyn Transaction,
    seen: Option<&PackInfo>,
    now: &PackInfo,
) -> Result<bool> {
    let key = keys::pack(now.id);
    let bytes = transaction.get(&key)?;
    let found = bytes.as_ref().map(|bytes| pack_info(&key, bytes)).transpose()?;
    if found.as_ref() != seen || seen == Some(now) {
        return Ok(false);
    }
    let old: PackRecord = bytes.map_or(Ok(PackRecord::default()), |b| record::decode(&b))?;
    let pack = PackRecord {
        live_objects: now.live_objects,
        live_bytes: now.live_bytes,
        length_bytes: now.length_bytes,
        ..old
    };
    transaction.put(&key, &record::encode(&pack))?;
    Ok(true)
}

/// Marks a pack as reclaimable if it has dead bytes and no mark. Returns whether it did.
pub(in crate::registry) fn mark_if_reclaimable(
    transaction: &mut dyn Transaction,
    id: PackId,
) -> Result<bool> {
    let Some(bytes) = transaction.get(&keys::pack(id))? else { return Ok(false) };
    let pack: PackRecord = record::decode(&bytes)?;
    let dead = pack.lease.is_none()
        && (pack.live_objects == 0 || pack.live_bytes < pack.length_bytes)
        && transaction.get(&keys::reclaimable(id))?.is_none()
        && transaction.get(&keys::deferred(id))?.is_none();
    if dead {
        mark_reclaimable(transaction, id)?;
    }
    Ok(dead)
}
