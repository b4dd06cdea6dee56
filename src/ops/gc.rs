//! Freeing dead bytes that were put off.

use super::garbage::{
    Failures, collect_garbage, each_reclaimable, lock_out_maintenance, reclaim_pack,
};
use super::orphans::{release_orphans, release_unfinished};
use super::repository::Repository;
use crate::error::Result;
use crate::protocol::served::{Cleaned, JanitorCall};

/// The result of a collection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collected {
    /// Packs that lost their dead bytes.
    pub packs: u64,
    /// The bytes that were freed.
    pub freed_bytes: u64,
    /// Dead bytes that stay.
    pub left_bytes: u64,
}

/// Frees dead bytes that were put off, in packs of which more than `garbage_percent` is dead. So at
/// most that share of the store stays dead.
/// With `unfinished`, also frees what killed and failed puts stored.
pub fn collect_deferred(
    repository: &Repository,
    garbage_percent: u64,
    unfinished: bool,
) -> Result<Collected> {
    if let Some(janitor) = &repository.janitor {
        let cleaned = janitor.clean(JanitorCall::Collect { garbage_percent, unfinished })?;
        let Cleaned { packs, freed_bytes, left_bytes } = cleaned;
        return Ok(Collected { packs, freed_bytes, left_bytes });
    }
    let freed_bytes = match unfinished {
        true => release_unfinished(repository)?,
        false => release_orphans(repository)?,
    };
    let mut collected = Collected { freed_bytes, ..Collected::default() };
    let mut failures = Failures::default();
    let lock = lock_out_maintenance(repository)?;
    each_reclaimable(repository, true, &mut |pack, mark| {
        let dead = pack.length_bytes.saturating_sub(pack.live_bytes);
        if pack.live_objects > 0 && dead * 100 <= pack.length_bytes * garbage_percent {
            collected.left_bytes += dead;
        } else if failures.note(pack.id, reclaim_pack(repository, pack, mark)) {
            collected.packs += 1;
            collected.freed_bytes += dead;
        }
        Ok(())
    })?;
    drop(lock);
    // Objects may have died in a pack while it was rewritten.
    collected.freed_bytes += collect_garbage(repository)?;
    failures.into_result().map(|()| collected)
}
