//! Garbage: unreachable objects, and the dead bytes of packs.

use super::lease::Lease;
use super::maintenance::finish_interrupted;
use super::reclaim_lock::{self, ReclaimLock};
use super::repository::Repository;
use crate::content::pack::IndexEntry;
use crate::content::store::Store;
use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::counted::counted;
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId, Presence};
use crate::protocol::served::JanitorCall;
use crate::registry::{LeaseId, PackInfo, Registry};

/// The number of unreachable objects read at once.
const COLLECT_BATCH: u32 = 2_000;
/// References released in one transaction, plus at most one node's. The limit bounds how long other
/// writers wait.
const COLLECT_REFERENCES: usize = 5_000;
/// The number of packs read at once.
const RECLAIM_BATCH: u32 = 100;
/// The bytes of a pack read by one request when its live objects are rewritten.
const RUN_BYTES: u64 = 8 << 20;
/// The longest run of dead bytes between live ones that is read, rather than making another
/// request.
const RUN_GAP_BYTES: u64 = 64 << 10;
/// The number of objects of a pack looked up at once.
const LIVE_BATCH: usize = 4_096;
/// The number of objects of the table read at once.
const TABLE_BATCH: u32 = 8_192;

/// The time at which the dead bytes of packs with live objects are freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reclaim {
    /// The time of the call.
    Now,
    /// The next call of [`collect_deferred`](super::gc::collect_deferred). Packs without a live
    /// object are removed at once.
    Later,
}

/// Takes every unreachable object out of the registry, then frees its bytes. It resumes an
/// interrupted deletion. Returns the bytes of the collected objects. In a served repository it does
/// nothing and returns 0, because the server collects garbage whenever a lease ends.
pub fn collect_garbage(repository: &Repository) -> Result<u64> {
    match &repository.janitor {
        Some(_) => Ok(0),
        None => free(repository, Reclaim::Now),
    }
}

/// Collects unreachable objects and reclaims their packs, and repeats that as long as it frees
/// something. An object that dies while its pack is rewritten is found only by the next pass.
/// Returns the bytes of the collected objects.
pub fn free(repository: &Repository, when: Reclaim) -> Result<u64> {
    if let Some(janitor) = &repository.janitor {
        let later = when == Reclaim::Later;
        return Ok(janitor.clean(JanitorCall::Free { later })?.freed_bytes);
    }
    let mut freed = collect_unreachable(repository)?;
    while reclaim_packs(repository, when)? {
        freed += collect_unreachable(repository)?;
    }
    Ok(freed)
}

fn collect_unreachable(repository: &Repository) -> Result<u64> {
    let registry = &repository.registry;
    let mut freed = 0;
    loop {
        let dead = registry.unreachable(COLLECT_BATCH)?;
        if dead.is_empty() {
            return Ok(freed);
        }
        let (mut batch, mut references) = (Vec::with_capacity(dead.len()), 0);
        for (digest, located) in dead {
            let children = match children_of(repository, digest, &located) {
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Stale) => {
                    let now = repository.registry.locate(vec![digest])?.pop().flatten();
                    if now.is_none_or(|now| now.extent != located.extent) {
                        // Another process collected it since it was listed. If it came back, it is
                        // listed again.
                        continue;
                    }
                    // Its children keep a count that is one too high, which only fsck can repair.
                    // The dead node itself must not stop everything else from being freed.
                    tracing::warn!(%digest, "an unreachable node cannot be read; a repair mends this: {e}");
                    Vec::new()
                }
                children => children?,
            };
            references += children.len();
            batch.push((digest, children));
            if references >= COLLECT_REFERENCES {
                freed += registry.collect(std::mem::take(&mut batch))?;
                references = 0;
            }
        }
        freed += registry.collect(batch)?;
    }
}

/// Returns the objects that count a reference from this one.
fn children_of(repository: &Repository, digest: Digest, located: &Located) -> Result<Vec<Digest>> {
    match located.presence {
        Presence::AbsentUncounted => Ok(Vec::new()),
        _ => repository.reader.children(digest, located.kind),
    }
}

