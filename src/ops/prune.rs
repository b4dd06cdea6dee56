//! Pruning: deleting the versions that no alias keeps, or whose time is over.

use super::garbage::Reclaim;
use super::repository::Repository;
use super::{delete, exclusive_size, listing};
use crate::error::{Error, Kind, Result};
use crate::model::name::{ArtifactName, ArtifactType, ProjectName};
use crate::model::time::Timestamp;
use crate::model::version::VersionInfo;

/// A request to prune versions.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// The project.
    pub project: ProjectName,
    /// The artifact; all of the project if `None`.
    pub artifact: Option<ArtifactName>,
    /// The type of artifacts; any if `None`.
    pub artifact_type: Option<ArtifactType>,
    /// The number of newest versions of each artifact that stay, with or without aliases.
    pub keep_last: usize,
    /// The time before which a version must be committed to be deleted; any if `None`.
    pub before: Option<Timestamp>,
    /// True to delete versions whose time is over, with or without aliases; otherwise those without
    /// aliases.
    pub expired: bool,
}

/// Returns the time that lies a duration before now by the registry's clock, which dates versions.
///
/// # Errors
/// [`Kind::Usage`] if `text` is not a duration.
pub fn moment_before(repository: &Repository, text: &str) -> Result<Timestamp> {
    let bad = |_: jiff::Error| {
        Error::new(Kind::Usage, format!("{text:?} is not a duration"))
            .hint("write 30d, 12h or 2 weeks")
    };
    let now = repository.registry.now()?;
    let span: jiff::Span = text.parse().map_err(bad)?;
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.0).unwrap_or(i64::MAX));
    let now = now.map_err(bad)?.to_zoned_datetime(jiff::tz::TimeZone::UTC);
    let then = now.checked_sub(span.abs()).map_err(bad)?.timestamp().as_millisecond();
    Ok(Timestamp(u64::try_from(then).unwrap_or_default()))
}

/// Refuses to let versions expire by a clock that is far beyond the last change, unless it is
/// `trusted`.
///
/// # Errors
/// [`Kind::Conflict`] if the clock is too far ahead.
pub fn check_clock(repository: &Repository, trusted: bool) -> Result<()> {
    repository.registry.time_to_expire(trusted).map(drop)
}

/// Returns the versions that would be deleted.
///
/// # Errors
/// [`Kind::NotFound`] if the project or artifact does not exist.
pub fn plan(repository: &Repository, request: &PruneRequest) -> Result<Vec<VersionInfo>> {
    let mut doomed = Vec::new();
    let now = repository.registry.now()?;
    let artifacts = match &request.artifact {
        Some(artifact) => vec![artifact.clone()],
        None => {
            let all = listing::artifacts(&*repository.registry, &request.project)?;
            all.into_iter().map(|info| info.path.artifact).collect()
        }
    };
    for artifact in artifacts {
        let project = request.project.clone();
        let path = crate::model::reference::ArtifactPath { project, artifact };
        doomed.extend(choose(listing::versions(&*repository.registry, &path)?, request, now));
    }
    Ok(doomed)
}

/// Returns the versions of one artifact that would be deleted, ascending.
fn choose(versions: Vec<VersionInfo>, request: &PruneRequest, now: Timestamp) -> Vec<VersionInfo> {
    let candidates = versions.len().saturating_sub(request.keep_last);
    let goes = |version: &VersionInfo| {
        let unwanted = match request.expired {
            true => version.expires.is_some_and(|at| at <= now),
            false => version.aliases.is_empty(),
        };
        unwanted
            && request.artifact_type.as_ref().is_none_or(|t| *t == version.artifact_type)
            && request.before.is_none_or(|before| version.created < before)
    };
    versions.into_iter().take(candidates).filter(goes).collect()
}

/// Returns the bytes that deleting all of `doomed` would free.
pub fn bytes_of(repository: &Repository, doomed: &[VersionInfo]) -> Result<u64> {
    let roots: Vec<_> = doomed.iter().map(|version| version.root).collect();
    exclusive_size::exclusive_bytes(repository, &roots)
}

/// Deletes the versions. A version that got an alias meanwhile, or whose time was extended, stays.
/// Returns the deleted versions and the freed bytes.
///
/// # Errors
/// As [`delete::delete`]; versions that were deleted before the error stay deleted.
pub fn prune(
    repository: &Repository,
    doomed: Vec<VersionInfo>,
    expired: bool,
    when: Reclaim,
) -> Result<(Vec<VersionInfo>, u64)> {
    let mut gone = Vec::new();
    let mut freed = 0;
    for version in doomed {
        let deleted = match expired {
            true => delete::expire(repository, &version, when),
            false => delete::delete(repository, &version.reference(), false, when).map(Some),
        };
        match deleted {
            Ok(Some((_, bytes))) => {
                freed += bytes;
                gone.push(version);
            }
            Ok(None) => tracing::info!("{} stays: it has not expired", version.reference()),
            Err(e) if matches!(e.kind(), Kind::Conflict) => {
                tracing::info!("{} stays: {e}", version.reference());
            }
            Err(e) if matches!(e.kind(), Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    Ok((gone, freed))
}
