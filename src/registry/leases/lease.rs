//! Leases: the objects that a writer pinned or wrote stay until its lease is released, left or
//! ended.
//!
//! A lease that exists is valid, whatever the clock says; its expiry only entitles others to end
//! it. A process that ends the lease of another first marks it, in a transaction that checks that
//! it is still the lease that was judged. An ended lease is never valid again: its finished packs
//! go to a new lease, so that no two writers ever share one.

use super::decide::{self, Given};
use super::zones::of_lease;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::ProjectName;
use crate::model::object::PackId;
use crate::model::time::Timestamp;
use crate::registry::access::zones::zones_key;
use crate::registry::counter::{counter_key, next_counter};
use crate::registry::engine::{Durability, Span, Transaction, View, Want};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::live::{lease, live_lease, put_lease};
use crate::registry::leases::pins::{Pins, unpin};
use crate::registry::leases::{ENDING_HOLDER, LEASE_MILLISECONDS};
use crate::registry::objects::absent::{absent_key, absent_objects};
use crate::registry::objects::table::object;
use crate::registry::objects::wants::want_fates;
use crate::registry::paging::each_below;
use crate::registry::record::{self, LeaseRecord, PackRecord};
use crate::registry::upkeep::reclaim_mark::mark_reclaimable;
use crate::registry::{Begun, DRAFT_HOLDER, Judged, LeaseId, LeaseInfo};

/// The maximum number of packs that one lease adopts from another (some 300 GB); the content of
/// others is stored again.
const ADOPTED_MAX: usize = 10_000;
/// The value under the key of a pack that is released, while its objects without references must be
/// marked.
const LOOK_THROUGH: &[u8] = &[1];
/// The number of leases that are asked for together with the first rows of a call.
const LEASES_AT_ONCE: usize = 100;

/// The packs that a lease that is left keeps.
#[derive(Default)]
struct Kept {
    packs: u64,
    /// The bytes of their live objects.
    bytes: u64,
}

/// Returns the lease that the same call began before, if its reply was lost, and whether there are
/// others of the same purpose.
fn begun(view: &dyn View, purpose: &str, holder: &str) -> Result<(Option<LeaseId>, bool)> {
    let (mut found, mut shares_purpose) = (None, false);
    if holder == DRAFT_HOLDER {
        return Ok((found, shares_purpose));
    }
    each_below(view, Key::of(Space::Lease), &mut |key, value| {
        let record: LeaseRecord = record::decode(value)?;
        if record.purpose != purpose {
            return Ok(());
        }
        match record.holder == holder && !record.is_done() {
            true => found = keys::number_of(key).map(LeaseId),
            false => shares_purpose = true,
        }
        Ok(())
    })?;
    Ok((found, shares_purpose))
}

/// Gives the finished packs of a lease to another lease of the same purpose, and marks the first as
/// ending.
fn take_over(
    transaction: &mut dyn Transaction,
    judged: &Judged,
    to: LeaseId,
    now: Timestamp,
) -> Result<()> {
    let heir = live_lease(&*transaction, to)?;
    if judged.lease.zone() != to.zone() {
        return Ok(());
    }
    let Some(mut orphan) = lease(&*transaction, judged.lease)? else { return Ok(()) };
    if !decide::adopts(&heir, &orphan, judged, now) {
        return Ok(());
    }
    let (from, end) = Key::of(Space::LeasePack).number(judged.lease.0).range();
    for (key, _) in transaction.scan(&from, &end, ADOPTED_MAX)? {
        let Some(id) = keys::pack_of(&key) else { continue };
        let Some(mut pack) = pack_record(&*transaction, id)? else { continue };
        if pack.lease == Some(judged.lease.0) && decide::is_progress(&pack) {
            pack.lease = Some(to.0);
            transaction.put(&keys::pack(id), &record::encode(&pack))?;
            transaction.put(&keys::lease_pack(to.0, id), &[])?;
            transaction.delete(&key)?;
        }
    }
    ENDING_HOLDER.clone_into(&mut orphan.holder);
    put_lease(transaction, judged.lease, &orphan)
}

fn pack_record(view: &dyn View, id: PackId) -> Result<Option<PackRecord>> {
    view.get(&keys::pack(id))?.map(|bytes| record::decode(&bytes)).transpose()
}

