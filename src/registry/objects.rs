//! The object table: where bytes are, and how many parents point at them.

use std::collections::BTreeMap;

use super::api::{Added, LeaseId, PackInfo, RegistryInfo};
use super::embedded::{Embedded, each_below};
use super::engine::{Durability, Transaction, View};
use super::keys::{self, Key, Space};
use super::lease::{live_lease, put_lease};
use super::record::{self, PackRecord, decode_object, encode_object};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, NewObject, ObjectKind, PackId};

/// The record of an object.
pub(super) fn object(view: &dyn View, digest: &Digest) -> Result<Option<Located>> {
    view.get(&keys::object(digest))?.map(|bytes| decode_object(&bytes)).transpose()
}

/// Whether a lease other than `except` pins the object.
pub(super) fn is_pinned(view: &dyn View, digest: &Digest, except: Option<u64>) -> Result<bool> {
    let (from, to) = Key::of(Space::Pin).fixed(digest.as_bytes()).range();
    let pins = view.scan(&from, &to, 2)?;
    Ok(pins.iter().any(|(key, _)| keys::number_of(key) != except))
}

/// Pack records changed by one transaction, written once at its end.
#[derive(Default)]
pub(super) struct PackCounts {
    packs: BTreeMap<PackId, PackRecord>,
}

impl PackCounts {
    /// The record of a pack that is known.
    pub(super) fn of(&mut self, view: &dyn View, id: PackId) -> Result<&mut PackRecord> {
        use std::collections::btree_map::Entry;
        match self.packs.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let bytes = view.get(&keys::pack(id))?.ok_or_else(|| {
                    Error::new(Kind::Corrupt, format!("pack {id} is not in the registry"))
                        .hint("`artifactfs fsck --repair` mends it")
                })?;
                Ok(unknown.insert(record::decode(&bytes)?))
            }
        }
    }

    /// Writes the records back.
    pub(super) fn store(self, transaction: &mut dyn Transaction) -> Result<()> {
        let put = |(id, pack)| transaction.put(&keys::pack(id), &record::encode(&pack));
        self.packs.into_iter().try_for_each(put)
    }
}

/// One more parent points at the object; `false` when there is no such object.
pub(super) fn add_reference(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    digest: &Digest,
) -> Result<bool> {
    let Some(mut located) = object(&*transaction, digest)? else {
        return Ok(false);
    };
    if located.refs == 0 {
        let pack = counts.of(&*transaction, located.extent.pack)?;
        pack.unreferenced = pack.unreferenced.saturating_sub(1);
    }
    located.refs += 1;
    transaction.put(&keys::object(digest), &encode_object(&located))?;
    Ok(true)
}

/// One parent fewer points at the object; the last one gone, it is dead unless something pins it. A
/// dead chunk goes at once, since it points at nothing; a dead node waits for its children to be
/// known. Returns the bytes that went.
pub(super) fn drop_reference(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    digest: &Digest,
) -> Result<u64> {
    let Some(mut located) = object(&*transaction, digest)? else { return Ok(0) };
    located.refs = located.refs.saturating_sub(1);
    let leased = counts.of(&*transaction, located.extent.pack)?.lease.is_some();
    let held = located.refs > 0 || leased || is_pinned(&*transaction, digest, None)?;
    if !held && located.kind == ObjectKind::Chunk {
        return remove(transaction, counts, digest, &located);
    }
    transaction.put(&keys::object(digest), &encode_object(&located))?;
    if located.refs == 0 && leased {
        counts.of(&*transaction, located.extent.pack)?.unreferenced += 1;
    }
    if !held {
        transaction.put(&keys::dead(digest), &[])?;
    }
    Ok(0)
}

/// Takes an object out of the table; its pack waits to be purged. Returns its bytes in the store.
pub(super) fn remove(
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
    transaction.put(&keys::purge(located.extent.pack), &[])?;
    Ok(stored)
}

