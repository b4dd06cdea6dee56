//! The names that a process resolved. While a shared registry cannot be reached, mounts still find them.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use crate::error::Result;
use crate::model::name::ProjectName;
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;

/// The number of names that are remembered.
const NAMES: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is above 0");
/// The length in bytes of the longest metadata that is remembered.
const METADATA_MAX_BYTES: usize = 64 << 10;

/// Names that were resolved, of each kind a bounded number.
pub(crate) struct Resolved {
    versions: Mutex<LruCache<Reference, VersionInfo>>,
    projects: Mutex<LruCache<ProjectName, ()>>,
}

impl Default for Resolved {
    fn default() -> Self {
        let (versions, projects) = (LruCache::new(NAMES), LruCache::new(NAMES));
        Self { versions: Mutex::new(versions), projects: Mutex::new(projects) }
    }
}

impl Resolved {
    /// Returns what the registry says of a version, or what it said when it could be reached.
    ///
    /// # Errors
    /// The errors of `found`.
    pub(crate) fn version(
        &self,
        reference: &Reference,
        found: Result<VersionInfo>,
    ) -> Result<VersionInfo> {
        let mut known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(info) => {
                if info.metadata.length_bytes() <= METADATA_MAX_BYTES {
                    known.put(reference.clone(), info.clone());
                }
                Ok(info)
            }
            Err(e) if e.kind().is_silence() => known.get(reference).cloned().ok_or(e),
            Err(e) => {
                known.pop(reference);
                Err(e)
            }
        }
    }

    /// Returns whether there is a project, or was when the registry could be reached.
    ///
    /// # Errors
    /// The errors of `found`.
    pub(crate) fn project(&self, project: &ProjectName, found: Result<bool>) -> Result<bool> {
        let mut known = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(true) => {
                known.put(project.clone(), ());
                Ok(true)
            }
            Err(e) if e.kind().is_silence() && known.contains(project) => {
                tracing::debug!(%project, "the registry cannot be reached: {e}");
                Ok(true)
            }
            other => {
                known.pop(project);
                other
            }
        }
    }
}
