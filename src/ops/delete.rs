//! Deleting versions.

use super::garbage::{Reclaim, free};
use super::orphans::release_orphans;
use super::repository::Repository;
use crate::error::{Kind, Result};
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;

/// Deletes a version and frees exactly what only it had. Unless bytes were put off, no byte is then
/// left in the store that nothing needs. Returns the version and the bytes that died.
///
/// # Errors
/// [`Kind::Conflict`] if it has a protected alias, or has aliases and `delete_aliases` is not set.
/// After any other error the version may be gone already; the next call of
/// [`collect_garbage`](super::garbage::collect_garbage) then frees the bytes.
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
        // It is gone: another process deleted it, or this call did and its reply was lost.
        Err(e) if e.kind() == Kind::NotFound => there,
        deleted => deleted?,
    };
    Ok((info, free(repository, when)?))
}

/// Deletes a version whose time is over by the registry's clock, with its aliases. Returns `None`
/// if it is not over, or an alias protects the version.
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
        // It is gone: another process deleted it, or this call did and its reply was lost.
        Err(e) if e.kind() == Kind::NotFound => Some(version.clone()),
        gone => gone?,
    };
    let Some(info) = gone else { return Ok(None) };
    Ok(Some((info, free(repository, when)?)))
}
