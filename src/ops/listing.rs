//! Complete listings, read in pages.

use crate::error::Result;
use crate::model::name::ProjectName;
use crate::model::reference::ArtifactPath;
use crate::model::version::{ArtifactInfo, VersionInfo};
use crate::registry::{Detail, Registry};

/// The number of versions or artifacts read at once.
const PAGE: u32 = 500;

/// Returns the artifacts of a project, in the order of names.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if there is no such project.
pub(crate) fn artifacts(
    registry: &dyn Registry,
    project: &ProjectName,
) -> Result<Vec<ArtifactInfo>> {
    let mut all: Vec<ArtifactInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| info.path.artifact.clone());
        let page = registry.artifacts(project.clone(), after, PAGE)?;
        let done = page.items.is_empty() || !page.more;
        all.extend(page.items);
        if done {
            return Ok(all);
        }
    }
}

/// Returns all versions of an artifact without their metadata, ascending.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if there is no such artifact.
pub(crate) fn versions(registry: &dyn Registry, path: &ArtifactPath) -> Result<Vec<VersionInfo>> {
    let mut all = Vec::new();
    each_of_artifact(registry, path, Detail::Brief, &mut |version| {
        all.push(version);
        Ok(())
    })?;
    Ok(all)
}

/// Calls `each` with every version of an artifact, ascending.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if there is no such artifact, and the errors of
/// `each`.
pub(crate) fn each_of_artifact(
    registry: &dyn Registry,
    path: &ArtifactPath,
    detail: Detail,
    each: &mut dyn FnMut(VersionInfo) -> Result<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = registry.versions(path.clone(), after, PAGE, detail)?;
        after = page.items.last().map(|version| version.number);
        page.items.into_iter().try_for_each(&mut *each)?;
        if after.is_none() || !page.more {
            return Ok(());
        }
    }
}

/// Calls `each` with every version of the repository, without its metadata.
///
/// # Errors
/// The errors of `each`.
pub fn each_version(
    registry: &dyn Registry,
    each: &mut dyn FnMut(VersionInfo) -> Result<()>,
) -> Result<()> {
    for project in registry.projects()? {
        for artifact in artifacts(registry, &project.name)? {
            each_of_artifact(registry, &artifact.path, Detail::Brief, each)?;
        }
    }
    Ok(())
}
