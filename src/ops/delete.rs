//! Deleting versions, and freeing the bytes that died.

use super::repository::Repository;
use crate::content::pack::IndexEntry;
use crate::error::{Error, Kind, Result};
use crate::model::object::PackId;
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;
use crate::registry::PackInfo;

/// Dead objects taken out in one transaction.
const BURY_BATCH: u32 = 2_000;
/// Packs asked for at once.
const PURGE_BATCH: u32 = 100;
/// Bytes of a pack read by one request when it is written anew.
const RUN_BYTES: u64 = 8 << 20;
/// Dead bytes that are read with living ones on both sides, rather than making another request.
const RUN_GAP_BYTES: u64 = 64 << 10;
/// Objects of one pack asked about at once.
const LIVE_BATCH: usize = 4_096;

/// When the dead bytes of packs that hold living ones go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// At once.
    Now,
    /// When [`collect`] is called; packs without a living object go at once.
    Later,
}

/// Deletes a version and frees exactly what only it had. When this returns, and nothing was put off, no
/// byte that nothing else needs is left in the store. Returns the version and the bytes that died.
///
/// # Errors
/// [`Kind::Conflict`] when it has aliases and `delete_aliases` is not set, or a protected one. After any other
/// error the version may be gone already; the bytes then go with the next call of [`reap`].
pub fn delete(
    repository: &Repository,
    reference: &Reference,
    delete_aliases: bool,
    when: Purge,
) -> Result<(VersionInfo, u64)> {
    super::holder::release_orphans(repository)?;
    let registry = &repository.registry;
    let there = registry.lookup(reference.clone())?;
    let info = match registry.delete(there.reference(), delete_aliases) {
        // It is gone: somebody else deleted it, or this very call did and its answer was lost.
        Err(e) if e.kind() == Kind::NotFound => there,
        deleted => deleted?,
    };
    let freed = bury(repository)?;
    purge(repository, when)?;
    Ok((info, freed))
}

/// The same for a version whose time is over by the registry's clock, with its aliases; `None` when it is
/// not over, or an alias protects the version.
///
/// # Errors
/// As [`delete`].
pub fn expire(
    repository: &Repository,
    version: &VersionInfo,
    when: Purge,
) -> Result<Option<(VersionInfo, u64)>> {
    super::holder::release_orphans(repository)?;
    let gone = repository.registry.expire(version.path.clone(), version.number)?;
    let Some(info) = gone else { return Ok(None) };
    let freed = bury(repository)?;
    purge(repository, when)?;
    Ok(Some((info, freed)))
}

/// Takes every dead object out of the registry, then frees its bytes. Goes on where an
/// interrupted deletion stopped. Returns the bytes that died.
///
/// # Errors
/// When the registry or the store fails.
pub fn reap(repository: &Repository) -> Result<u64> {
    let freed = bury(repository)?;
    purge(repository, Purge::Now)?;
    Ok(freed)
}

fn bury(repository: &Repository) -> Result<u64> {
    let registry = &repository.registry;
    let mut freed = 0;
    loop {
        let dead = registry.dead(BURY_BATCH)?;
        if dead.is_empty() {
            return Ok(freed);
        }
        let mut batch = Vec::with_capacity(dead.len());
        for (digest, located) in dead {
            let children = match repository.reader.children(digest, located.kind) {
                // Its children keep a count too many, which only fsck can put right; the dead
                // node itself must not stop everything else from being freed.
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Stale) => {
                    tracing::warn!(%digest, "a dead node cannot be read; run fsck --repair: {e}");
                    Vec::new()
                }
                children => children?,
            };
            batch.push((digest, children));
        }
        freed += registry.bury(batch)?;
    }
}

