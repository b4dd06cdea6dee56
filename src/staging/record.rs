//! The record of a draft, which lies beside its files.

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, ArtifactType};
use crate::model::reference::Reference;
use crate::model::version::Totals;

/// The format of `draft.json` that this release writes. Records without a number have it, too.
pub(crate) const RECORD_FORMAT: u32 = 1;

/// The content of `draft.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DraftRecord {
    /// The format of this record.
    pub(crate) format: u32,
    /// The version that the draft was begun from or last committed as.
    pub(crate) base: Option<Reference>,
    /// The root tree of that version.
    pub(crate) root: Option<Digest>,
    /// The totals of that tree.
    pub(crate) totals: Totals,
    /// The time of files that are only in the lower tree: seconds and nanoseconds since 1970.
    pub(crate) since: (i64, i64),
    /// The owner of those files: user and group.
    pub(crate) owner: Option<(u32, u32)>,
    /// The lease that pins the lower trees and content of the draft.
    pub(crate) lease: Option<u64>,
    /// The digests it pins: root trees of versions, and content that files are still based on.
    pub(crate) sources: Vec<Digest>,
    /// Files, by path in the draft, that may share an inode with a pack while a commit is under
    /// way.
    pub(crate) shared: Vec<Vec<u8>>,
    /// The properties of the next version.
    pub(crate) properties: DraftProperties,
}

/// The properties of the version that a draft becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DraftProperties {
    /// The type.
    pub(crate) artifact_type: Option<ArtifactType>,
    /// The description, written by people.
    pub(crate) description: Option<String>,
    /// The metadata, written by programs.
    pub(crate) metadata: Option<Metadata>,
    /// Aliases beside `latest`.
    pub(crate) aliases: Vec<Alias>,
}
