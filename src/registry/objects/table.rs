//! The object table: the places of objects, and the numbers of their parents.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{self, Fate, Inserted};
use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Located, NewObject, PackId};
use crate::registry::engine::{Durability, Transaction, View, Want};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::live::{live_lease, put_lease};
use crate::registry::leases::pins::{Pins, pin};
use crate::registry::leases::zones;
use crate::registry::objects::absent::{absent_objects, count_absent};
use crate::registry::objects::wants::{registration, want_children, want_objects, want_packs};
use crate::registry::paging::each_below;
use crate::registry::record::{self, LeaseRecord, PackRecord, decode_object, encode_object};
use crate::registry::upkeep::reclaim_mark::mark_reclaimable;
use crate::registry::{Added, DRAFT_HOLDER, LeaseId, PackInfo, RegistryInfo};

/// Returns the record of an object.
pub(in crate::registry) fn object(view: &dyn View, digest: &Digest) -> Result<Option<Located>> {
    view.get(&keys::object(digest))?.map(|bytes| decode_object(&bytes)).transpose()
}

/// The pack records that one transaction changes, written once at its end.
#[derive(Default)]
pub(in crate::registry) struct PackCounts {
    packs: BTreeMap<PackId, PackRecord>,
    /// The packs that lost objects.
    dying: BTreeSet<PackId>,
    /// The pins, as the transaction sees them.
    pub(in crate::registry) pins: Pins,
}

impl PackCounts {
    /// Returns the record of a pack, reading it at the first use.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the pack has no record.
    pub(in crate::registry) fn of(
        &mut self,
        view: &dyn View,
        id: PackId,
    ) -> Result<&mut PackRecord> {
        use std::collections::btree_map::Entry;
        match self.packs.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            // The place of objects that no pack holds: it has no record.
            Entry::Vacant(unknown) if id == PackId::NONE => {
                Ok(unknown.insert(PackRecord::default()))
            }
            Entry::Vacant(unknown) => {
                let bytes = view.get(&keys::pack(id))?.ok_or_else(|| {
                    Error::new(Kind::Corrupt, format!("pack {id} is not in the registry"))
                        .hint(DamageHint::Repair)
                })?;
                Ok(unknown.insert(record::decode(&bytes)?))
            }
        }
    }

    /// Adds an object to (`sign` 1) or subtracts it from (-1) the record of its pack; makes a
    /// missing record.
    pub(in crate::registry) fn count(
        &mut self,
        view: &dyn View,
        located: &Located,
        sign: i64,
    ) -> Result<()> {
        let id = located.extent.pack;
        if view.get(&keys::pack(id))?.is_none() {
            self.packs.entry(id).or_default();
        }
        decide::count(self.of(view, id)?, located, sign);
        Ok(())
    }

    /// Writes the records back, and marks packs that lost objects as reclaimable.
    pub(in crate::registry) fn store(self, transaction: &mut dyn Transaction) -> Result<()> {
        for (id, pack) in self.packs {
            if id != PackId::NONE {
                transaction.put(&keys::pack(id), &record::encode(&pack))?;
            }
        }
        let dying = self.dying.into_iter().filter(|id| *id != PackId::NONE);
        dying.into_iter().try_for_each(|id| mark_reclaimable(transaction, id))
    }
}

/// Adds a parent to an object's count. Returns `false` if there is no such object.
pub(in crate::registry) fn add_reference(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    digest: &Digest,
) -> Result<bool> {
    let Some(mut located) = object(&*transaction, digest)? else {
        return Ok(false);
    };
    if decide::refer(&mut located) {
        let pack = counts.of(&*transaction, located.extent.pack)?;
        pack.unreferenced = pack.unreferenced.saturating_sub(1);
    }
    transaction.put(&keys::object(digest), &encode_object(&located))?;
    Ok(true)
}

/// Subtracts a parent from an object's count. Without parents the object is unreachable, unless a
/// lease holds it. An unreachable chunk is removed at once, since it has no children. An
/// unreachable node is only marked: its removal needs its children. Returns the stored bytes that
/// were removed.
pub(in crate::registry) fn drop_reference(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    digest: &Digest,
) -> Result<u64> {
    let Some(mut located) = object(&*transaction, digest)? else { return Ok(0) };
    let id = located.extent.pack;
    let mut pack = counts.of(&*transaction, id)?.clone();
    let pinned = || counts.pins.hold(&*transaction, digest);
    let fate = decide::unrefer(&mut located, &mut pack, pinned)?;
    *counts.of(&*transaction, id)? = pack;
    match fate {
        Fate::Removed => return remove(transaction, counts, digest, &located),
        Fate::Unreachable => transaction.put(&keys::unreachable(digest), &[])?,
        Fate::Kept => {}
    }
    transaction.put(&keys::object(digest), &encode_object(&located))?;
    Ok(0)
}

