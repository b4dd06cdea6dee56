//! Garbage: unreachable objects are collected, then the bytes of packs are reclaimed.
//!
//! A count that reaches zero marks its object unreachable; `collect` removes such objects from the
//! table, and one reference from each of their children. Packs that lost objects wait to be
//! reclaimed. Each step is one transaction; the next process continues where an interrupted
//! deletion stopped.

use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId};
use crate::registry::engine::{Durability, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::live::{is_live, live_lease};
use crate::registry::objects::table::{PackCounts, drop_reference, object, pack_info, remove};
use crate::registry::objects::wants::{want_fates, want_objects};
use crate::registry::record::{self, PackRecord};
use crate::registry::upkeep::check::is_held;
use crate::registry::upkeep::reclaim_mark::{
    Mark, OLD_DEFERRED, forget_marks, mark, mark_reclaimable,
};
use crate::registry::{LeaseId, PackInfo};

/// The number of marks in one read.
const PAGE: usize = 1_000;

impl EngineRegistry {
    pub(in crate::registry) fn unreachable(&self, limit: u32) -> Result<Vec<(Digest, Located)>> {
        let (from, to) = Key::of(Space::Unreachable).range();
        self.write(Durability::Eventual, |transaction| {
            let mut dead = Vec::new();
            let marked = transaction.scan(&from, &to, limit as usize)?;
            let digests: Vec<_> =
                marked.iter().filter_map(|(key, _)| keys::digest_of(key)).collect();
            want_objects(&*transaction, &digests)?;
            for (key, _) in marked {
                let digest = keys::digest_of(&key);
                match digest.map(|digest| object(&*transaction, &digest)).transpose()?.flatten() {
                    Some(located) => dead.extend(digest.map(|digest| (digest, located))),
                    None => transaction.delete(&key)?,
                }
            }
            Ok(dead)
        })
    }

    pub(in crate::registry) fn collect(&self, objects: &[(Digest, Vec<Digest>)]) -> Result<u64> {
        self.write(Durability::Immediate, |transaction| {
            let children = objects.iter().flat_map(|(_, children)| children);
            let digests: Vec<_> =
                objects.iter().map(|(digest, _)| digest).chain(children).copied().collect();
            want_fates(&*transaction, &digests)?;
            let mut counts = PackCounts::default();
            let mut freed = 0;
            for (digest, children) in objects {
                let known_dead = transaction.get(&keys::unreachable(digest))?.is_some();
                transaction.delete(&keys::unreachable(digest))?;
                let Some(located) = object(&*transaction, digest)? else {
                    continue;
                };
                // Since it was marked, a writer may have pinned the object, referred to it, or
                // stored it again.
                let held =
                    located.refs > 0 || is_held(&*transaction, &mut counts.pins, digest, &located)?;
                if !known_dead || held {
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

    pub(in crate::registry) fn reclaimable(
        &self,
        after: Option<PackId>,
        limit: u32,
        deferred: bool,
    ) -> Result<Vec<(PackInfo, u64)>> {
        self.read(|view| {
            let (mut found, mut after) = (Vec::new(), after);
            loop {
                let mut page = marked(view, Space::Reclaimable, after)?;
                if deferred {
                    page.extend(marked(view, Space::Deferred, after)?);
                    page.sort_unstable_by_key(|(id, _)| *id);
                }
                page.truncate(PAGE);
                let Some((last, _)) = page.last() else { return Ok(found) };
                after = Some(*last);
                for (id, value) in page {
                    found.extend(may_reclaim(view, id, &value, deferred)?);
                    if found.len() >= limit as usize {
                        return Ok(found);
                    }
                }
            }
        })
    }

    pub(in crate::registry) fn defer_reclaim(&self, id: PackId, number: u64) -> Result<()> {
        self.write(Durability::Immediate, |transaction| match mark(&*transaction, id)? {
            Some(mark) if mark.number == number => {
                transaction.delete(&keys::reclaimable(id))?;
                transaction.put(&keys::deferred(id), &[])
            }
            _ => Ok(()),
        })
    }

    pub(in crate::registry) fn claim_reclaim(
        &self,
        lease: LeaseId,
        id: PackId,
    ) -> Result<Option<u64>> {
        self.write(Durability::Immediate, |transaction| {
            live_lease(&*transaction, lease)?;
            if mark(&*transaction, id)?.is_none() {
                if transaction.get(&keys::deferred(id))?.is_none() {
                    return Ok(None);
                }
                mark_reclaimable(transaction, id)?;
            }
            let Some(mut mark) = mark(&*transaction, id)? else { return Ok(None) };
            if mark.claim != lease.0 && is_live(&*transaction, mark.claim)? {
                return Ok(None);
            }
            mark.claim = lease.0;
            transaction.put(&keys::reclaimable(id), &mark.encode())?;
            Ok(Some(mark.number))
        })
    }

    pub(in crate::registry) fn reclaimed(
        &self,
        id: PackId,
        length_bytes: u64,
        number: u64,
    ) -> Result<()> {
        self.write(Durability::Eventual, |transaction| {
            let Some(bytes) = transaction.get(&keys::pack(id))? else {
                return forget_marks(transaction, id);
            };
            let mut pack: PackRecord = record::decode(&bytes)?;
            if length_bytes == 0 && pack.live_objects == 0 {
                forget_marks(transaction, id)?;
                return transaction.delete(&keys::pack(id));
            }
            // A new number means that bytes died since the mark was read: they are still to be
            // freed.
            if mark(&*transaction, id)?.is_none_or(|mark| mark.number == number) {
                forget_marks(transaction, id)?;
            }
            if length_bytes > 0 {
                pack.length_bytes = length_bytes;
            }
            transaction.put(&keys::pack(id), &record::encode(&pack))
        })
    }
}

/// Returns the next marks after a pack, at most [`PAGE`].
fn marked(view: &dyn View, space: Space, after: Option<PackId>) -> Result<Vec<(PackId, Vec<u8>)>> {
    let (start, to) = Key::of(space).range();
    let from = after.map_or(start, |id| keys::next(&Key::of(space).fixed(&id.0).done()));
    let page = view.scan(&from, &to, PAGE)?.into_iter();
    Ok(page.filter_map(|(key, value)| Some((keys::pack_of(&key)?, value))).collect())
}

/// Returns a marked pack and the number of its mark, if it may be reclaimed now.
fn may_reclaim(
    view: &dyn View,
    id: PackId,
    value: &[u8],
    deferred: bool,
) -> Result<Option<(PackInfo, u64)>> {
    let key = keys::pack(id);
    let Some(bytes) = view.get(&key)? else { return Ok(None) };
    let (pack, mark) = (pack_info(&key, &bytes)?, Mark::decode(value));
    let waits = value == OLD_DEFERRED && !deferred && pack.live_objects > 0;
    if pack.leased || waits || (mark.claim > 0 && is_live(view, mark.claim)?) {
        return Ok(None);
    }
    Ok(Some((pack, mark.number)))
}
