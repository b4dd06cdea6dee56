//! The request of a put.

use std::path::PathBuf;

use super::reference::References;
use super::source::Filters;
use crate::model::name::GroupName;
use crate::model::new_version::NewVersion;
use crate::model::reference::ArtifactPath;

/// What to put, and as what.
pub struct PutRequest {
    /// A file or a directory, if anything is stored.
    pub source: Option<PathBuf>,
    /// What is recorded and stays where it is.
    pub references: References,
    /// The version it becomes.
    pub version: NewVersion,
    /// What to leave out.
    pub filters: Filters,
    /// Whether symlinks that lead out of the source are followed; otherwise they are refused.
    pub follow: bool,
    /// Only say what would be stored.
    pub dry_run: bool,
    /// Whether every file is read, also one that looks as it did at the last put.
    pub reread: bool,
    /// The group it is added to, instead of becoming a version.
    pub upsert: Option<Upsert>,
}

impl PutRequest {
    /// A put of which nothing else is said.
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

/// What is put becomes a part of a group.
#[derive(Debug, Clone)]
pub struct Upsert {
    /// The group, which need not be there.
    pub group: GroupName,
    /// Whether a path that the group has may be written again, with other content.
    pub overwrite: bool,
}