/// Removes an object from the table and marks its pack as reclaimable. Returns the object's bytes
/// in the store.
pub(in crate::registry) fn remove(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    digest: &Digest,
    located: &Located,
) -> Result<u64> {
    transaction.delete(&keys::object(digest))?;
    let stored = u64::from(located.extent.stored_bytes);
    let pack = counts.of(&*transaction, located.extent.pack)?;
    pack.live_objects = pack.live_objects.saturating_sub(1);
    pack.live_bytes = pack.live_bytes.saturating_sub(stored);
    counts.dying.insert(located.extent.pack);
    count_absent(transaction, -i64::from(located.is_absent()))?;
    Ok(stored)
}

impl EngineRegistry {
    pub(in crate::registry) fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Located>>> {
        self.read(|view| {
            want_objects(view, digests)?;
            digests.iter().map(|digest| object(view, digest)).collect()
        })
    }

    pub(in crate::registry) fn missing(
        &self,
        lease: LeaseId,
        mut digests: Vec<Digest>,
    ) -> Result<Vec<Digest>> {
        zones::check(lease, digests.iter().map(Digest::zone))?;
        digests.sort_unstable();
        digests.dedup();
        // A draft outlives this process, and so do its pins.
        let holder = self.read(|view| live_lease(view, lease))?.holder;
        let lasts = holder == DRAFT_HOLDER;
        let durability = if lasts { Durability::Immediate } else { Durability::Eventual };
        let want = || {
            let mut wanted: Vec<_> = digests.iter().map(keys::object).collect();
            wanted.push(keys::lease(lease.0));
            Ok(Want::keys(wanted))
        };
        self.write_wanting(durability, &want, |transaction| {
            want_packs(&*transaction, &digests)?;
            let mut held = live_lease(&*transaction, lease)?;
            let mut counts = PackCounts::default();
            let (mut missing, mut pinned) = (Vec::new(), Vec::new());
            for digest in &digests {
                match object(&*transaction, digest)? {
                    None => missing.push(*digest),
                    Some(located) if located.is_absent() => missing.push(*digest),
                    Some(located) => {
                        let pack = counts.of(&*transaction, located.extent.pack)?;
                        // Pins of drafts are few, so most have a key each; batches are not
                        // searched.
                        let pin = keys::pin(digest, lease.0);
                        let again = lasts && transaction.get(&pin)?.is_some();
                        if pack.lease != Some(lease.0) && !again {
                            pinned.push(*digest);
                        }
                    }
                }
            }
            pin_all(transaction, lease, &mut held, &pinned)?;
            Ok(missing)
        })
    }

    /// Announces a pack under a lease. It is durable at once: after a crash the registry has a
    /// record of every pack on the disk.
    pub(in crate::registry) fn register_pack(&self, lease: LeaseId, id: PackId) -> Result<()> {
        zones::check(lease, [id.zone()])?;
        let want = || Ok(Want::keys([keys::lease(lease.0), keys::pack(id)]));
        self.write_wanting(Durability::Immediate, &want, |transaction| {
            live_lease(&*transaction, lease)?;
            if let Some(bytes) = transaction.get(&keys::pack(id))? {
                let known: PackRecord = record::decode(&bytes)?;
                // The announcement is repeated, because its reply was lost.
                if known.lease == Some(lease.0) && known.object_batches == 0 {
                    return Ok(());
                }
                return Err(Error::new(Kind::Conflict, format!("pack {id} already exists")));
            }
            let pack = PackRecord { lease: Some(lease.0), ..PackRecord::default() };
            transaction.put(&keys::pack(id), &record::encode(&pack))?;
            transaction.put(&keys::lease_pack(lease.0, id), &[])
        })
    }

