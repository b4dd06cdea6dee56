//! Drafts: what is written and not yet committed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::name::{Alias, ArtifactType};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::Metadata;
use crate::registry::Committed;

/// The path of draft calls.
pub const DRAFTS_PATH: &str = "/v1/drafts";

/// A commit of a draft.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitDraft {
    /// The draft.
    pub path: ArtifactPath,
    /// Its type, when the artifact is new or to be checked.
    pub artifact_type: Option<ArtifactType>,
    /// Aliases beside `latest`.
    pub aliases: Vec<Alias>,
    /// What people say about it.
    pub description: Option<String>,
    /// What programs say about it.
    pub metadata: Option<Metadata>,
}

/// What can be asked of the process that has the drafts open.
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftCall {
    /// All drafts.
    List,
    /// Commits one.
    Commit(CommitDraft),
    /// Begins one from a version.
    Begin(Reference),
    /// Throws one away.
    Discard(ArtifactPath),
}

/// A draft in a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DraftInfo {
    /// Its artifact.
    pub path: ArtifactPath,
    /// The version it was begun from or last committed as.
    pub base: Option<Reference>,
    /// Files in it.
    pub files: u64,
    /// Bytes of these.
    pub size_bytes: u64,
    /// Paths that differ from the base.
    pub changed: u64,
}

/// The answer to a [`DraftCall`].
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftAnswer {
    /// To `List`.
    Drafts(Vec<DraftInfo>),
    /// To `Commit`.
    Committed {
        /// What the commit did.
        committed: Committed,
        /// What was left out.
        warnings: Vec<String>,
        /// Bytes that were stored.
        stored_bytes: u64,
    },
    /// To the others.
    Done,
}

/// Whoever has the drafts open.
pub trait DraftService: Send + Sync {
    /// Answers a call.
    ///
    /// # Errors
    /// Those of the verb.
    fn call(&self, call: DraftCall) -> Result<DraftAnswer>;
}

impl<T: DraftService + ?Sized> DraftService for Arc<T> {
    fn call(&self, call: DraftCall) -> Result<DraftAnswer> {
        (**self).call(call)
    }
}
