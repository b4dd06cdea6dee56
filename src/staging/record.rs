//! What is kept about a draft beside its files.

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, ArtifactType};
use crate::model::reference::Reference;
use crate::model::version::Totals;

/// The shape of `draft.json` that this release writes. Records without a number are of this shape.
pub const RECORD_FORMAT: u32 = 1;

/// `draft.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DraftRecord {
    /// The shape of this record.
    pub format: u32,
    /// The version it was begun from or last committed as.
    pub base: Option<Reference>,
    /// The root tree of that version.
    pub root: Option<Digest>,
    /// What is in that tree.
    pub totals: Totals,
    /// The time that files bear which are only in the base: seconds and nanoseconds since 1970.
    pub since: (i64, i64),
    /// Who owns those: user and group.
    pub owner: Option<(u32, u32)>,
    /// The lease that pins what the draft stands on.
    pub lease: Option<u64>,
    /// What it pins: root trees of versions, and content that files still stand on.
    pub sources: Vec<Digest>,
    /// Files, by path in the draft, that a commit under way may share with a pack.
    pub shared: Vec<Vec<u8>>,
    /// What was said about the next version.
    pub properties: DraftProperties,
}

/// What was said about the version that a draft becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DraftProperties {
    /// Its type.
    pub artifact_type: Option<ArtifactType>,
    /// What people say about it.
    pub description: Option<String>,
    /// What programs say about it.
    pub metadata: Option<Metadata>,
    /// Aliases beside `latest`.
    pub aliases: Vec<Alias>,
}
