//! Correcting the object table, for `fsck`.

use super::api::{DRAFT_HOLDER, Fix, PackInfo};
use super::embedded::{Embedded, each_below};
use super::engine::{Durability, Transaction};
use super::keys::{self, Key, Space};
use super::objects::object;
use super::record::{self, PackRecord, encode_object};
use crate::error::{Error, Kind, Result};
use crate::model::object::Located;

/// Keys forgotten in one transaction.
const FORGET_BATCH: usize = 10_000;

fn refuse_writers(transaction: &dyn Transaction) -> Result<()> {
    let mut writers = Vec::new();
    each_below(transaction, Key::of(Space::Lease), &mut |_, value| {
        let lease: record::LeaseRecord = record::decode(value)?;
        if lease.holder != DRAFT_HOLDER {
            writers.push(lease.purpose);
        }
        Ok(())
    })?;
    if writers.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, format!("somebody is writing: {}", writers.join(", ")))
        .hint("repair when they have finished"))
}

/// Counts `object` into or out of the record of its pack.
fn count(transaction: &mut dyn Transaction, located: &Located, sign: i64) -> Result<()> {
    let key = keys::pack(located.extent.pack);
    let bytes = transaction.get(&key)?;
    let mut pack: PackRecord = bytes.map_or(Ok(PackRecord::default()), |b| record::decode(&b))?;
    let stored = i64::from(located.extent.stored_bytes);
    pack.live_objects = pack.live_objects.saturating_add_signed(sign);
    pack.live_bytes = pack.live_bytes.saturating_add_signed(sign * stored);
    transaction.put(&key, &record::encode(&pack))
}

impl Embedded {
    pub(super) fn apply_fixes(&self, fixes: &[Fix]) -> Result<()> {
        self.write(Durability::Immediate, |transaction| {
            refuse_writers(&*transaction)?;
            fixes.iter().try_for_each(|fix| apply(transaction, fix))
        })
    }

    /// Packs, objects, dead: everything that can be made again from the store. Pins stay: they are
    /// those of drafts.
    pub(super) fn forget_object_table(&self) -> Result<()> {
        self.write(Durability::Eventual, |transaction| refuse_writers(&*transaction))?;
        let spaces = [Space::Object, Space::Pack, Space::Dead, Space::Purge];
        for space in spaces {
            let (from, to) = Key::of(space).range();
            loop {
                let gone = self.write(Durability::Immediate, |transaction| {
                    let page = transaction.scan(&from, &to, FORGET_BATCH)?;
                    page.iter().try_for_each(|(key, _)| transaction.delete(key))?;
                    Ok(page.len())
                })?;
                if gone < FORGET_BATCH {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn apply(transaction: &mut dyn Transaction, fix: &Fix) -> Result<()> {
    match fix {
        Fix::Put(digest, located) => {
            if let Some(old) = object(&*transaction, digest)? {
                count(transaction, &old, -1)?;
            }
            count(transaction, located, 1)?;
            transaction.put(&keys::object(digest), &encode_object(located))?;
            match located.refs {
                0 => transaction.put(&keys::dead(digest), &[]),
                _ => transaction.delete(&keys::dead(digest)),
            }
        }
        Fix::Remove(digest) => {
            if let Some(old) = object(&*transaction, digest)? {
                count(transaction, &old, -1)?;
                transaction.put(&keys::purge(old.extent.pack), &[])?;
            }
            transaction.delete(&keys::object(digest))?;
            transaction.delete(&keys::dead(digest))
        }
        Fix::Pack(info) => fix_pack(transaction, info),
        Fix::RemovePack(id) => {
            transaction.delete(&keys::pack(*id))?;
            transaction.delete(&keys::purge(*id))
        }
    }
}

fn fix_pack(transaction: &mut dyn Transaction, info: &PackInfo) -> Result<()> {
    let pack = PackRecord {
        live_objects: info.live_objects,
        live_bytes: info.live_bytes,
        length_bytes: info.length_bytes,
        ..PackRecord::default()
    };
    transaction.put(&keys::pack(info.id), &record::encode(&pack))?;
    if pack.live_bytes < pack.length_bytes || pack.live_objects == 0 {
        transaction.put(&keys::purge(info.id), &[])?;
    }
    Ok(())
}
