//! Pruning: deleting the versions that no alias keeps.

use super::repository::Repository;
use super::{delete, listing, share};
use crate::error::Result;
use crate::model::name::{ArtifactName, ArtifactType, ProjectName};
use crate::model::version::{Timestamp, VersionInfo};

/// What to prune.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// The project.
    pub project: ProjectName,
    /// One artifact of it; otherwise all.
    pub artifact: Option<ArtifactName>,
    /// Only artifacts of this type.
    pub artifact_type: Option<ArtifactType>,
    /// So many of the newest versions of each artifact stay, with or without aliases.
    pub keep_last: usize,
    /// Only versions committed before this.
    pub before: Option<Timestamp>,
}

/// The versions that would go.
///
/// # Errors
/// When the registry fails; [`crate::error::Kind::NotFound`] for a project or artifact that is not
/// there.
pub fn plan(repository: &Repository, request: &PruneRequest) -> Result<Vec<VersionInfo>> {
    let mut doomed = Vec::new();
    let artifacts = match &request.artifact {
        Some(artifact) => vec![artifact.clone()],
        None => {
            let all = repository.registry.artifacts(request.project.clone())?;
            all.into_iter().map(|info| info.path.artifact).collect()
        }
    };
    for artifact in artifacts {
        let project = request.project.clone();
        let path = crate::model::reference::ArtifactPath { project, artifact };
        doomed.extend(choose(listing::versions(&*repository.registry, &path)?, request));
    }
    Ok(doomed)
}

/// The versions of one artifact, ascending, that would go.
fn choose(versions: Vec<VersionInfo>, request: &PruneRequest) -> Vec<VersionInfo> {
    let candidates = versions.len().saturating_sub(request.keep_last);
    let goes = |version: &VersionInfo| {
        version.aliases.is_empty()
            && request.artifact_type.as_ref().is_none_or(|t| *t == version.artifact_type)
            && request.before.is_none_or(|before| version.created < before)
    };
    versions.into_iter().take(candidates).filter(goes).collect()
}

/// Bytes that would come free if all of them went.
///
/// # Errors
/// What reading a node says.
pub fn bytes_of(repository: &Repository, doomed: &[VersionInfo]) -> Result<u64> {
    let roots: Vec<_> = doomed.iter().map(|version| version.root).collect();
    share::exclusive_bytes(repository, &roots)
}

/// Deletes them; one that got an alias meanwhile stays. Returns those that went and the bytes.
///
/// # Errors
/// As [`delete::delete`]; what was deleted before stays deleted.
pub fn prune(
    repository: &Repository,
    doomed: Vec<VersionInfo>,
    when: delete::Purge,
) -> Result<(Vec<VersionInfo>, u64)> {
    let mut gone = Vec::new();
    let mut freed = 0;
    for version in doomed {
        match delete::delete(repository, &version.reference(), false, when) {
            Ok((_, bytes)) => {
                freed += bytes;
                gone.push(version);
            }
            Err(e) if matches!(e.kind(), crate::error::Kind::Conflict) => {
                tracing::info!("{} stays: {e}", version.reference());
            }
            Err(e) if matches!(e.kind(), crate::error::Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    Ok((gone, freed))
}
