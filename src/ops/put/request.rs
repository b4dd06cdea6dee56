//! The request of a put.

use std::path::PathBuf;

use super::reference::References;
use super::source::Filters;
use crate::model::name::GroupName;
use crate::model::new_version::NewVersion;
use crate::model::reference::ArtifactPath;

/// A put: its sources, and the version they become.
pub struct PutRequest {
    /// The file or directory to store, if any.
    pub source: Option<PathBuf>,
    /// The external files to record, which stay where they are.
    pub references: References,
    /// The version it becomes.
    pub version: NewVersion,
    /// The filters of paths.
    pub filters: Filters,
    /// A flag to follow symlinks that lead out of the source; otherwise they are refused.
    pub follow: bool,
    /// A flag to report what would be stored, without storing it.
    pub dry_run: bool,
    /// A flag to read every file, also one that is unchanged by the put index.
    pub reread: bool,
    /// The group that gets the result as a part; `None` makes it a version.
    pub upsert: Option<Upsert>,
}

impl PutRequest {
    /// Returns a put of `source` to `path` with defaults for all else.
    pub fn plain(source: PathBuf, path: ArtifactPath) -> Self {
        Self {
            source: Some(source),
            references: References::default(),
            version: NewVersion::plain(path),
            filters: Filters::default(),
            follow: true,
            dry_run: false,
            reread: false,
            upsert: None,
        }
    }
}

/// The addition of a put to a group, as a part.
#[derive(Debug, Clone)]
pub struct Upsert {
    /// The group, which need not exist.
    pub group: GroupName,
    /// A flag that allows other content for a path that the group has.
    pub overwrite: bool,
}
