//! What the kernel has to look at anew when names move: only what stands for something else now.
//!
//! Whoever is in a directory whose name is taken from the kernel's memory loses its path, and what
//! is mounted below it is unmounted, in all mount namespaces. A number stands for its version until
//! that is deleted, and so does a name in the view of a run; an alias until it is moved.

use std::collections::HashMap;

use crate::error::{Kind, Result};
use crate::model::name::VersionNumber;
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::mount::inode::paths::{OfArtifact, VersionName};
use crate::mount::read_only::fs::ReadFs;
use crate::ops::listing;

/// Names that are looked up one by one; of more, all versions of the artifact are listed.
const LOOK_UPS_MAX: usize = 32;

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
        let stands = self.what_stands(path, &names)?;
        let is_moved = |name: &VersionName| stands.get(&name.selector) != Some(&name.number);
        let moved = names.into_iter().filter(is_moved);
        let entries = moved.map(|name| (name.parent, name.name)).collect();
        Ok(Moved { projects, entries, descriptions })
    }

    /// What the names stand for now, as far as they do.
    fn what_stands(
        &self,
        path: &ArtifactPath,
        names: &[VersionName],
    ) -> Result<HashMap<Selector, VersionNumber>> {
        let registry = &self.repository().registry;
        let mut stands = HashMap::new();
        if names.len() > LOOK_UPS_MAX {
            let versions = match listing::versions(&**registry, path) {
                Err(e) if e.kind() == Kind::NotFound => Vec::new(),
                versions => versions?,
            };
            for info in versions {
                let aliases = info.aliases.into_iter().map(Selector::Alias);
                let selectors = std::iter::once(Selector::Version(info.number)).chain(aliases);
                stands.extend(selectors.map(|selector| (selector, info.number)));
            }
            return Ok(stands);
        }
        for name in names {
            if stands.contains_key(&name.selector) {
                continue;
            }
            let selector = name.selector.clone();
            match registry.lookup(Reference { path: path.clone(), selector: selector.clone() }) {
                Ok(info) => drop(stands.insert(selector, info.number)),
                Err(e) if e.kind() == Kind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(stands)
    }

    /// The artifacts of which the kernel knows a version.
    pub fn known_artifacts(&self) -> Vec<ArtifactPath> {
        self.paths().artifacts()
    }
}
