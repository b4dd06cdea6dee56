//! Rebuilds of the object table from the store's indexes.
//!
//! ```text
//! 1  read and check every index; nothing is changed before all are read
//! 2  put what they name into a table beside the one in use; the old table says which of two places
//!    is the good one, and what was in packs whose index is damaged
//! 3  count references there
//! 4  put what is needed and nowhere named as absent, with its count
//! 5  swap the tables; write damaged indexes again
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::check::FIX_BATCH;
use super::counting::{Counting, Pass};
use super::indexes::write_indexes;
use super::packs::refuse_absent_store;
use super::table::{FreshTable, LiveTable, PAGE, RebuiltTable, Table, is_damage};
use crate::content::pack::IndexEntry;
use crate::error::{Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, PackId, Presence};
use crate::model::object_kind::ObjectKind;
use crate::ops::maintenance::{self, Held};
use crate::ops::repository::Repository;
use crate::registry::{PackInfo, Rebuilt};

/// Makes a new table and swaps it in. Returns whether everything that is needed was found and could
/// be read.
///
/// # Errors
/// An error before the swap leaves the table in use as it was.
pub(super) fn rebuild(repository: &Repository, held: &Held<'_>) -> Result<bool> {
    let registry = &repository.registry;
    let packs = survey(repository)?;
    registry.begin_rebuild(held.holder.clone())?;
    let mut work = Work { repository, holder: &held.holder, batch: Vec::new(), packs };
    work.place_named()?;
    work.place_remembered()?;
    let objects = work.objects()?;
    let whole = work.count(objects)?;
    work.place_packs()?;
    let damaged = work.packs.damaged;
    maintenance::swap(&**registry, &held.holder)?;
    write_indexes(repository, &damaged)?;
    Ok(whole)
}

/// The packs of the store, and those of the registry.
struct Packs {
    /// The length of each pack whose index could be read.
    readable: BTreeMap<PackId, u64>,
    /// The length of each pack whose index is damaged or missing.
    remembered: BTreeMap<PackId, u64>,
    /// The packs whose indexes must be replaced.
    damaged: BTreeSet<PackId>,
    /// The packs of the registry.
    known: BTreeMap<PackId, PackInfo>,
}

/// Reads and checks every index.
fn survey(repository: &Repository) -> Result<Packs> {
    let mut known = BTreeMap::new();
    let mut after = None;
    loop {
        let page = repository.registry.scan_packs(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        known.extend(page.into_iter().map(|pack| (pack.id, pack)));
    }
    let (readable, remembered) = (BTreeMap::new(), BTreeMap::new());
    let mut packs = Packs { readable, remembered, damaged: BTreeSet::new(), known };
    let mut present = 0;
    for id in repository.store.list()? {
        let length = match repository.store.pack_length(id) {
            // It was removed meanwhile, by a deletion that ended before the mark was set.
            Err(e) if e.kind() == Kind::NotFound => continue,
            length => length?,
        };
        let with_content = packs.known.get(&id).is_some_and(|pack| pack.live_objects > 0);
        present += u64::from(with_content);
        match repository.store.read_index(id) {
            Ok(_) => {
                packs.readable.insert(id, length);
            }
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => {
                tracing::warn!(pack = %id, "the table stands in for its index: {e}");
                packs.remembered.insert(id, length);
                if with_content {
                    packs.damaged.insert(id);
                }
            }
            Err(e) => return Err(e),
        }
    }
    let with_content = packs.known.values().filter(|pack| pack.live_objects > 0).count();
    refuse_absent_store(present, with_content)?;
    Ok(packs)
}

struct Work<'a> {
    repository: &'a Repository,
    holder: &'a str,
    batch: Vec<Rebuilt>,
    packs: Packs,
}

/// Returns the rank of a place for an object. The place in the old table has 2, or 0 if the object
/// is absent there. Any other has 1.
fn rank(place: &Located, old: Option<&Located>) -> u8 {
    match old {
        Some(old) if old.extent == place.extent => {
            if old.is_absent() {
                0
            } else {
                2
            }
        }
        _ => 1,
    }
}

