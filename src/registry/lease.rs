//! Leases: what a writer pinned or wrote stays until it commits, gives up, or is given up.

use super::api::{DRAFT_HOLDER, LEASE_MILLISECONDS, LeaseId, LeaseInfo};
use super::embedded::{Embedded, each_below, next_counter};
use super::engine::{Durability, Transaction, View};
use super::keys::{self, Key, Space};
use super::objects::{is_pinned, object};
use super::record::{self, LeaseRecord, PackRecord};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::PackId;
use crate::model::version::Timestamp;

fn lease(view: &dyn View, id: LeaseId) -> Result<Option<LeaseRecord>> {
    view.get(&keys::lease(id.0))?.map(|bytes| record::decode(&bytes)).transpose()
}

/// The record of a lease that has not ended.
pub(super) fn live_lease(view: &dyn View, id: LeaseId, now: Timestamp) -> Result<LeaseRecord> {
    match lease(view, id)? {
        Some(record) if record.expires > now || record.is_done() => Ok(record),
        _ => Err(Error::new(Kind::Conflict, format!("lease {} has ended", id.0))
            .hint("nothing was committed; begin again")),
    }
}

pub(super) fn put_lease(
    transaction: &mut dyn Transaction,
    id: LeaseId,
    record: &LeaseRecord,
) -> Result<()> {
    transaction.put(&keys::lease(id.0), &record::encode(record))
}

impl Embedded {
    pub(super) fn begin_lease(
        &self,
        purpose: String,
        holder: String,
        adopt: Option<LeaseId>,
    ) -> Result<LeaseId> {
        let expires = match holder.as_str() {
            DRAFT_HOLDER => Timestamp(u64::MAX),
            _ => Timestamp((self.clock)().0 + LEASE_MILLISECONDS),
        };
        self.write(Durability::Immediate, |transaction| {
            let adopted = adopt.map(|id| lease(&*transaction, id)).transpose()?.flatten();
            if let (Some(id), Some(mut record)) = (adopt, adopted)
                && !record.is_done()
                && record.purpose == purpose
            {
                record.holder.clone_from(&holder);
                record.expires = expires;
                put_lease(transaction, id, &record)?;
                return Ok(id);
            }
            let id = LeaseId(next_counter(transaction, "lease")?);
            let (holder, purpose) = (holder.clone(), purpose.clone());
            let (committed, part, pin_batches) = (None, None, 0);
            let record = LeaseRecord { expires, holder, purpose, committed, part, pin_batches };
            put_lease(transaction, id, &record)?;
            Ok(id)
        })
    }

    pub(super) fn renew_lease(&self, id: LeaseId) -> Result<()> {
        let now = (self.clock)();
        self.write(Durability::Eventual, |transaction| {
            let mut record = live_lease(&*transaction, id, now)?;
            record.expires = Timestamp(now.0 + LEASE_MILLISECONDS);
            put_lease(transaction, id, &record)
        })
    }

    pub(super) fn list_leases(&self) -> Result<Vec<LeaseInfo>> {
        let now = (self.clock)();
        self.read(|view| {
            let mut leases = Vec::new();
            each_below(view, Key::of(Space::Lease), &mut |key, value| {
                let id = keys::number_of(key).unwrap_or_default();
                leases.push(LeaseInfo::new(id, &record::decode(value)?, now));
                Ok(())
            })?;
            Ok(leases)
        })
    }

    /// In steps, each a transaction of bounded size; interrupted, it goes on where it was.
    pub(super) fn release_lease(&self, id: LeaseId) -> Result<()> {
        while self.release_pins(id)? {}
        while let Some(pack) = self.next_lease_pack(id)? {
            self.release_pack(id, pack)?;
        }
        self.write(Durability::Immediate, |transaction| transaction.delete(&keys::lease(id.0)))
    }

    /// Gives up one batch of pins; `false` when there are none left.
    fn release_pins(&self, id: LeaseId) -> Result<bool> {
        let (from, to) = Key::of(Space::PinnedBy).number(id.0).range();
        self.write(Durability::Eventual, |transaction| {
            let Some((key, value)) = transaction.scan(&from, &to, 1)?.pop() else {
                return Ok(false);
            };
            for digest in record::decode_digests(&value)? {
                transaction.delete(&keys::pin(&digest, id.0))?;
                bury_if_unused(transaction, &digest, None)?;
            }
            transaction.delete(&key)?;
            Ok(true)
        })
    }

    fn next_lease_pack(&self, id: LeaseId) -> Result<Option<PackId>> {
        let (from, to) = Key::of(Space::LeasePack).number(id.0).range();
        let first = self.read(|view| Ok(view.scan(&from, &to, 1)?.pop()))?;
        Ok(first.and_then(|(key, _)| keys::pack_of(&key)))
    }

    /// The pack belongs to the repository now; what nothing refers to in it is dead.
    fn release_pack(&self, lease: LeaseId, id: PackId) -> Result<()> {
        while self.release_pack_objects(lease, id)? {}
        self.write(Durability::Eventual, |transaction| {
            if let Some(bytes) = transaction.get(&keys::pack(id))? {
                let mut pack: PackRecord = record::decode(&bytes)?;
                pack.lease = None;
                transaction.put(&keys::pack(id), &record::encode(&pack))?;
                // Objects that somebody else registered first left dead bytes here, and a pack
                // that was announced and never finished is dead as a whole.
                if pack.live_objects == 0 || pack.live_bytes < pack.length_bytes {
                    transaction.put(&keys::purge(id), &[])?;
                }
            }
            transaction.delete(&keys::lease_pack(lease.0, id))
        })
    }

    fn release_pack_objects(&self, lease: LeaseId, id: PackId) -> Result<bool> {
        let (from, to) = Key::of(Space::PackObjects).fixed(&id.0).range();
        self.write(Durability::Eventual, |transaction| {
            let Some((key, value)) = transaction.scan(&from, &to, 1)?.pop() else {
                return Ok(false);
            };
            let bytes = transaction.get(&keys::pack(id))?;
            let pack: Option<PackRecord> = bytes.map(|b| record::decode(&b)).transpose()?;
            // Every object of a pack that was committed whole has a parent: nothing to look for.
            if pack.is_some_and(|pack| pack.unreferenced > 0) {
                for digest in record::decode_digests(&value)? {
                    bury_if_unused(transaction, &digest, Some(lease.0))?;
                }
            }
            transaction.delete(&key)?;
            Ok(true)
        })
    }
}

/// Marks an object dead when nothing refers to it and no lease but `ending` holds it.
fn bury_if_unused(
    transaction: &mut dyn Transaction,
    digest: &Digest,
    ending: Option<u64>,
) -> Result<()> {
    let Some(located) = object(&*transaction, digest)? else {
        return Ok(());
    };
    if located.refs > 0 || is_pinned(&*transaction, digest, None)? {
        return Ok(());
    }
    let bytes = transaction.get(&keys::pack(located.extent.pack))?;
    let pack: Option<PackRecord> = bytes.map(|b| record::decode(&b)).transpose()?;
    let holder = pack.and_then(|pack| pack.lease);
    if holder.is_none() || holder == ending {
        transaction.put(&keys::dead(digest), &[])?;
    }
    Ok(())
}
