//! The nouns of groups.

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::name::{ArtifactType, GroupName, RunId, VersionNumber};
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::model::version::Totals;
use crate::registry::CommitRequest;

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// The artifact.
    pub path: ArtifactPath,
    /// Its name within the artifact.
    pub group: GroupName,
    /// The artifact's type, if a writer gave one.
    pub artifact_type: Option<ArtifactType>,
    /// The number of its present or last generation: the first is 1.
    pub generation: u64,
    /// The number of open parts; 0: the group is sealed.
    pub parts: u64,
    /// The sum of the parts' totals; a path in several parts counts several times.
    pub totals: Totals,
    /// The sequence of the last part.
    pub last: u64,
    /// The time of the first part.
    pub begun: Timestamp,
    /// The time of the last part.
    pub updated: Timestamp,
    /// The writer of the last part.
    pub writer: String,
    /// The version that its last sealed generation became.
    pub sealed: Option<VersionNumber>,
}

/// A part of an open group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// The number of the part: of two parts the higher one came later. It is never used twice.
    pub sequence: u64,
    /// The root tree.
    pub root: Digest,
    /// The totals of the tree.
    pub totals: Totals,
    /// The time at which it was added.
    pub at: Timestamp,
    /// The name of its writer.
    pub writer: String,
}

/// A request to add a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewPart {
    /// The artifact.
    pub path: ArtifactPath,
    /// The group, which need not exist.
    pub group: GroupName,
    /// The artifact's type, if the writer gave one.
    pub artifact_type: Option<ArtifactType>,
    /// The root tree, which must be registered.
    pub root: Digest,
    /// The totals of the tree.
    pub totals: Totals,
    /// The name of the writer, for people.
    pub writer: String,
    /// The run that writes it, which must be open.
    pub run: Option<RunId>,
    /// The last part that the writer compared with this one. If there is a later one, nothing is
    /// added.
    pub seen: Option<u64>,
}

/// A request to make a version of a group's merged parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealRequest {
    /// The group.
    pub group: GroupName,
    /// The number of merged parts.
    pub parts: u64,
    /// The sequence of the last of them.
    pub last: u64,
    /// The version.
    pub commit: CommitRequest,
}
