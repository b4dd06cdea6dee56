//! The properties of a version that is to be made.

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::name::{Alias, ArtifactType, RunId, Tag, VersionNumber};
use super::properties::Ttl;
use super::reference::ArtifactPath;

/// The names and properties of a version that is to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewVersion {
    /// The artifact.
    pub path: ArtifactPath,
    /// The type; it must be the artifact's if that exists. `None` for the artifact's, or `dataset`.
    pub artifact_type: Option<ArtifactType>,
    /// The aliases that move to it, beside `latest`.
    pub aliases: Vec<Alias>,
    /// The description. If given, it is set also on a version that has this content already.
    pub description: Option<String>,
    /// The metadata. If given, they are set also on a version that has this content already.
    pub metadata: Option<Metadata>,
    /// The version that must be the newest; otherwise nothing is committed.
    pub expect: Option<VersionNumber>,
    /// The run that logs it, which must be open.
    pub run: Option<RunId>,
    /// The time to live. If given, it is set also on a version that has this content already.
    pub ttl: Option<Ttl>,
    /// The tags to add, also to a version that has this content already.
    pub tags: Vec<Tag>,
}

impl NewVersion {
    /// Returns a version without further properties.
    pub fn plain(path: ArtifactPath) -> Self {
        Self {
            path,
            artifact_type: None,
            aliases: Vec::new(),
            description: None,
            metadata: None,
            expect: None,
            run: None,
            ttl: None,
            tags: Vec::new(),
        }
    }
}