/// The failures to free packs: none stops the others, and all are reported at the end.
#[derive(Default)]
pub(super) struct Failures {
    packs: u64,
    first: Option<Error>,
}

impl Failures {
    /// Records the error of one pack. Returns the value of `done`, or `false` for an error.
    pub(super) fn note(&mut self, pack: PackId, done: Result<bool>) -> bool {
        done.unwrap_or_else(|e| {
            tracing::warn!(%pack, "the dead bytes of the pack are not freed yet: {e}");
            self.packs += 1;
            self.first.get_or_insert(e);
            false
        })
    }

    pub(super) fn into_result(self) -> Result<()> {
        let Some(first) = self.first else { return Ok(()) };
        let (packs, kind) = (self.packs, first.kind());
        let what = format!(
            "dead bytes of {} could not be freed: {}",
            counted(packs, "pack"),
            first.message()
        );
        let hint = first.hints().first().cloned().unwrap_or(DamageHint::CollectGarbage.into());
        Err(Error::new(kind, what).hint(hint).because(first))
    }
}

/// Removes packs without a live object, and frees or defers the dead bytes of the others. Returns
/// whether anything was freed.
fn reclaim_packs(repository: &Repository, when: Reclaim) -> Result<bool> {
    // Usually there are none; then the lock is not needed.
    if repository.registry.reclaimable(None, 1, false)?.is_empty() {
        return Ok(false);
    }
    let (mut failures, mut freed) = (Failures::default(), false);
    let _lock = lock_out_maintenance(repository)?;
    each_reclaimable(repository, false, &mut |pack, mark| {
        if when == Reclaim::Later && pack.live_objects > 0 {
            return repository.registry.defer_reclaim(pack.id, mark);
        }
        freed |= failures.note(pack.id, reclaim_pack(repository, pack, mark));
        Ok(())
    })?;
    if freed { Ok(true) } else { failures.into_result().map(|()| false) }
}

/// A lock or a lease. Maintenance does not begin while it is held.
pub(super) enum Lockout {
    /// The lock of this host.
    Here { _lock: ReclaimLock },
    /// A lease; `None` once it was released.
    Shared(Option<Lease>),
}

impl Drop for Lockout {
    fn drop(&mut self) {
        if let Self::Shared(lease) = self
            && let Some(Err(e)) = lease.take().map(Lease::release)
        {
            tracing::warn!("a lease could not be ended: {e}");
        }
    }
}

/// Keeps maintenance from beginning while the result is held.
///
/// # Errors
/// [`Kind::Conflict`] while another process does maintenance.
pub(super) fn lock_out_maintenance(repository: &Repository) -> Result<Lockout> {
    if repository.is_shared() {
        let purpose = "free the bytes of deleted versions".to_owned();
        let lease = Lease::begin(repository, None, purpose)?;
        return Ok(Lockout::Shared(Some(lease)));
    }
    let lock = reclaim_lock::share(repository)?;
    finish_interrupted(repository)?;
    Ok(Lockout::Here { _lock: lock })
}

/// Calls `each` with every pack that may be reclaimed and the number of its mark. `deferred` adds
/// packs whose dead bytes were put off. The caller has the reclaim lock.
pub(super) fn each_reclaimable(
    repository: &Repository,
    deferred: bool,
    each: &mut dyn FnMut(&PackInfo, u64) -> Result<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = repository.registry.reclaimable(after, RECLAIM_BATCH, deferred)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.id);
        page.iter().try_for_each(|(pack, mark)| each(pack, *mark))?;
    }
}