impl Embedded {
    pub(super) fn locate_objects(&self, digests: &[Digest]) -> Result<Vec<Option<Located>>> {
        self.read(|view| digests.iter().map(|digest| object(view, digest)).collect())
    }

    pub(super) fn find_missing(
        &self,
        lease: LeaseId,
        mut digests: Vec<Digest>,
    ) -> Result<Vec<Digest>> {
        digests.sort_unstable();
        digests.dedup();
        self.write(Durability::Eventual, |transaction| {
            let mut held = live_lease(&*transaction, lease, (self.clock)())?;
            let mut counts = PackCounts::default();
            let (mut missing, mut pinned) = (Vec::new(), Vec::new());
            for digest in &digests {
                match object(&*transaction, digest)? {
                    None => missing.push(*digest),
                    Some(located) => {
                        let pack = counts.of(&*transaction, located.extent.pack)?;
                        if pack.lease != Some(lease.0) {
                            transaction.put(&keys::pin(digest, lease.0), &[])?;
                            pinned.push(*digest);
                        }
                    }
                }
            }
            if !pinned.is_empty() {
                let key = Key::of(Space::PinnedBy).number(lease.0).number(held.pin_batches).done();
                transaction.put(&key, &record::encode_digests(&pinned))?;
                held.pin_batches += 1;
                put_lease(transaction, lease, &held)?;
            }
            Ok(missing)
        })
    }

    /// Durable at once: after a crash every pack on the disk is known, so none is ever lost.
    pub(super) fn announce_pack(&self, lease: LeaseId, id: PackId) -> Result<()> {
        self.write(Durability::Immediate, |transaction| {
            live_lease(&*transaction, lease, (self.clock)())?;
            if let Some(bytes) = transaction.get(&keys::pack(id))? {
                let known: PackRecord = record::decode(&bytes)?;
                // The same announcement again, because its answer was lost.
                if known.lease == Some(lease.0) && known.object_batches == 0 {
                    return Ok(());
                }
                return Err(Error::new(Kind::Conflict, format!("pack {id} exists already")));
            }
            let pack = PackRecord { lease: Some(lease.0), ..PackRecord::default() };
            transaction.put(&keys::pack(id), &record::encode(&pack))?;
            transaction.put(&keys::lease_pack(lease.0, id), &[])
        })
    }

    pub(super) fn register_objects(
        &self,
        lease: LeaseId,
        id: PackId,
        length_bytes: u64,
        mut objects: Vec<NewObject>,
    ) -> Result<Added> {
        // Keys near each other are written near each other.
        objects.sort_unstable_by_key(|object| object.digest);
        let missing = self.read(|view| missing_children(view, &objects))?;
        if !missing.is_empty() {
            return Ok(Added { missing, duplicates: 0 });
        }
        // Durable, because the writer goes on as if it were: the process that answers may be killed
        // and another take its place before the commit.
        self.write(Durability::Immediate, |transaction| {
            live_lease(&*transaction, lease, (self.clock)())?;
            let mut counts = PackCounts::default();
            let pack = counts.of(&*transaction, id)?;
            if pack.lease != Some(lease.0) {
                let what = format!("pack {id} does not belong to lease {}", lease.0);
                return Err(Error::new(Kind::Conflict, what));
            }
            pack.length_bytes = length_bytes;
            let batch = Key::of(Space::PackObjects).fixed(&id.0).number(pack.object_batches).done();
            pack.object_batches += 1;
            let mut added = Vec::with_capacity(objects.len());
            for object in &objects {
                if insert(transaction, &mut counts, id, object)? {
                    added.push(object.digest);
                }
            }
            transaction.put(&batch, &record::encode_digests(&added))?;
            count_children(transaction, &mut counts, &objects, &added)?;
            counts.store(transaction)?;
            Ok(Added { missing: Vec::new(), duplicates: (objects.len() - added.len()) as u64 })
        })
    }