/// Frees dead bytes: packs without a live object are removed, the others lose what is dead, or wait.
fn purge(repository: &Repository, when: Purge) -> Result<()> {
    loop {
        let packs = repository.registry.purgeable(PURGE_BATCH, false)?;
        if packs.is_empty() {
            return Ok(());
        }
        for pack in packs {
            if when == Purge::Later && pack.live_objects > 0 {
                repository.registry.defer_purge(pack.id)?;
            } else {
                purge_pack(repository, &pack)?;
            }
        }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collected {
    /// Packs that lost their dead bytes.
    pub packs: u64,
    /// These bytes.
    pub freed_bytes: u64,
    /// Dead bytes that stay.
    pub left_bytes: u64,
}

/// Frees dead bytes that were put off, in packs of which more than `garbage_percent` is dead: so no more
/// than that of the store is.
///
/// # Errors
/// When the registry or the store fails; the next call goes on.
pub fn collect(repository: &Repository, garbage_percent: u64) -> Result<Collected> {
    super::holder::release_orphans(repository)?;
    let mut collected = Collected::default();
    let all = repository.registry.purgeable(u32::MAX, true)?;
    for pack in all {
        let dead = pack.length_bytes.saturating_sub(pack.live_bytes);
        if pack.live_objects > 0 && dead * 100 <= pack.length_bytes * garbage_percent {
            collected.left_bytes += dead;
            continue;
        }
        purge_pack(repository, &pack)?;
        collected.packs += 1;
        collected.freed_bytes += dead;
    }
    Ok(collected)
}

fn purge_pack(repository: &Repository, pack: &PackInfo) -> Result<()> {
    let (store, registry) = (&repository.store, &repository.registry);
    if pack.live_objects == 0 {
        store.remove(pack.id)?;
        return registry.purged(pack.id, 0);
    }
    let entries = match store.read_index(pack.id) {
        // Another process saw the rest of it die, and removed it.
        Err(e) if e.kind() == Kind::NotFound => return registry.purged(pack.id, 0),
        entries => entries?,
    };
    let mut alive = Vec::with_capacity(entries.len());
    for batch in entries.chunks(LIVE_BATCH) {
        let digests = batch.iter().map(|entry| entry.digest).collect();
        let live = registry.live_in(pack.id, digests)?;
        alive.extend(batch.iter().zip(live).filter(|(_, live)| *live).map(|(entry, _)| *entry));
    }
    if store.is_remote() {
        return rewrite(repository, pack.id, &alive);
    }
    let length = match store.pack_length(pack.id) {
        Err(e) if e.kind() == Kind::NotFound => return registry.purged(pack.id, 0),
        length => length?,
    };
    if alive.len() < entries.len() {
        store.write_index(pack.id, &alive)?;
    }
    let extents: Vec<_> = alive.iter().map(|e| (e.offset, u64::from(e.stored_bytes))).collect();
    store.punch(pack.id, &gaps(&extents, length))?;
    registry.purged(pack.id, length)
}

/// Writes what lives of a remote pack to another, and removes it. Interrupted, the new pack goes with
/// its lease, or the old one is found empty.
fn rewrite(repository: &Repository, old: PackId, alive: &[IndexEntry]) -> Result<()> {
    let (store, registry) = (&repository.store, &repository.registry);
    let purpose = format!("rewrite pack {old}");
    let lease = registry.begin(purpose, super::holder::this_process(), None)?;
    let new = PackId(rand::random());
    let write = || -> Result<()> {
        registry.register_pack(lease, new)?;
        let mut writer = store.create(new)?;
        let mut entries = Vec::with_capacity(alive.len());
        for run in runs(alive) {
            let (start, end) = span(run);
            let bytes = store.read_raw(old, start, (end - start) as usize)?;
            for entry in run {
                let at = (entry.offset - start) as usize;
                let object = &bytes[at..at + entry.stored_bytes as usize];
                entries.push(IndexEntry { offset: writer.append(object)?, ..*entry });
            }
        }
        let length = writer.finish()?;
        store.write_index(new, &entries)?;
        let moved = entries.iter().map(|entry| (entry.digest, entry.offset)).collect();
        registry.relocate(lease, old, new, length, moved)?;
        Ok(())
    };
    let written = write();
    registry.release(lease)?;
    written?;
    if registry.pack(old)?.is_some_and(|pack| pack.live_objects > 0) {
        let what = format!("pack {old} holds objects that its index does not name");
        return Err(Error::new(Kind::Corrupt, what).hint("`artifactfs fsck` tells more"));
    }
    store.remove(old)?;
    registry.purged(old, 0)
}

/// First byte, and the one behind the last, of a run of entries.
pub(super) fn span(run: &[IndexEntry]) -> (u64, u64) {
    let end = |entry: &IndexEntry| entry.offset + u64::from(entry.stored_bytes);
    (run.first().map_or(0, |entry| entry.offset), run.last().map_or(0, end))
}

/// Runs of entries that are read as one: none much longer than [`RUN_BYTES`], with little between.
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

/// What lies between `extents` (offset, length; ascending, disjoint) up to `end`.
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

/// Packs that are on the disk and unknown to the registry: none should exist, since each
/// is announced before it is written. For `fsck`.
pub(super) fn unknown_packs(repository: &Repository) -> Result<Vec<PackId>> {
    let mut unknown = repository.store.list()?;
    let mut after = None;
    loop {
        let page = repository.registry.scan_packs(after, PURGE_BATCH)?;
        let Some(last) = page.last() else {
            return Ok(unknown);
        };
        after = Some(last.id);
        unknown.retain(|id| page.binary_search_by_key(id, |pack| pack.id).is_err());
    }
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
