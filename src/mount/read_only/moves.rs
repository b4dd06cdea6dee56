//! Moved names, which the kernel must look up again: only those that lead elsewhere now.
//!
//! Invalidating the name of a directory has a cost: processes in it lose their path, and mounts
//! below it are unmounted, in all mount namespaces. A version's number leads to it until it is
//! deleted, and so does any name in the view of a run. An alias leads to it until it is moved.

use std::collections::HashMap;

use crate::error::{Kind, Result};
use crate::model::name::VersionNumber;
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::mount::inode::paths::{OfArtifact, VersionName};
use crate::mount::read_only::fs::ReadFs;
use crate::ops::listing;

/// The most names that are looked up one by one; for more, all versions of the artifact are listed.
const LOOK_UPS_MAX: usize = 32;

/// The directories, names and files that the kernel must look up again.
#[derive(Debug, Default)]
pub struct Moved {
    /// Directories whose listing changed.
    pub projects: Vec<u64>,
    /// Entries that lead elsewhere now, or nowhere.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Files whose content may have changed.
    pub descriptions: Vec<u64>,
}

impl ReadFs {
    /// Returns what a change of an artifact moved.
    ///
    /// # Errors
    /// Any error of the registry.
    pub fn moved(&self, path: &ArtifactPath) -> Result<Moved> {
        self.listings.clear();
        let OfArtifact { projects, names, descriptions } = self.paths().of_artifact(path);
        let stands = self.what_stands(path, &names)?;
        let is_moved = |name: &VersionName| stands.get(&name.selector) != Some(&name.number);
        let moved = names.into_iter().filter(is_moved);
        let entries = moved.map(|name| (name.parent, name.name)).collect();
        Ok(Moved { projects, entries, descriptions })
    }

    /// Returns the version that each name leads to now; a name that leads nowhere is missing.
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

    /// Returns the artifacts of which the kernel holds a version.
    pub fn known_artifacts(&self) -> Vec<ArtifactPath> {
        self.paths().artifacts()
    }
}