impl EngineRegistry {
    pub(in crate::registry) fn begin(
        &self,
        purpose: &str,
        holder: &str,
        project: Option<&ProjectName>,
    ) -> Result<Begun> {
        let now = (self.clock)();
        let want = || {
            let (from, to) = Key::of(Space::Lease).range();
            let spans = vec![Span { from, to, limit: LEASES_AT_ONCE }];
            let mut keys = vec![counter_key("lease"), absent_key(), zones_key()];
            keys.extend(project.map(keys::project_access));
            Ok(Want { keys, spans })
        };
        self.write_wanting(Durability::Immediate, &want, |transaction| {
            let (known, shares_purpose) = begun(&*transaction, purpose, holder)?;
            let absent = absent_objects(&*transaction)?;
            if let Some(lease) = known {
                return Ok(Begun { lease, shares_purpose, absent });
            }
            let zone = of_lease(transaction, project)?;
            let lease = LeaseId::new(zone, next_counter(transaction, "lease")?);
            put_lease(transaction, lease, &decide::begin(purpose, holder, now))?;
            Ok(Begun { lease, shares_purpose, absent })
        })
    }

    pub(in crate::registry) fn adopt(&self, id: LeaseId, judged: &Judged) -> Result<()> {
        let now = (self.clock)();
        self.write(Durability::Immediate, |transaction| take_over(transaction, judged, id, now))
    }

    pub(in crate::registry) fn renew(&self, id: LeaseId) -> Result<()> {
        let now = (self.clock)();
        self.write_aside(Durability::Eventual, |transaction| {
            let mut record = live_lease(&*transaction, id)?;
            if record.holder == DRAFT_HOLDER {
                return Ok(());
            }
            record.expires = Timestamp(now.0 + LEASE_MILLISECONDS);
            put_lease(transaction, id, &record)
        })
    }

