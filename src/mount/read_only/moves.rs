//! Moved names, which the kernel must look up again: only those that lead elsewhere now.
//!
//! Invalidating the name of a directory has a cost: processes in it lose their path, and mounts
//! below it are unmounted, in all mount namespaces. A version's number leads to it until it is
//! deleted, and so does any name in the view of a run. An alias leads to it until it is moved.

use crate::error::Result;
use crate::model::reference::ArtifactPath;
use crate::mount::inode::paths::{OfArtifact, VersionName};
use crate::mount::read_only::fs::ReadFs;
use crate::ops::browse;

/// The directories, names and files that the kernel must look up again.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Directories whose listing changed.
    pub(crate) projects: Vec<u64>,
    /// Entries that lead elsewhere now, or nowhere.
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
    /// Files whose content may have changed.
    pub(crate) descriptions: Vec<u64>,
}

impl ReadFs {
    /// Returns what a change of an artifact moved.
    ///
    /// # Errors
    /// Any error of the registry.
    pub(crate) fn moved(&self, path: &ArtifactPath) -> Result<Moved> {
        self.listings.clear();
        let OfArtifact { projects, names, descriptions } = self.paths().of_artifact(path);
        let selectors: Vec<_> = names.iter().map(|name| &name.selector).collect();
        let stands = browse::resolve_selectors(self.repository(), path, &selectors)?;
        let is_moved = |name: &VersionName| stands.get(&name.selector) != Some(&name.number);
        let moved = names.into_iter().filter(is_moved);
        let entries = moved.map(|name| (name.parent, name.name)).collect();
        Ok(Moved { projects, entries, descriptions })
    }

    /// Returns the artifacts of which the kernel holds a version.
    pub(crate) fn known_artifacts(&self) -> Vec<ArtifactPath> {
        self.paths().artifacts()
    }
}
