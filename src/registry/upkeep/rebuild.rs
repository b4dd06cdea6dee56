//! The rebuild of the object table beside the old one, and the swap of the two.
//!
//! Until the swap begins the old table is untouched, and a rebuild that ends early leaves only
//! records that are never read. The swap is made in bounded transactions, each of which records
//! where the next continues. Readers find every object that they need in each state between.
//!
//! Every step is durable. The process that rebuilds may not be the one that has the registry open,
//! and continues when that one crashes. If the crash undid the last steps, the swap would lose
//! objects.

use serde::{Deserialize, Serialize};

use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::Located;
use crate::registry::engine::{Durability, Transaction};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::pins::Pins;
use crate::registry::objects::absent::set_absent;
use crate::registry::objects::table::object;
use crate::registry::record::{
    self, Maintenance, MaintenanceMode, PackRecord, decode_object, encode_object,
};
use crate::registry::upkeep::check::{is_held, mark_if_reclaimable};
use crate::registry::upkeep::mark::{held_mark, put_mark};
use crate::registry::{PackInfo, Rebuilt};

/// The number of records that one transaction moves or reads.
const STEP: usize = 10_000;

/// The phase of a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// The removal of objects that the new table does not have.
    DropObjects,
    /// The move of objects from the new table into the old.
    MoveObjects,
    /// The removal of packs that the new table does not have.
    DropPacks,
    /// The move of packs from the new table into the old.
    MovePacks,
    /// The removal of the marks of unreachable objects, which followed from the old counts.
    DropDead,
    /// The marking of objects that nothing refers to and no lease holds.
    MarkDead,
    Done,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Swap {
    phase: Phase,
    /// The key where the phase continues; empty at its beginning.
    from: Vec<u8>,
    /// The number of absent objects found so far.
    absent: u64,
}

fn swap_key() -> Vec<u8> {
    Key::of(Space::Counter).name("swap").done()
}

/// Returns the key with its first byte replaced by another space.
fn in_space(key: &[u8], space: Space) -> Vec<u8> {
    let mut key = key.to_vec();
    key[0] = space as u8;
    key
}

