//! Listing everything there is, in pages.

use crate::error::Result;
use crate::model::reference::ArtifactPath;
use crate::model::version::VersionInfo;
use crate::registry::Registry;

/// Versions asked for at once.
const PAGE: u32 = 500;

/// All versions of an artifact, ascending.
///
/// # Errors
/// When the registry fails, or there is no such artifact.
pub fn versions(registry: &dyn Registry, path: &ArtifactPath) -> Result<Vec<VersionInfo>> {
    let mut all = Vec::new();
    each_of_artifact(registry, path, &mut |version| {
        all.push(version);
        Ok(())
    })?;
    Ok(all)
}

/// Calls `each` with every version of an artifact, ascending.
///
/// # Errors
/// When the registry fails, there is no such artifact, and what `each` says.
pub fn each_of_artifact(
    registry: &dyn Registry,
    path: &ArtifactPath,
    each: &mut dyn FnMut(VersionInfo) -> Result<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = registry.versions(path.clone(), after, PAGE)?;
        let full = page.len() == PAGE as usize;
        after = page.last().map(|version| version.number);
        page.into_iter().try_for_each(&mut *each)?;
        if !full {
            return Ok(());
        }
    }
}

/// Calls `each` with every version of the repository.
///
/// # Errors
/// When the registry fails, and what `each` says.
pub fn each_version(
    registry: &dyn Registry,
    each: &mut dyn FnMut(VersionInfo) -> Result<()>,
) -> Result<()> {
    for project in registry.projects()? {
        for artifact in registry.artifacts(project.name)? {
            each_of_artifact(registry, &artifact.path, each)?;
        }
    }
    Ok(())
}