    pub(in crate::registry) fn add_objects(
        &self,
        lease: LeaseId,
        id: PackId,
        length_bytes: u64,
        mut objects: Vec<NewObject>,
    ) -> Result<Added> {
        let own = objects.iter().map(|object| object.digest.zone());
        let children = objects.iter().flat_map(|object| &object.children).map(Digest::zone);
        zones::check(lease, [id.zone()].into_iter().chain(own).chain(children))?;
        // Sorted keys make neighbouring writes.
        objects.sort_unstable_by_key(|object| object.digest);
        let missing = self.read(|view| missing_children(view, &objects))?;
        if !missing.is_empty() {
            return Ok(Added { missing, duplicates: 0 });
        }
        // It must be durable, because the writer relies on it: this process may be killed
        // and replaced before the commit.
        let want = || Ok(registration(lease, id, &objects));
        self.write_wanting(Durability::Immediate, &want, |transaction| {
            let mut held = live_lease(&*transaction, lease)?;
            let mut counts = PackCounts::default();
            let pack = counts.of(&*transaction, id)?;
            if pack.lease != Some(lease.0) {
                let what = format!("pack {id} does not belong to lease {}", lease.0);
                return Err(Error::new(Kind::Conflict, what));
            }
            pack.length_bytes = length_bytes;
            let batch = Key::of(Space::PackObjects).fixed(&id.0).number(pack.object_batches).done();
            pack.object_batches += 1;
            let (mut added, mut uncounted) = (Vec::with_capacity(objects.len()), Vec::new());
            let mut others = Vec::new();
            for object in &objects {
                match insert(transaction, &mut counts, id, object)? {
                    Inserted::Known(at) => {
                        if counts.of(&*transaction, at)?.lease != Some(lease.0) {
                            others.push(object.digest);
                        }
                        continue;
                    }
                    Inserted::Mended(_) => {}
                    Inserted::New(_) => uncounted.push(object.digest),
                }
                added.push(object.digest);
            }
            transaction.put(&batch, &record::encode_digests(&added))?;
            count_children(transaction, &mut counts, &objects, &uncounted)?;
            counts.store(transaction)?;
            // Objects that another writer registered first would go with its version, unless this
            // lease pins them.
            pin_all(transaction, lease, &mut held, &others)?;
            Ok(Added { missing: Vec::new(), duplicates: (objects.len() - added.len()) as u64 })
        })
    }

    pub(in crate::registry) fn absent(&self) -> Result<u64> {
        self.read(|view| absent_objects(view))
    }

    /// Returns the next objects of a table: the one in use, or the one that is being rebuilt.
    pub(in crate::registry) fn page_of_objects(
        &self,
        space: Space,
        after: Option<Digest>,
        limit: u32,
    ) -> Result<Vec<(Digest, Located)>> {
        let (start, to) = Key::of(space).range();
        let key = |digest: Digest| Key::of(space).fixed(digest.as_bytes()).done();
        let from = after.map_or(start, |digest| keys::next(&key(digest)));
        self.read(|view| {
            let page = view.scan(&from, &to, limit as usize)?;
            let decode = |(key, value): &(Vec<u8>, Vec<u8>)| {
                let digest = keys::digest_of(key)
                    .ok_or_else(|| Error::new(Kind::Corrupt, "an object table key is too short"))?;
                Ok((digest, decode_object(value)?))
            };
            page.iter().map(decode).collect()
        })
    }

    /// Moves objects to another pack, in one transaction: a reader finds each object in one of the
    /// two packs. Returns how many were still in the old pack.
    pub(in crate::registry) fn relocate(
        &self,
        lease: LeaseId,
        (from, to): (PackId, PackId),
        length_bytes: u64,
        mut moved: Vec<(Digest, u64)>,
    ) -> Result<u64> {
        moved.sort_unstable();
        let want = || {
            let mut wanted: Vec<_> = moved.iter().map(|(digest, _)| keys::object(digest)).collect();
            wanted.extend([keys::lease(lease.0), keys::pack(from), keys::pack(to)]);
            Ok(Want::keys(wanted))
        };
        self.write_wanting(Durability::Immediate, &want, |transaction| {
            live_lease(&*transaction, lease)?;
            let mut counts = PackCounts::default();
            let batch = {
                let pack = counts.of(&*transaction, to)?;
                if pack.lease != Some(lease.0) {
                    let what = format!("pack {to} does not belong to lease {}", lease.0);
                    return Err(Error::new(Kind::Conflict, what));
                }
                pack.length_bytes = length_bytes;
                pack.object_batches += 1;
                Key::of(Space::PackObjects).fixed(&to.0).number(pack.object_batches - 1).done()
            };
            let mut here = Vec::new();
            for (digest, offset) in &moved {
                let Some(mut located) = object(&*transaction, digest)? else { continue };
                if located.extent.pack != from {
                    continue;
                }
                let stored = u64::from(located.extent.stored_bytes);
                let old = counts.of(&*transaction, from)?;
                old.live_objects = old.live_objects.saturating_sub(1);
                old.live_bytes = old.live_bytes.saturating_sub(stored);
                let new = counts.of(&*transaction, to)?;
                new.live_objects += 1;
                new.live_bytes += stored;
                new.unreferenced += u64::from(located.refs == 0);
                located.extent.pack = to;
                located.extent.offset = *offset;
                transaction.put(&keys::object(digest), &encode_object(&located))?;
                here.push(*digest);
            }
            transaction.put(&batch, &record::encode_digests(&here))?;
            counts.dying.insert(from);
            counts.store(transaction)?;
            Ok(here.len() as u64)
        })
    }