    pub(super) fn page_of_objects(
        &self,
        after: Option<Digest>,
        limit: u32,
    ) -> Result<Vec<(Digest, Located)>> {
        let (start, to) = Key::of(Space::Object).range();
        let from = after.map_or(start, |digest| keys::next(&keys::object(&digest)));
        self.read(|view| {
            let page = view.scan(&from, &to, limit as usize)?;
            let decode = |(key, value): &(Vec<u8>, Vec<u8>)| {
                let digest = keys::digest_of(key)
                    .ok_or_else(|| Error::new(Kind::Corrupt, "a key of the object table is cut"))?;
                Ok((digest, decode_object(value)?))
            };
            page.iter().map(decode).collect()
        })
    }

    /// One transaction: a reader finds each object in one of the two packs.
    pub(super) fn relocate_objects(
        &self,
        lease: LeaseId,
        (from, to): (PackId, PackId),
        length_bytes: u64,
        mut moved: Vec<(Digest, u64)>,
    ) -> Result<u64> {
        moved.sort_unstable();
        self.write(Durability::Immediate, |transaction| {
            live_lease(&*transaction, lease, (self.clock)())?;
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
            transaction.put(&keys::purge(from), &[])?;
            counts.store(transaction)?;
            Ok(here.len() as u64)
        })
    }

    pub(super) fn find_pack(&self, id: PackId) -> Result<Option<PackInfo>> {
        let key = keys::pack(id);
        self.read(|view| view.get(&key)?.map(|value| pack_info(&key, &value)).transpose())
    }

    pub(super) fn page_of_packs(&self, after: Option<PackId>, limit: u32) -> Result<Vec<PackInfo>> {
        let (start, to) = Key::of(Space::Pack).range();
        let from = after.map_or(start, |id| keys::next(&keys::pack(id)));
        self.read(|view| {
            let page = view.scan(&from, &to, limit as usize)?;
            page.iter().map(|(key, value)| pack_info(key, value)).collect()
        })
    }

    pub(super) fn count_packs(&self) -> Result<RegistryInfo> {
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

pub(super) fn pack_info(key: &[u8], value: &[u8]) -> Result<PackInfo> {
    let pack: PackRecord = record::decode(value)?;
    let id = keys::pack_of(key)
        .ok_or_else(|| Error::new(Kind::Corrupt, "a key of the pack table is cut"))?;
    Ok(PackInfo {
        id,
        leased: pack.lease.is_some(),
        live_objects: pack.live_objects,
        live_bytes: pack.live_bytes,
        length_bytes: pack.length_bytes,
    })
}

/// The children of `objects` that are neither registered nor among them.
fn missing_children(view: &dyn View, objects: &[NewObject]) -> Result<Vec<Digest>> {
    let mut missing = Vec::new();
    for child in objects.iter().flat_map(|object| &object.children) {
        let here = objects.binary_search_by_key(child, |object| object.digest).is_ok();
        if !here && object(view, child)?.is_none() {
            missing.push(*child);
        }
    }
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// Registers an object with no reference yet; `false` when it was there.
fn insert(
    transaction: &mut dyn Transaction,
    counts: &mut PackCounts,
    id: PackId,
    new: &NewObject,
) -> Result<bool> {
    if object(&*transaction, &new.digest)?.is_some() {
        return Ok(false);
    }
    let extent = Extent { pack: id, offset: new.offset, stored_bytes: new.stored_bytes };
    let NewObject { kind, codec, body_bytes, .. } = *new;
    let located = Located { kind, codec, body_bytes, extent, refs: 0 };
    transaction.put(&keys::object(&new.digest), &encode_object(&located))?;
    let pack = counts.of(&*transaction, id)?;
    pack.live_objects += 1;
    pack.live_bytes += u64::from(new.stored_bytes);
    pack.unreferenced += 1;
    Ok(true)
}

/// Counts the children of the nodes in `added` (both slices are sorted). All were there a moment
/// ago; one that went in between undoes the transaction.
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
                let what = format!("object {child} went while a node that needs it was registered");
                return Err(Error::new(Kind::Conflict, what).hint("try again"));
            }
        }
    }
    Ok(())
}
