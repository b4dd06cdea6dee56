//! Pruning: deleting the versions that no alias keeps, or whose time is over.

use super::garbage::Reclaim;
use super::repository::Repository;
use super::{delete, exclusive_size, listing};
use crate::error::{Error, Kind, Result};
use crate::model::name::{ArtifactName, ArtifactType, ProjectName};
use crate::model::time::Timestamp;
use crate::model::version::VersionInfo;

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
    /// Those whose time is over, with or without aliases; otherwise those without aliases.
    pub expired: bool,
}

/// Returns the time that lies a duration before now by the registry's clock, which dates versions.
///
/// # Errors
/// [`Kind::Usage`] if `text` is no duration, and those of the registry.
pub fn moment_before(repository: &Repository, text: &str) -> Result<Timestamp> {
    let bad = |e: jiff::Error| {
        Error::new(Kind::Usage, format!("{text:?} is no duration"))
            .because(e)
            .hint("write 30d, 12h")
    };
    let now = repository.registry.now()?;
    let span: jiff::Span = text.parse().map_err(bad)?;
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.0).unwrap_or(i64::MAX));
    let now = now.map_err(bad)?.to_zoned_datetime(jiff::tz::TimeZone::UTC);
    let then = now.checked_sub(span.abs()).map_err(bad)?.timestamp().as_millisecond();
    Ok(Timestamp(u64::try_from(then).unwrap_or_default()))
}

/// Refuses to let versions expire by a clock that is far beyond the last change, unless it is `trusted`.
///
/// # Errors
/// [`Kind::Conflict`].
pub fn check_clock(repository: &Repository, trusted: bool) -> Result<()> {
    repository.registry.time_to_expire(trusted).map(drop)
}

/// The versions that would go.
///
/// # Errors
/// When the registry fails; [`Kind::NotFound`] for a project or artifact that is not
/// there.
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

/// The versions of one artifact, ascending, that would go.
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

/// Bytes that would come free if all of them went.
///
/// # Errors
/// What reading a node says.
pub fn bytes_of(repository: &Repository, doomed: &[VersionInfo]) -> Result<u64> {
    let roots: Vec<_> = doomed.iter().map(|version| version.root).collect();
    exclusive_size::exclusive_bytes(repository, &roots)
}

/// Deletes them; one that got an alias meanwhile, or lives longer now, stays. Returns those that went and the bytes.
///
/// # Errors
/// As [`delete::delete`]; what was deleted before stays deleted.
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
            Ok(None) => tracing::info!("{} lives on", version.reference()),
            Err(e) if matches!(e.kind(), Kind::Conflict) => {
                tracing::info!("{} stays: {e}", version.reference());
            }
            Err(e) if matches!(e.kind(), Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    Ok((gone, freed))
}
