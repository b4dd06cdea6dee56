//! Updates of descriptions, metadata, tags and times to live.

use super::repository::Repository;
use super::select::{Changed, Chosen};
use crate::error::{Error, Result};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::{ArtifactInfo, VersionInfo};
use crate::registry::{ArtifactUpdate, Update};

/// Updates one version.
///
/// # Errors
/// As [`Versions::update`](crate::registry::Versions::update).
pub fn update(
    repository: &Repository,
    reference: Reference,
    update: Update,
) -> Result<VersionInfo> {
    repository.registry.update(reference, update)
}

/// Updates many versions alike, one after another.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) for a version that does not exist; nothing is
/// changed then.
pub fn update_many(repository: &Repository, chosen: Chosen, update: &Update) -> Result<Changed> {
    let registry = &repository.registry;
    let targets = chosen.targets(&**registry)?;
    Ok(targets.change(&mut |reference| registry.update(reference, update.clone())))
}

/// Updates artifacts, one after another. Returns those that were changed, and the error that ended
/// it.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if one of them does not exist; nothing is
/// changed then.
pub fn update_artifacts(
    repository: &Repository,
    paths: &[ArtifactPath],
    update: &ArtifactUpdate,
) -> Result<(Vec<ArtifactInfo>, Option<Error>)> {
    let registry = &repository.registry;
    paths.iter().try_for_each(|path| registry.artifact(path.clone()).map(drop))?;
    let mut done = Vec::new();
    for path in paths {
        match registry.update_artifact(path.clone(), update.clone()) {
            Ok(info) => done.push(info),
            Err(e) => return Ok((done, Some(e))),
        }
    }
    Ok((done, None))
}
