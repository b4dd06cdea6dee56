//! What is said of a version that is to be made.

use serde::{Deserialize, Serialize};

use super::metadata::Metadata;
use super::name::{Alias, ArtifactType, RunId, Tag, VersionNumber};
use super::properties::Ttl;
use super::reference::ArtifactPath;

/// What a version is to be called, and what is said about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewVersion {
    /// The artifact.
    pub path: ArtifactPath,
    /// Its type; must be the artifact's if that exists. `None`: the artifact's, or `dataset`.
    pub artifact_type: Option<ArtifactType>,
    /// Aliases that move to it, beside `latest`.
    pub aliases: Vec<Alias>,
    /// Set if given, also on a version that has this content already.
    pub description: Option<String>,
    /// Set if given, also on a version that has this content already.
    pub metadata: Option<Metadata>,
    /// The version that must be the newest; otherwise nothing is committed.
    pub expect: Option<VersionNumber>,
    /// The run that logs it, which must be open.
    pub run: Option<RunId>,
    /// Set if given, also on a version that has this content already.
    pub ttl: Option<Ttl>,
    /// Added, also to a version that has this content already.
    pub tags: Vec<Tag>,
}

impl NewVersion {
    /// A version of which nothing else is said.
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
