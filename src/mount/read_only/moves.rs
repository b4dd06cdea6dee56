//! What the kernel has to look at anew when names move: only what stands for something else now.
//!
//! Whoever is in a directory whose name is taken from the kernel's memory loses its path, and what
//! is mounted below it is unmounted, in all mount namespaces. A number stands for its version until
//! that is deleted, and so does a name in the view of a run; an alias until it is moved.

use crate::error::Result;
use crate::model::reference::ArtifactPath;
use crate::mount::inode::paths::{OfArtifact, VersionName};
use crate::mount::read_only::fs::ReadFs;
use crate::ops::browse;

/// What the kernel has to look at anew.
#[derive(Debug, Default)]
pub struct Moved {
    /// Directories whose listing changed.
    pub projects: Vec<u64>,
    /// Entries that stand for something else, or for nothing.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Files whose content may have changed.
    pub descriptions: Vec<u64>,
}

impl ReadFs {
    /// What a change of an artifact moved.
    ///
    /// # Errors
    /// What the registry says.
    pub fn moved(&self, path: &ArtifactPath) -> Result<Moved> {
        self.listings.clear();
        let OfArtifact { projects, names, descriptions } = self.paths().of_artifact(path);
        let selectors: Vec<_> = names.iter().map(|name| &name.selector).collect();
        let stands = browse::resolve_selectors(self.repository(), path, &selectors)?;
        let is_moved = |name: &VersionName| stands.get(&name.selector) != Some(&name.number);
        let moved = names.into_iter().filter(is_moved);
        let entries = moved.map(|name| (name.parent, name.name)).collect();
        Ok(Moved { projects, entries, descriptions })
    }

    /// The artifacts of which the kernel knows a version.
    pub fn known_artifacts(&self) -> Vec<ArtifactPath> {
        self.paths().artifacts()
    }
}
