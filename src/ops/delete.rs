//! Deleting versions.

use super::garbage::{Reclaim, free};
use super::orphans::release_orphans;
use super::repository::Repository;
use crate::error::{Kind, Result};
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;

/// Deletes a version and frees exactly what only it had. When this returns, and nothing was put off, no
/// byte that nothing else needs is left in the store. Returns the version and the bytes that died.
///
/// # Errors
/// [`Kind::Conflict`] when it has aliases and `delete_aliases` is not set, or a protected one. After any other
/// error the version may be gone already; the bytes then go with the next call of [`collect_garbage`](super::garbage::collect_garbage).
pub fn delete(
    repository: &Repository,
    reference: &Reference,
    delete_aliases: bool,
    when: Reclaim,
) -> Result<(VersionInfo, u64)> {
    release_orphans(repository)?;
    let registry = &repository.registry;
    let there = registry.lookup(reference.clone())?;
    let info = match registry.delete(there.reference(), delete_aliases) {
        // It is gone: somebody else deleted it, or this very call did and its answer was lost.
        Err(e) if e.kind() == Kind::NotFound => there,
        deleted => deleted?,
    };
    Ok((info, free(repository, when)?))
}

/// The same for a version whose time is over by the registry's clock, with its aliases; `None` when it is
/// not over, or an alias protects the version.
///
/// # Errors
/// As [`delete`].
pub fn expire(
    repository: &Repository,
    version: &VersionInfo,
    when: Reclaim,
) -> Result<Option<(VersionInfo, u64)>> {
    release_orphans(repository)?;
    let gone = match repository.registry.expire(version.path.clone(), version.number) {
        // It is gone: somebody else deleted it, or this very call did and its answer was lost.
        Err(e) if e.kind() == Kind::NotFound => Some(version.clone()),
        gone => gone?,
    };
    let Some(info) = gone else { return Ok(None) };
    Ok(Some((info, free(repository, when)?)))
}