impl EngineRegistry {
    /// Removes the records of an earlier rebuild.
    pub(in crate::registry) fn begin_rebuild(&self, holder: &str) -> Result<()> {
        for space in [Space::RebuiltObject, Space::RebuiltPack] {
            let (from, to) = Key::of(space).range();
            loop {
                let gone = self.write_aside(Durability::Immediate, |transaction| {
                    refuse_swap(&held_mark(&*transaction, holder)?)?;
                    let page = transaction.scan(&from, &to, STEP)?;
                    page.iter().try_for_each(|(key, _)| transaction.delete(key))?;
                    Ok(page.len())
                })?;
                if gone < STEP {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(in crate::registry) fn put_rebuilt(
        &self,
        holder: &str,
        objects: &[Rebuilt],
        packs: &[PackInfo],
    ) -> Result<()> {
        self.write_aside(Durability::Immediate, |transaction| {
            refuse_swap(&held_mark(&*transaction, holder)?)?;
            for (digest, located) in objects {
                let key = in_space(&keys::object(digest), Space::RebuiltObject);
                match located {
                    Some(located) => transaction.put(&key, &encode_object(located))?,
                    None => transaction.delete(&key)?,
                }
            }
            for info in packs {
                let key = keys::pack(info.id);
                let old = transaction.get(&key)?;
                let old: PackRecord =
                    old.map_or(Ok(PackRecord::default()), |b| record::decode(&b))?;
                let pack = PackRecord {
                    live_objects: info.live_objects,
                    live_bytes: info.live_bytes,
                    length_bytes: info.length_bytes,
                    ..old
                };
                transaction.put(&in_space(&key, Space::RebuiltPack), &record::encode(&pack))?;
            }
            Ok(())
        })
    }

    pub(in crate::registry) fn locate_rebuilt(
        &self,
        digests: &[Digest],
    ) -> Result<Vec<Option<Located>>> {
        self.read(|view| {
            let find = |digest| {
                let key = in_space(&keys::object(digest), Space::RebuiltObject);
                view.get(&key)?.map(|bytes| decode_object(&bytes)).transpose()
            };
            digests.iter().map(find).collect()
        })
    }

    /// Makes one step of the swap. Returns whether it was the last.
    pub(in crate::registry) fn swap_rebuilt(&self, holder: &str) -> Result<bool> {
        let now = (self.clock)();
        self.write_aside(Durability::Immediate, |transaction| {
            let mark = held_mark(&*transaction, holder)?;
            let mut swap = match (mark.mode, transaction.get(&swap_key())?) {
                (MaintenanceMode::Swap, Some(bytes)) => record::decode(&bytes)?,
                (MaintenanceMode::Rebuild, _) => {
                    Swap { phase: Phase::DropObjects, from: Vec::new(), absent: 0 }
                }
                _ => return Err(Error::new(Kind::Conflict, "there is no new table to swap in")),
            };
            step(transaction, &mut swap)?;
            let done = swap.phase == Phase::Done;
            let mode = if done { MaintenanceMode::Rebuild } else { MaintenanceMode::Swap };
            put_mark(transaction, &Maintenance { mode, renewed: now, ..mark })?;
            match done {
                true => {
                    set_absent(transaction, swap.absent)?;
                    transaction.delete(&swap_key())?;
                }
                false => transaction.put(&swap_key(), &record::encode(&swap))?,
            }
            Ok(done)
        })
    }
}

fn refuse_swap(mark: &Maintenance) -> Result<()> {
    match mark.mode {
        MaintenanceMode::Swap => Err(Error::new(Kind::Conflict, "the new table is already in use")
            .hint(DamageHint::FinishRebuild)),
        _ => Ok(()),
    }
}

fn step(transaction: &mut dyn Transaction, swap: &mut Swap) -> Result<()> {
    let next = match swap.phase {
        Phase::DropObjects => {
            drop_old(transaction, swap, (Space::Object, Space::RebuiltObject))?;
            Phase::MoveObjects
        }
        Phase::MoveObjects => {
            move_new(transaction, swap, (Space::RebuiltObject, Space::Object))?;
            Phase::DropPacks
        }
        Phase::DropPacks => {
            drop_old(transaction, swap, (Space::Pack, Space::RebuiltPack))?;
            Phase::MovePacks
        }
        Phase::MovePacks => {
            let moved = move_new(transaction, swap, (Space::RebuiltPack, Space::Pack))?;
            // The new table leaves out dead objects, whose bytes nothing else would free.
            for id in moved.iter().filter_map(|key| keys::pack_of(key)) {
                mark_if_reclaimable(transaction, id)?;
            }
            Phase::DropDead
        }
        Phase::DropDead => {
            drop_dead(transaction, swap)?;
            Phase::MarkDead
        }
        Phase::MarkDead => {
            mark_dead(transaction, swap)?;
            Phase::Done
        }
        Phase::Done => Phase::Done,
    };
    if swap.from.is_empty() {
        swap.phase = next;
    }
    Ok(())
}

/// Reads a page of `space` and advances `swap.from`, which is empty after the last page.
fn page(
    transaction: &dyn Transaction,
    swap: &mut Swap,
    space: Space,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (start, to) = Key::of(space).range();
    let from = if swap.from.is_empty() { start } else { swap.from.clone() };
    let page = transaction.scan(&from, &to, STEP)?;
    swap.from = match page.last() {
        Some((key, _)) if page.len() == STEP => keys::next(key),
        _ => Vec::new(),
    };
    Ok(page)
}

fn drop_old(
    transaction: &mut dyn Transaction,
    swap: &mut Swap,
    (old, new): (Space, Space),
) -> Result<()> {
    for (key, _) in page(&*transaction, swap, old)? {
        if transaction.get(&in_space(&key, new))?.is_none() {
            transaction.delete(&key)?;
        }
    }
    Ok(())
}

/// Moves records of the new table into the old. Returns their keys there.
fn move_new(
    transaction: &mut dyn Transaction,
    swap: &mut Swap,
    (new, old): (Space, Space),
) -> Result<Vec<Vec<u8>>> {
    let mut moved = Vec::new();
    for (key, value) in page(&*transaction, swap, new)? {
        transaction.delete(&key)?;
        let key = in_space(&key, old);
        transaction.put(&key, &value)?;
        moved.push(key);
    }
    Ok(moved)
}

fn drop_dead(transaction: &mut dyn Transaction, swap: &mut Swap) -> Result<()> {
    let page = page(&*transaction, swap, Space::Unreachable)?;
    page.iter().try_for_each(|(key, _)| transaction.delete(key))
}

fn mark_dead(transaction: &mut dyn Transaction, swap: &mut Swap) -> Result<()> {
    let mut pins = Pins::default();
    for (key, _) in page(&*transaction, swap, Space::Object)? {
        let Some(digest) = keys::digest_of(&key) else { continue };
        let Some(located) = object(&*transaction, &digest)? else { continue };
        swap.absent += u64::from(located.is_absent());
        if located.refs == 0 && !is_held(&*transaction, &mut pins, &digest, &located)? {
            transaction.put(&keys::unreachable(&digest), &[])?;
        }
    }
    Ok(())
}