/// Frees the dead bytes of a pack. Returns `false` if another process does so.
pub(super) fn reclaim_pack(repository: &Repository, pack: &PackInfo, mark: u64) -> Result<bool> {
    let (store, registry) = (&repository.store, &repository.registry);
    if pack.live_objects == 0 {
        store.remove(pack.id)?;
        registry.reclaimed(pack.id, 0, mark)?;
        return Ok(true);
    }
    if store.is_remote() {
        return rewrite_if_unclaimed(repository, pack.id);
    }
    let length = match store.pack_length(pack.id) {
        Err(e) if e.kind() == Kind::NotFound => return missing(repository, pack.id, mark),
        length => length?,
    };
    let (alive, all) = living(repository, pack.id)?;
    if alive.len() < all {
        store.write_index(pack.id, &alive)?;
        // Another process may have seen the last object die and removed the pack meanwhile.
        if store.pack_length(pack.id).is_err_and(|e| e.kind() == Kind::NotFound) {
            store.remove(pack.id)?;
            return Ok(false);
        }
    }
    let extents: Vec<_> = alive.iter().map(|e| (e.offset, u64::from(e.stored_bytes))).collect();
    store.punch(pack.id, &gaps(&extents, length))?;
    registry.reclaimed(pack.id, length, mark)?;
    Ok(true)
}

/// Settles a pack that is not in the store. Either another process saw its last object die and
/// removed it, or it is lost; then it has nothing to be freed.
fn missing(repository: &Repository, id: PackId, mark: u64) -> Result<bool> {
    let registry = &repository.registry;
    match registry.pack(id)? {
        None => return Ok(false),
        Some(pack) if pack.live_objects == 0 => {}
        Some(pack) => {
            let objects = pack.live_objects;
            tracing::warn!(%id, "the pack is missing with {}; run verify", counted(objects, "object"));
        }
    }
    registry.reclaimed(id, 0, mark)?;
    Ok(true)
}

/// Returns the live objects of a pack, in the order of their offsets, and how many objects its
/// index names. The object table stands in for an index that is damaged or lost; the number is then
/// `usize::MAX`.
fn living(repository: &Repository, id: PackId) -> Result<(Vec<IndexEntry>, usize)> {
    let entries = match repository.store.read_index(id) {
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => {
            tracing::warn!(pack = %id, "the index of the pack is made from the registry: {e}");
            return Ok((from_table(repository, id)?, usize::MAX));
        }
        entries => entries?,
    };
    let mut alive = Vec::with_capacity(entries.len());
    for batch in entries.chunks(LIVE_BATCH) {
        let digests = batch.iter().map(|entry| entry.digest).collect();
        let live = repository.registry.live_in(id, digests)?;
        alive.extend(batch.iter().zip(live).filter(|(_, live)| *live).map(|(entry, _)| *entry));
    }
    let known = repository.registry.pack(id)?.map_or(0, |pack| pack.live_objects);
    if (alive.len() as u64) < known {
        tracing::warn!(pack = %id, "the index of the pack does not name all its live objects");
        return Ok((from_table(repository, id)?, usize::MAX));
    }
    Ok((alive, entries.len()))
}

/// Returns the objects of a pack by reading the whole object table.
fn from_table(repository: &Repository, id: PackId) -> Result<Vec<IndexEntry>> {
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let page = repository.registry.scan_objects(after, TABLE_BATCH)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        let here = page.iter().filter(|(_, located)| located.extent.pack == id);
        entries.extend(here.map(|(digest, located)| IndexEntry {
            digest: *digest,
            offset: located.extent.offset,
            stored_bytes: located.extent.stored_bytes,
            body_bytes: located.body_bytes,
            kind: located.kind,
            codec: located.codec,
        }));
    }
    entries.sort_unstable_by_key(|entry| entry.offset);
    Ok(entries)
}

/// Moves the live objects of a remote pack to a new one, unless another process is doing so.
fn rewrite_if_unclaimed(repository: &Repository, old: PackId) -> Result<bool> {
    let project = repository.registry.project_of_zone(old.zone())?;
    let lease = Lease::begin(repository, project.as_ref(), format!("rewrite pack {old}"))?;
    let done = match repository.registry.claim_reclaim(lease.id(), old) {
        Ok(Some(mark)) => rewrite(repository, lease.id(), old, mark),
        Ok(None) => Ok(false),
        Err(e) => Err(e),
    };
    lease.release()?;
    done
}