    pub(in crate::registry) fn leases(&self) -> Result<Vec<LeaseInfo>> {
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

    /// Ends a lease in steps, each a transaction of bounded size. After an interruption the next
    /// call continues.
    pub(in crate::registry) fn release(&self, id: LeaseId) -> Result<()> {
        self.give_up(id, |_| Some(Given::Ended)).map(drop)
    }

    pub(in crate::registry) fn leave(&self, id: LeaseId) -> Result<u64> {
        self.give_up(id, decide::leave)
    }

    pub(in crate::registry) fn end_lease(&self, judged: &Judged, wholly: bool) -> Result<u64> {
        let now = (self.clock)();
        self.give_up(judged.lease, |record| decide::end(record, judged, wholly, now))
    }

    /// Marks a lease with its fate, then takes it apart in steps, each a transaction of bounded
    /// size. After an interruption the next caller continues. Returns the bytes that are kept.
    fn give_up(&self, id: LeaseId, fate: impl Fn(&LeaseRecord) -> Option<Given>) -> Result<u64> {
        let now = (self.clock)();
        let given = self.write(Durability::Eventual, |transaction| {
            let Some(record) = lease(&*transaction, id)? else { return Ok(None) };
            let Some(given) = fate(&record) else { return Ok(None) };
            if let Some(record) = decide::given_up(&record, given, now) {
                put_lease(transaction, id, &record)?;
            }
            Ok(Some(given))
        })?;
        let Some(given) = given else { return Ok(0) };
        loop {
            while self.release_pins(id)? {}
            let kept = self.release_packs(id, given)?;
            if kept.packs > 0 || self.forget_lease(id)? {
                return Ok(kept.bytes);
            }
        }
    }

    /// Removes the record of a lease that holds nothing. Returns `false` if it holds something: the
    /// steps before are not durable, so a crash of the registry may have undone some of them.
    fn forget_lease(&self, id: LeaseId) -> Result<bool> {
        self.write(Durability::Immediate, |transaction| {
            for space in [Space::PinnedBy, Space::PinnedTogether, Space::LeasePack] {
                let (from, to) = Key::of(space).number(id.0).range();
                if !transaction.scan(&from, &to, 1)?.is_empty() {
                    return Ok(false);
                }
            }
            transaction.delete(&keys::answered(id.0))?;
            transaction.delete(&keys::lease(id.0))?;
            Ok(true)
        })
    }

    /// Removes some pins of a lease. Returns `false` if there were none left.
    fn release_pins(&self, id: LeaseId) -> Result<bool> {
        self.write(Durability::Eventual, |transaction| {
            let digests = unpin(transaction, id.0)?;
            want_fates(&*transaction, &digests)?;
            let mut pins = Pins::default();
            for digest in &digests {
                mark_if_unreachable(transaction, &mut pins, digest)?;
            }
            Ok(!digests.is_empty())
        })
    }

    /// Releases the packs of a lease, except those that a lease that is only left keeps.
    fn release_packs(&self, id: LeaseId, given: Given) -> Result<Kept> {
        let (mut from, to) = Key::of(Space::LeasePack).number(id.0).range();
        let mut kept = Kept::default();
        loop {
            let next = self.read(|view| {
                let Some((key, _)) = view.scan(&from, &to, 1)?.pop() else { return Ok(None) };
                let Some(pack) = keys::pack_of(&key) else { return Ok(None) };
                Ok(Some((pack, pack_record(view, pack)?)))
            })?;
            let Some((pack, found)) = next else { return Ok(kept) };
            from = keys::next(&keys::lease_pack(id.0, pack));
            match found {
                Some(found)
                    if given == Given::Left
                        && found.lease == Some(id.0)
                        && decide::is_progress(&found) =>
                {
                    kept.packs += 1;
                    kept.bytes += found.live_bytes;
                }
                _ => self.release_pack(id, pack)?,
            }
        }
    }

    /// Releases a pack: its objects without references become unreachable. The first step removes
    /// the lease from the pack's record. From then on `drop_reference` marks objects that lose
    /// their last reference, and the following steps mark those that had none before.
    fn release_pack(&self, lease: LeaseId, id: PackId) -> Result<()> {
        let key = keys::lease_pack(lease.0, id);
        let want = || Ok(Want::keys([keys::pack(id), keys::reclaimable(id), counter_key("purge")]));
        self.write_wanting(Durability::Eventual, &want, |transaction| {
            let Some(mut pack) = pack_record(&*transaction, id)? else { return Ok(()) };
            if pack.lease != Some(lease.0) {
                return Ok(());
            }
            // If every object has a parent, there is nothing to mark.
            if pack.unreferenced > 0 {
                transaction.put(&key, LOOK_THROUGH)?;
            }
            (pack.lease, pack.unreferenced) = (None, 0);
            transaction.put(&keys::pack(id), &record::encode(&pack))?;
            // Objects that another writer registered first left dead bytes here, and a pack
            // that was announced and never finished consists of dead bytes only.
            if pack.live_objects == 0 || pack.live_bytes < pack.length_bytes {
                mark_reclaimable(transaction, id)?;
            }
            Ok(())
        })?;
        while self.release_pack_objects(lease, id)? {}
        self.write(Durability::Eventual, |transaction| {
            match is_released(&*transaction, lease, id)? {
                true => transaction.delete(&key),
                false => Ok(()),
            }
        })
    }

    /// Marks some of the objects of a released pack. Returns `false` if there are none left.
    fn release_pack_objects(&self, lease: LeaseId, id: PackId) -> Result<bool> {
        let (from, to) = Key::of(Space::PackObjects).fixed(&id.0).range();
        let want = || {
            let spans = vec![Span { from: from.clone(), to: to.clone(), limit: 1 }];
            Ok(Want { keys: vec![keys::pack(id), keys::lease_pack(lease.0, id)], spans })
        };
        self.write_wanting(Durability::Eventual, &want, |transaction| {
            let Some((key, value)) = transaction.scan(&from, &to, 1)?.pop() else {
                return Ok(false);
            };
            // Another lease may have adopted the pack meanwhile.
            let Some(look) = transaction.get(&keys::lease_pack(lease.0, id))? else {
                return Ok(false);
            };
            if !is_released(&*transaction, lease, id)? {
                return Ok(false);
            }
            if look == LOOK_THROUGH {
                let (mut pins, digests) = (Pins::default(), record::decode_digests(&value)?);
                want_fates(&*transaction, &digests)?;
                for digest in digests {
                    mark_if_unreachable(transaction, &mut pins, &digest)?;
                }
            }
            transaction.delete(&key)?;
            Ok(true)
        })
    }
}

/// Returns whether a pack is not under the lease any more. A crash of the registry may have undone
/// its release.
fn is_released(view: &dyn View, lease: LeaseId, id: PackId) -> Result<bool> {
    Ok(pack_record(view, id)?.is_none_or(|pack| pack.lease != Some(lease.0)))
}

/// Marks an object unreachable if nothing refers to it and no lease holds it.
fn mark_if_unreachable(
    transaction: &mut dyn Transaction,
    pins: &mut Pins,
    digest: &Digest,
) -> Result<()> {
    let Some(located) = object(&*transaction, digest)? else {
        return Ok(());
    };
    if located.refs > 0 || pins.hold(&*transaction, digest)? {
        return Ok(());
    }
    let pack = pack_record(&*transaction, located.extent.pack)?;
    if pack.and_then(|pack| pack.lease).is_none() {
        transaction.put(&keys::unreachable(digest), &[])?;
    }
    Ok(())
}
