//! Everything about one version or artifact.

use super::exclusive_size;
use super::external::count_unproven;
use super::repository::Repository;
use crate::error::Result;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::{ArtifactInfo, VersionInfo};

/// A version, and the room it takes.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The registry's record of it.
    pub info: VersionInfo,
    /// External files in it of which only the length is known.
    pub external_unproven: u64,
    /// Bytes of the store that it needs.
    pub stored_bytes: u64,
    /// Bytes of these that deleting it would free.
    pub exclusive_bytes: u64,
    /// Bytes of these that others need, too.
    pub shared_bytes: u64,
}

/// Returns a version, and the room it takes.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound), and the errors of reading its trees.
pub fn version(repository: &Repository, reference: Reference) -> Result<Shown> {
    let info = repository.registry.lookup(reference)?;
    let stored_bytes = exclusive_size::stored_bytes(repository, info.root)?;
    let exclusive_bytes = exclusive_size::exclusive_bytes(repository, &[info.root])?;
    let external_unproven = match info.totals.external {
        0 => 0,
        _ => count_unproven(repository, info.root)?,
    };
    // The two were counted one after the other, while other processes went on.
    let shared_bytes = stored_bytes.saturating_sub(exclusive_bytes);
    Ok(Shown { info, external_unproven, stored_bytes, exclusive_bytes, shared_bytes })
}

/// Returns an artifact.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if there is no such artifact.
pub fn artifact(repository: &Repository, path: ArtifactPath) -> Result<ArtifactInfo> {
    repository.registry.artifact(path)
}