/// Moves the live objects of a remote pack to a new one, and removes the old. If it is interrupted,
/// the new pack goes with its lease, or the old one is found empty.
fn rewrite(repository: &Repository, lease: LeaseId, old: PackId, mark: u64) -> Result<bool> {
    let (store, registry) = (&repository.store, &repository.registry);
    if registry.pack(old)?.is_none_or(|pack| pack.live_objects == 0) {
        store.remove(old)?;
        registry.reclaimed(old, 0, mark)?;
        return Ok(true);
    }
    let (alive, _) = living(repository, old)?;
    let new = PackId::new(repository.host.random(), lease.zone());
    registry.register_pack(lease, new)?;
    let mut writer = store.create(new)?;
    let mut entries = Vec::with_capacity(alive.len());
    for run in runs(&alive) {
        let (start, end) = span(run);
        let bytes = match store.read_raw(old, start, (end - start) as usize) {
            Err(e) if e.kind() == Kind::NotFound => return missing(repository, old, mark),
            bytes => bytes?,
        };
        for entry in run {
            let at = (entry.offset - start) as usize;
            let object = &bytes[at..at + entry.stored_bytes as usize];
            entries.push(IndexEntry { offset: writer.append(object)?, ..*entry });
        }
    }
    let length = writer.finish()?;
    store.write_index(new, &entries)?;
    let moved = entries.iter().map(|entry| (entry.digest, entry.offset)).collect();
    if let Err(e) = registry.relocate(lease, old, new, length, moved) {
        disown(&**registry, store, new);
        return Err(e);
    }
    if registry.pack(old)?.is_some_and(|pack| pack.live_objects > 0) {
        let what = format!("pack {old} holds objects that its index does not name");
        return Err(Error::new(Kind::Corrupt, what).hint(DamageHint::Check));
    }
    store.remove(old)?;
    registry.reclaimed(old, 0, mark)?;
    Ok(true)
}

/// Removes a pack that this process wrote and could not register, if nothing can ever need it. That
/// is so if the lease it was written under has ended meanwhile.
pub(super) fn disown(registry: &dyn Registry, store: &Store, id: PackId) {
    let given_up = |pack: &Option<PackInfo>| {
        pack.as_ref().is_none_or(|pack| !pack.leased && pack.live_objects == 0)
    };
    let removed = match registry.pack(id) {
        Ok(pack) if given_up(&pack) => store.remove(id),
        Ok(_) => Ok(()),
        Err(e) => Err(e),
    };
    if let Err(e) = removed {
        tracing::warn!(pack = %id, "a pack that nobody needs is left in the store: {e}");
    }
}

/// Returns the offset of the first byte of a run, and the offset behind its last.
pub(super) fn span(run: &[IndexEntry]) -> (u64, u64) {
    let end = |entry: &IndexEntry| entry.offset + u64::from(entry.stored_bytes);
    (run.first().map_or(0, |entry| entry.offset), run.last().map_or(0, end))
}

/// Splits entries into runs, each to be read by one request: none much longer than [`RUN_BYTES`],
/// with gaps of at most [`RUN_GAP_BYTES`].
pub(super) fn runs(entries: &[IndexEntry]) -> impl Iterator<Item = &[IndexEntry]> {
    let mut start = entries.first().map_or(0, |entry| entry.offset);
    entries.chunk_by(move |a, b| {
        let end = a.offset + u64::from(a.stored_bytes);
        let together = b.offset - end <= RUN_GAP_BYTES && end - start <= RUN_BYTES;
        if !together {
            start = b.offset;
        }
        together
    })
}

/// Returns the gaps (offset, length) between `extents` (offset, length; ascending, disjoint) up to
/// `end`.
fn gaps(extents: &[(u64, u64)], end: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut at = 0;
    for &(offset, length) in extents.iter().chain([&(end, 0)]) {
        if offset > at {
            gaps.push((at, offset - at));
        }
        at = at.max(offset + length);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_left_between() {
        assert_eq!(gaps(&[], 10), [(0, 10)]);
        assert_eq!(gaps(&[(0, 10)], 10), []);
        assert_eq!(gaps(&[(2, 3), (5, 1), (8, 1)], 10), [(0, 2), (6, 2), (9, 1)]);
    }
}
