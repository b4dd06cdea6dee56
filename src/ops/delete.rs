//! Deleting versions, and freeing the bytes that died.

use super::repository::Repository;
use crate::error::{Kind, Result};
use crate::model::object::PackId;
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;
use crate::registry::PackInfo;

/// Dead objects taken out in one transaction.
const BURY_BATCH: u32 = 2_000;
/// Packs asked for at once.
const PURGE_BATCH: u32 = 100;
/// Objects of one pack asked about at once.
const LIVE_BATCH: usize = 4_096;

/// Deletes a version and frees exactly what only it had. When this returns, no byte that nothing
/// else needs is left in the store. Returns the version and the bytes freed.
///
/// # Errors
/// [`Kind::Conflict`] when it has aliases and `delete_aliases` is not set. After any other
/// error the version may be gone already; the bytes then go with the next call of [`reap`].
pub fn delete(
    repository: &Repository,
    reference: &Reference,
    delete_aliases: bool,
) -> Result<(VersionInfo, u64)> {
    super::holder::release_orphans(repository)?;
    let info = repository.registry.delete(reference.clone(), delete_aliases)?;
    let freed = reap(repository)?;
    Ok((info, freed))
}

/// Takes every dead object out of the registry, then frees its bytes. Goes on where an
/// interrupted deletion stopped. Returns the bytes that died.
///
/// # Errors
/// When the registry or the store fails.
pub fn reap(repository: &Repository) -> Result<u64> {
    let registry = &repository.registry;
    let mut freed = 0;
    loop {
        let dead = registry.dead(BURY_BATCH)?;
        if dead.is_empty() {
            break;
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
    purge(repository)?;
    Ok(freed)
}

/// Frees dead bytes: packs without a live object are removed, the others lose what is dead.
fn purge(repository: &Repository) -> Result<()> {
    loop {
        let packs = repository.registry.purgeable(PURGE_BATCH)?;
        if packs.is_empty() {
            return Ok(());
        }
        for pack in packs {
            let left = purge_pack(repository, &pack)?;
            repository.registry.purged(pack.id, left)?;
        }
    }
}

/// Returns the length of the pack that is left.
fn purge_pack(repository: &Repository, pack: &PackInfo) -> Result<u64> {
    let store = &repository.store;
    if pack.live_objects == 0 {
        store.remove(pack.id)?;
        return Ok(0);
    }
    let entries = match store.read_index(pack.id) {
        // Another process saw the rest of it die, and removed it.
        Err(e) if e.kind() == Kind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut alive = Vec::with_capacity(entries.len());
    for batch in entries.chunks(LIVE_BATCH) {
        let digests = batch.iter().map(|entry| entry.digest).collect();
        let live = repository.registry.live_in(pack.id, digests)?;
        alive.extend(batch.iter().zip(live).filter(|(_, live)| *live).map(|(entry, _)| *entry));
    }
    let length = match store.pack_size(pack.id) {
        Err(e) if e.kind() == Kind::NotFound => return Ok(0),
        size => size?.0,
    };
    if alive.len() < entries.len() {
        store.write_index(pack.id, &alive)?;
    }
    let extents: Vec<_> = alive.iter().map(|e| (e.offset, u64::from(e.stored_bytes))).collect();
    store.punch(pack.id, &gaps(&extents, length))?;
    Ok(length)
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