impl Work<'_> {
    fn put(&mut self, digest: Digest, located: Option<Located>) -> Result<()> {
        self.batch.push((digest, located));
        if self.batch.len() >= FIX_BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.repository.registry.put_rebuilt(self.holder.to_owned(), batch, Vec::new())
    }

    /// Puts the objects that the indexes name.
    fn place_named(&mut self) -> Result<()> {
        let readable: Vec<(PackId, u64)> =
            self.packs.readable.iter().map(|(id, length)| (*id, *length)).collect();
        for (id, length) in readable {
            // All were read before anything was changed. One that cannot be read now ends the
            // rebuild, and the old table stays.
            let entries = self.repository.store.read_index(id)?;
            for some in entries.chunks(FIX_BATCH) {
                let places = some.iter().filter_map(|entry| locate_entry(id, length, entry));
                self.put_objects(places.collect())?;
            }
        }
        self.flush()
    }

    /// Puts the objects that the old table has in packs whose index cannot be read.
    fn place_remembered(&mut self) -> Result<()> {
        let remembered = &self.packs.remembered;
        let (mut found, mut batches) = (Vec::new(), Vec::new());
        LiveTable(self.repository).each(&mut |digest, located| {
            let end = located.extent.offset + u64::from(located.extent.stored_bytes);
            if remembered.get(&located.extent.pack).is_some_and(|length| end <= *length) {
                found.push((digest, located));
                if found.len() >= FIX_BATCH {
                    batches.push(std::mem::take(&mut found));
                }
            }
            Ok(())
        })?;
        batches.push(found);
        for batch in batches {
            self.put_objects(batch)?;
        }
        self.flush()
    }

    /// Puts objects at these places, unless the new table has them in a place that is as good.
    fn put_objects(&mut self, places: Vec<(Digest, Located)>) -> Result<()> {
        let registry = &self.repository.registry;
        self.repository.registry.put_rebuilt(
            self.holder.to_owned(),
            std::mem::take(&mut self.batch),
            Vec::new(),
        )?;
        let digests: Vec<Digest> = places.iter().map(|(digest, _)| *digest).collect();
        let old = registry.locate(digests.clone())?;
        let new = registry.locate_rebuilt(digests)?;
        for (((digest, place), old), new) in places.into_iter().zip(old).zip(new) {
            let rank_here = rank(&place, old.as_ref());
            if new.is_some_and(|new| rank(&new, old.as_ref()) >= rank_here) {
                continue;
            }
            let presence = match (rank_here, old) {
                (0, Some(old)) => old.presence,
                _ => Presence::Present,
            };
            self.put(digest, Some(Located { refs: 0, presence, ..place }))?;
        }
        Ok(())
    }

    fn objects(&self) -> Result<u64> {
        let mut objects = 0;
        RebuiltTable(self.repository).each(&mut |_, _| {
            objects += 1;
            Ok(())
        })?;
        Ok(objects)
    }

    /// Counts references. Returns whether all nodes could be read and all objects were found.
    fn count(&mut self, objects: u64) -> Result<bool> {
        let table = RebuiltTable(self.repository);
        let mut counting = Counting::new(self.repository, &table, objects);
        let mut whole = true;
        while let Some(mut pass) = counting.next_pass()? {
            let mut counted = Vec::new();
            table.each(&mut |digest, located| {
                if pass.mine(&digest) {
                    let refs = pass.counts.remove(&digest).unwrap_or_default();
                    whole &= !located.is_absent() || refs == 0;
                    counted.push((digest, refs));
                    if counted.len() >= FIX_BATCH {
                        self.set_counts(std::mem::take(&mut counted))?;
                    }
                }
                Ok(())
            })?;
            self.set_counts(counted)?;
            whole &= pass.counts.is_empty();
            self.place_lost(pass.counts.into_iter().collect())?;
        }
        let mut unreadable: BTreeSet<Digest> = counting.unreadable.keys().copied().collect();
        let garbage = match counting.is_incomplete() {
            true => BTreeSet::new(),
            false => self.garbage(&unreadable)?,
        };
        unreadable.retain(|digest| !garbage.contains(digest));
        let readable = unreadable.is_empty();
        self.doubt(unreadable.into_iter().collect())?;
        // An object that only garbage refers to need not be there.
        let whole = readable && (whole || self.nothing_needed_is_lost(&garbage)?);
        match whole {
            // Garbage of a known pack is dead; another repository may own that of an unknown pack.
            true => garbage.into_iter().try_for_each(|digest| self.put(digest, None))?,
            false => {
                self.set_aside(&garbage)?;
                self.keep_old_objects()?;
                self.keep_old_counts(objects)?;
            }
        }
        self.flush()?;
        Ok(whole)
    }

    /// Returns the objects that the old table does not have, and that only others of their kind
    /// refer to. No count includes their references any more.
    fn garbage(&mut self, unreadable: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
        let mut dead = Vec::new();
        FreshTable(self.repository).each(&mut |digest, located| {
            if located.refs == 0 {
                dead.push((digest, located));
            }
            Ok(())
        })?;
        let mut all = BTreeSet::new();
        while !dead.is_empty() {
            let mut fewer: BTreeMap<Digest, u64> = BTreeMap::new();
            for (digest, located) in dead {
                all.insert(digest);
                let counted = !located.is_absent() && !unreadable.contains(&digest);
                if !counted || located.kind == ObjectKind::Chunk {
                    continue;
                }
                match RebuiltTable(self.repository).children(digest, &located) {
                    // Its references stay counted.
                    Err(e) if is_damage(&e) => {}
                    children => {
                        children?
                            .into_iter()
                            .for_each(|child| *fewer.entry(child).or_default() += 1);
                    }
                }
            }
            dead = Vec::new();
            for some in fewer.into_iter().collect::<Vec<_>>().chunks(FIX_BATCH) {
                let lowered = self.lower(some)?;
                dead.append(&mut FreshTable(self.repository).select(lowered)?);
            }
        }
        Ok(all)
    }

    /// Keeps objects that seem to be garbage, since an unreadable node may point at them, but not
    /// their references. A repair revives those that turn out to be needed.
    fn set_aside(&mut self, garbage: &BTreeSet<Digest>) -> Result<()> {
        let garbage: Vec<Digest> = garbage.iter().copied().collect();
        for some in garbage.chunks(FIX_BATCH) {
            let found = self.repository.registry.locate_rebuilt(some.to_vec())?;
            for (digest, found) in some.iter().zip(found) {
                let kept = found.filter(|found| found.extent.pack != PackId::NONE);
                let presence = Presence::AbsentUncounted;
                self.put(*digest, kept.map(|kept| Located { refs: 1, presence, ..kept }))?;
            }
        }
        self.flush()
    }

    fn nothing_needed_is_lost(&self, garbage: &BTreeSet<Digest>) -> Result<bool> {
        let mut lost = false;
        RebuiltTable(self.repository).each(&mut |digest, located| {
            lost |= located.is_absent() && located.refs > 0 && !garbage.contains(&digest);
            Ok(())
        })?;
        Ok(!lost)
    }

    /// Lowers counts. Returns the objects whose count is now 0.
    fn lower(&mut self, fewer: &[(Digest, u64)]) -> Result<Vec<(Digest, Located)>> {
        let mut unneeded = Vec::new();
        let digests = fewer.iter().map(|(digest, _)| *digest).collect();
        let found = self.repository.registry.locate_rebuilt(digests)?;
        for ((digest, fewer), found) in fewer.iter().zip(found) {
            let Some(found) = found else { continue };
            let located = Located { refs: found.refs.saturating_sub(*fewer), ..found };
            self.put(*digest, Some(located))?;
            if located.refs == 0 {
                unneeded.push((*digest, located));
            }
        }
        self.flush()?;
        Ok(unneeded)
    }

    fn set_counts(&mut self, counted: Vec<(Digest, u64)>) -> Result<()> {
        let digests = counted.iter().map(|(digest, _)| *digest).collect();
        let found = self.repository.registry.locate_rebuilt(digests)?;
        for ((digest, refs), found) in counted.into_iter().zip(found) {
            let Some(found) = found else { continue };
            self.put(digest, Some(Located { refs, ..found }))?;
        }
        self.flush()
    }

    /// Puts objects that are needed and in no pack as absent, at their place in the old table if
    /// they have one.
    fn place_lost(&mut self, lost: Vec<(Digest, u64)>) -> Result<()> {
        for some in lost.chunks(FIX_BATCH) {
            let old = self.repository.registry.locate(some.iter().map(|(d, _)| *d).collect())?;
            for ((digest, refs), old) in some.iter().zip(old) {
                let located = match old {
                    Some(old) => Located { refs: *refs, presence: absent(&old), ..old },
                    None => Located::lost(*refs),
                };
                self.put(*digest, Some(located))?;
            }
        }
        self.flush()
    }

    /// Marks nodes that are named and cannot be read as absent.
    fn doubt(&mut self, unreadable: Vec<Digest>) -> Result<()> {
        for some in unreadable.chunks(FIX_BATCH) {
            let old = self.repository.registry.locate(some.to_vec())?;
            let new = self.repository.registry.locate_rebuilt(some.to_vec())?;
            for ((digest, old), new) in some.iter().zip(old).zip(new) {
                let Some(new) = new else { continue };
                let presence = old.map_or(Presence::AbsentUncounted, |old| absent(&old));
                self.put(*digest, Some(Located { presence, ..new }))?;
            }
        }
        self.flush()
    }

    /// Keeps the objects that the old table has in missing packs, since an unreadable node may point
    /// at them. Their children are still counted.
    fn keep_old_objects(&mut self) -> Result<()> {
        let repository = self.repository;
        let mut page = Vec::new();
        LiveTable(repository).each(&mut |digest, located| {
            if located.extent.pack != PackId::NONE {
                page.push((digest, located));
            }
            if page.len() >= FIX_BATCH { self.keep(std::mem::take(&mut page)) } else { Ok(()) }
        })?;
        self.keep(page)
    }

    fn keep(&mut self, old: Vec<(Digest, Located)>) -> Result<()> {
        let digests = old.iter().map(|(digest, _)| *digest).collect();
        let new = self.repository.registry.locate_rebuilt(digests)?;
        for ((digest, old), _) in old.into_iter().zip(new).filter(|(_, new)| new.is_none()) {
            self.put(digest, Some(Located { presence: absent(&old), ..old }))?;
        }
        self.flush()
    }

    /// Keeps counts from being lower than they were, and objects that only the indexes name from
    /// being unreachable. While a node cannot be read, what it points at is not known. The old
    /// counts include its references, but not those of nodes that the old table did not have.
    fn keep_old_counts(&mut self, objects: u64) -> Result<()> {
        let repository = self.repository;
        let fresh = FreshTable(repository);
        let mut counting = Counting::new(repository, &fresh, objects).of_nodes();
        while let Some(pass) = counting.next_pass()? {
            let mut page = Vec::new();
            RebuiltTable(repository).each(&mut |digest, located| {
                if pass.mine(&digest) {
                    page.push((digest, located));
                    if page.len() >= FIX_BATCH {
                        self.raise(std::mem::take(&mut page), &pass)?;
                    }
                }
                Ok(())
            })?;
            self.raise(page, &pass)?;
        }
        Ok(())
    }

    fn raise(&mut self, objects: Vec<(Digest, Located)>, fresh: &Pass) -> Result<()> {
        let old = self.repository.registry.locate(objects.iter().map(|(d, _)| *d).collect())?;
        for ((digest, located), old) in objects.into_iter().zip(old) {
            let more = fresh.counts.get(&digest).copied().unwrap_or_default();
            let at_least = old.map_or(more.max(1), |old| old.refs.saturating_add(more));
            if at_least > located.refs {
                self.put(digest, Some(Located { refs: at_least, ..located }))?;
            }
        }
        self.flush()
    }

    /// Puts the records of known packs, and of others that hold something.
    fn place_packs(&mut self) -> Result<()> {
        let mut sums: BTreeMap<PackId, (u64, u64)> = BTreeMap::new();
        RebuiltTable(self.repository).each(&mut |_, located| {
            if located.extent.pack != PackId::NONE {
                let sum = sums.entry(located.extent.pack).or_default();
                sum.0 += 1;
                sum.1 += u64::from(located.extent.stored_bytes);
            }
            Ok(())
        })?;
        let Packs { readable, remembered, known, .. } = &self.packs;
        let length = |id: &PackId| readable.get(id).or_else(|| remembered.get(id)).copied();
        // A missing pack without objects keeps its record, so that its index is removed later.
        for id in known.keys() {
            sums.entry(*id).or_default();
        }
        let infos = sums.into_iter().map(|(id, (live_objects, live_bytes))| {
            let old = known.get(&id);
            PackInfo {
                id,
                leased: old.is_some_and(|pack| pack.leased),
                live_objects,
                live_bytes,
                length_bytes: length(&id)
                    .unwrap_or_else(|| old.map_or(live_bytes, |pack| pack.length_bytes)),
            }
        });
        let infos: Vec<PackInfo> = infos.collect();
        for some in infos.chunks(FIX_BATCH) {
            self.repository.registry.put_rebuilt(
                self.holder.to_owned(),
                Vec::new(),
                some.to_vec(),
            )?;
        }
        Ok(())
    }
}

/// Returns the object that an entry names, if it lies within the pack.
fn locate_entry(pack: PackId, length: u64, entry: &IndexEntry) -> Option<(Digest, Located)> {
    let IndexEntry { digest, offset, stored_bytes, body_bytes, kind, codec } = *entry;
    let extent = Extent { pack, offset, stored_bytes };
    let presence = Presence::Present;
    let located = Located { kind, codec, body_bytes, extent, refs: 0, presence };
    (offset + u64::from(stored_bytes) <= length).then_some((digest, located))
}

/// Returns the presence of an object that was in the old table and is not good any more.
fn absent(old: &Located) -> Presence {
    match old.presence {
        Presence::Present => Presence::Absent,
        absent => absent,
    }
}
