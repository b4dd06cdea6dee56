//! Deleting: names are gone before bytes, and exactly what only a version had goes with it.
//!
//! `delete` takes one reference from the root. A count that reaches zero puts the object among the
//! dead; `bury` takes dead objects out of the table and one reference from each of their
//! children. Packs that lost objects wait to be purged. Each step is one transaction; whoever
//! comes next goes on where an interrupted deletion stopped.

use super::api::PackInfo;
use super::embedded::{Embedded, each_below};
use super::engine::{Durability, Transaction};
use super::keys::{self, Key, Space};
use super::naming::lookup;
use super::objects::{PackCounts, drop_reference, is_pinned, object, pack_info, remove};
use super::properties::keep_protected;
use super::record::{self, PackRecord};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId};
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;

/// What stands under the key of a pack whose dead bytes may stay for now.
const DEFERRED: &[u8] = &[1];

/// Takes a version away with its aliases, and one reference from its root.
pub(super) fn take_away(transaction: &mut dyn Transaction, info: &VersionInfo) -> Result<()> {
    Embedded::drop_aliases(transaction, &info.path, info.number)?;
    transaction.delete(&keys::version(&info.path, info.number))?;
    let mut counts = PackCounts::default();
    drop_reference(transaction, &mut counts, &info.root)?;
    counts.store(transaction)
}

impl Embedded {
    pub(super) fn delete_version(
        &self,
        reference: &Reference,
        delete_aliases: bool,
    ) -> Result<VersionInfo> {
        self.write_names(&reference.path, |transaction| {
            let info = lookup(&*transaction, reference)?;
            keep_protected(&info)?;
            if !info.aliases.is_empty() && !delete_aliases {
                let names: Vec<_> = info.aliases.iter().map(|alias| alias.as_str()).collect();
                let what = format!("{} has aliases: {}", info.reference(), names.join(", "));
                return Err(
                    Error::new(Kind::Conflict, what).hint("--delete-aliases deletes it with them")
                );
            }
            take_away(transaction, &info)?;
            Ok(info)
        })
    }

    pub(super) fn list_dead(&self, limit: u32) -> Result<Vec<(Digest, Located)>> {
        let (from, to) = Key::of(Space::Dead).range();
        self.write(Durability::Eventual, |transaction| {
            let mut dead = Vec::new();
            for (key, _) in transaction.scan(&from, &to, limit as usize)? {
                let digest = keys::digest_of(&key);
                match digest.map(|digest| object(&*transaction, &digest)).transpose()?.flatten() {
                    Some(located) => dead.extend(digest.map(|digest| (digest, located))),
                    None => transaction.delete(&key)?,
                }
            }
            Ok(dead)
        })
    }

    pub(super) fn bury_objects(&self, objects: &[(Digest, Vec<Digest>)]) -> Result<u64> {
        self.write(Durability::Immediate, |transaction| {
            let mut counts = PackCounts::default();
            let mut freed = 0;
            for (digest, children) in objects {
                let known_dead = transaction.get(&keys::dead(digest))?.is_some();
                transaction.delete(&keys::dead(digest))?;
                let Some(located) = object(&*transaction, digest)? else {
                    continue;
                };
                // Somebody may have taken it up again since it died.
                if !known_dead || located.refs > 0 || is_pinned(&*transaction, digest, None)? {
                    continue;
                }
                freed += remove(transaction, &mut counts, digest, &located)?;
                for child in children {
                    freed += drop_reference(transaction, &mut counts, child)?;
                }
            }
            counts.store(transaction)?;
            Ok(freed)
        })
    }

    pub(super) fn list_purgeable(&self, limit: u32, deferred: bool) -> Result<Vec<PackInfo>> {
        self.read(|view| {
            let mut packs = Vec::new();
            each_below(view, Key::of(Space::Purge), &mut |key, value| {
                let Some(id) = keys::pack_of(key).filter(|_| packs.len() < limit as usize) else {
                    return Ok(());
                };
                let waits = value == DEFERRED && !deferred;
                let pack_key = keys::pack(id);
                if let Some(value) = view.get(&pack_key)? {
                    let pack = pack_info(&pack_key, &value)?;
                    let dead = pack.live_objects == 0;
                    packs.extend(Some(pack).filter(|pack| !pack.leased && (dead || !waits)));
                }
                Ok(())
            })?;
            Ok(packs)
        })
    }

    pub(super) fn mark_deferred(&self, id: PackId) -> Result<()> {
        self.write(Durability::Immediate, |transaction| {
            match transaction.get(&keys::purge(id))? {
                Some(_) => transaction.put(&keys::purge(id), DEFERRED),
                None => Ok(()),
            }
        })
    }

    pub(super) fn mark_purged(&self, id: PackId, length_bytes: u64) -> Result<()> {
        self.write(Durability::Eventual, |transaction| {
            transaction.delete(&keys::purge(id))?;
            let Some(bytes) = transaction.get(&keys::pack(id))? else {
                return Ok(());
            };
            let mut pack: PackRecord = record::decode(&bytes)?;
            if length_bytes == 0 && pack.live_objects == 0 {
                return transaction.delete(&keys::pack(id));
            }
            pack.length_bytes = length_bytes;
            transaction.put(&keys::pack(id), &record::encode(&pack))
        })
    }
}