    pub(in crate::registry) fn pack(&self, id: PackId) -> Result<Option<PackInfo>> {
        let key = keys::pack(id);
        self.read(|view| view.get(&key)?.map(|value| pack_info(&key, &value)).transpose())
    }

    pub(in crate::registry) fn scan_packs(
        &self,
        after: Option<PackId>,
        limit: u32,
    ) -> Result<Vec<PackInfo>> {
        let (start, to) = Key::of(Space::Pack).range();
        let from = after.map_or(start, |id| keys::next(&keys::pack(id)));
        self.read(|view| {
            let page = view.scan(&from, &to, limit as usize)?;
            page.iter().map(|(key, value)| pack_info(key, value)).collect()
        })
    }

    pub(in crate::registry) fn info(&self) -> Result<RegistryInfo> {
        self.read(|view| {
            let mut info = RegistryInfo::default();
            each_below(view, Key::of(Space::Pack), &mut |key, value| {
                let pack = pack_info(key, value)?;
                info.packs += 1;
                info.objects += pack.live_objects;
                info.live_bytes += pack.live_bytes;
                info.pack_bytes += pack.length_bytes;
                Ok(())
            })?;
            Ok(info)
        })
    }
}

pub(in crate::registry) fn pack_info(key: &[u8], value: &[u8]) -> Result<PackInfo> {
    let pack: PackRecord = record::decode(value)?;
    let id = keys::pack_of(key)
        .ok_or_else(|| Error::new(Kind::Corrupt, "a pack table key is too short"))?;
    Ok(PackInfo {
        id,
        leased: pack.lease.is_some(),
        live_objects: pack.live_objects,
        live_bytes: pack.live_bytes,
        length_bytes: pack.length_bytes,
    })
}

/// Pins objects for a lease and updates its record, unless `digests` is empty.
fn pin_all(
    transaction: &mut dyn Transaction,
    lease: LeaseId,
    held: &mut LeaseRecord,
    digests: &[Digest],
) -> Result<()> {
    if digests.is_empty() {
        return Ok(());
    }
    pin(transaction, lease.0, held.pin_batches, digests)?;
    held.pin_batches += 1;
    put_lease(transaction, lease, held)
}

/// Returns the children of `objects` that are neither present nor among `objects`.
fn missing_children(view: &dyn View, objects: &[NewObject]) -> Result<Vec<Digest>> {
    want_children(view, objects)?;
    let mut missing = Vec::new();
    for child in objects.iter().flat_map(|object| &object.children) {
        let here = objects.binary_search_by_key(child, |object| object.digest).is_ok();
        if !here && object(view, child)?.is_none_or(|located| located.is_absent()) {
            missing.push(*child);
        }
    }
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// Registers an object. The old place of an absent one waits to be reclaimed.
fn insert(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    id: PackId,
    new: &NewObject,
) -> Result<Inserted> {
    let old = object(&*transaction, &new.digest)?;
    let inserted = decide::insert(old.as_ref(), id, new);
    let (Inserted::New(located) | Inserted::Mended(located)) = &inserted else {
        return Ok(inserted);
    };
    if let Some(old) = &old {
        counts.count(&*transaction, old, -1)?;
        count_absent(transaction, -1)?;
        counts.dying.insert(old.extent.pack);
    }
    transaction.put(&keys::object(&new.digest), &encode_object(located))?;
    counts.count(&*transaction, located, 1)?;
    Ok(inserted)
}

/// Counts the children of the nodes in `added` (both slices are sorted). The caller checked that
/// all are present; if one was removed since, the transaction fails.
fn count_children(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    objects: &[NewObject],
    added: &[Digest],
) -> Result<()> {
    for new in objects {
        if added.binary_search(&new.digest).is_err() {
            continue;
        }
        for child in &new.children {
            if !add_reference(transaction, counts, child)? {
                let what = format!("object {child} was removed before its parent was registered");
                return Err(Error::new(Kind::Conflict, what).hint("try again"));
            }
        }
    }
    Ok(())
}
