//! Calls to the process that has the drafts open.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::difference::Difference;
use crate::model::name::EntryName;
use crate::model::new_version::NewVersion;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::Committed;

/// Differences told of a draft; more are only counted.
pub const DIFFERENCES_MAX: usize = 100_000;

/// A commit of a draft.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitDraft {
    /// The draft.
    pub draft: ArtifactPath,
    /// The version it becomes.
    pub version: NewVersion,
    /// Whether what no version holds is refused.
    pub strict: bool,
    /// Whether symlinks that lead out of the version are kept.
    pub external_symlinks: bool,
    /// How long to wait for writers to close their files; `None`: only for what is closed already.
    pub wait_milliseconds: Option<u64>,
}

impl CommitDraft {
    /// A commit of `draft` as the next version of its own artifact, about which nothing is said.
    pub fn plain(draft: ArtifactPath) -> Self {
        Self {
            version: NewVersion::plain(draft.clone()),
            draft,
            strict: false,
            external_symlinks: false,
            wait_milliseconds: None,
        }
    }
}

/// What can be asked of the process that has the drafts open.
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftCall {
    /// All drafts.
    List,
    /// Commits one.
    Commit(Box<CommitDraft>),
    /// Begins one from a version.
    Begin(Reference),
    /// Throws one away.
    Discard(ArtifactPath),
    /// How one differs from what it stands on.
    Diff(ArtifactPath),
    /// Takes a path back to what it was.
    Restore(ArtifactPath, Vec<EntryName>),
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
    /// The error that kept the draft from being read, if any.
    pub unread: Option<String>,
}

impl DraftInfo {
    /// Returns one that cannot be read.
    pub fn unread(path: ArtifactPath, error: &Error) -> Self {
        let unread = Some(error.to_string());
        Self { path, base: None, files: 0, size_bytes: 0, changed: 0, unread }
    }
}

/// The answer to a [`DraftCall`].
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftAnswer {
    /// To `List`.
    Drafts {
        /// The drafts.
        drafts: Vec<DraftInfo>,
        /// What went wrong lately, oldest first.
        troubles: Vec<String>,
    },
    /// To `Commit`.
    Committed {
        /// What the commit did.
        committed: Committed,
        /// What was left out.
        warnings: Vec<String>,
        /// Bytes that were stored.
        stored_bytes: u64,
        /// Files that were read.
        files_read: u64,
    },
    /// To `Begin`: the draft.
    Begun(ArtifactPath),
    /// To `Diff`.
    Differences {
        /// At most [`DIFFERENCES_MAX`].
        differences: Vec<Difference>,
        /// How many there are.
        count: u64,
    },
    /// To `Discard` and `Restore`.
    Done,
}

/// Handles calls to drafts: the process that has them open, or a client of it.
pub trait DraftHandler: Send + Sync {
    /// Answers a call.
    ///
    /// # Errors
    /// Those of the verb.
    fn call(&self, call: DraftCall) -> Result<DraftAnswer>;
}
