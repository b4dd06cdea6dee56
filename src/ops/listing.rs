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
    let mut all: Vec<VersionInfo> = Vec::new();
    loop {
        let after = all.last().map(|version| version.number);
        let page = registry.versions(path.clone(), after, PAGE)?;
        let done = page.len() < PAGE as usize;
        all.extend(page);
        if done {
            return Ok(all);
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
            versions(registry, &artifact.path)?.into_iter().try_for_each(&mut *each)?;
        }
    }
    Ok(())
}
