//! The calls to the process that has the drafts open.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::difference::Difference;
use crate::model::name::EntryName;
use crate::model::new_version::NewVersion;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::Committed;

/// The maximum number of differences in a reply; more are only counted.
pub const DIFFERENCES_MAX: usize = 100_000;

/// A commit of a draft.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitDraft {
    /// The artifact of the draft.
    pub draft: ArtifactPath,
    /// The version it becomes.
    pub version: NewVersion,
    /// True if files that no version can hold fail the commit.
    pub strict: bool,
    /// True if symlinks that lead out of the version are kept.
    pub external_symlinks: bool,
    /// The time to wait for writers to close their files; `None`: 2 s.
    pub wait_milliseconds: Option<u64>,
}

impl CommitDraft {
    /// Returns a commit of `draft` as the next version of its own artifact, with default
    /// properties.
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

/// A call to the process that has the drafts open.
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftCall {
    /// A list of all drafts.
    List,
    /// A commit of a draft.
    Commit(Box<CommitDraft>),
    /// A new draft of a version.
    Begin(Reference),
    /// The removal of a draft.
    Discard(ArtifactPath),
    /// The differences between a draft and its lower.
    Diff(ArtifactPath),
    /// The return of a path in a draft to its state in the lower.
    Restore(ArtifactPath, Vec<EntryName>),
}

/// A draft in a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DraftInfo {
    /// The artifact of the draft.
    pub path: ArtifactPath,
    /// The version that the draft was begun from or last committed as.
    pub base: Option<Reference>,
    /// The number of files in the draft.
    pub files: u64,
    /// The total size of its files in bytes.
    pub size_bytes: u64,
    /// The number of paths that differ from the lower.
    pub changed: u64,
    /// The error that kept the draft from being read, if any.
    pub unread: Option<String>,
}

impl DraftInfo {
    /// Returns the entry of a draft that cannot be read.
    pub(crate) fn unread(path: ArtifactPath, error: &Error) -> Self {
        let unread = Some(error.to_string());
        Self { path, base: None, files: 0, size_bytes: 0, changed: 0, unread }
    }
}

/// The reply to a [`DraftCall`].
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftAnswer {
    /// The reply to `List`.
    Drafts {
        /// The drafts.
        drafts: Vec<DraftInfo>,
        /// Recent troubles, oldest first.
        troubles: Vec<String>,
    },
    /// The reply to `Commit`.
    Committed {
        /// The version, and whether the commit made it.
        committed: Committed,
        /// One warning per file that was left out.
        warnings: Vec<String>,
        /// The number of bytes that were stored.
        stored_bytes: u64,
        /// The number of files that were read.
        files_read: u64,
    },
    /// The reply to `Begin`: the artifact of the draft.
    Begun(ArtifactPath),
    /// The reply to `Diff`.
    Differences {
        /// The first differences, at most [`DIFFERENCES_MAX`].
        differences: Vec<Difference>,
        /// The number of all differences.
        count: u64,
    },
    /// The reply to `Discard` and `Restore`.
    Done,
}

/// A handler of calls to drafts: the process that has them open, or a client of it.
pub trait DraftHandler: Send + Sync {
    /// Makes a call and returns its reply.
    ///
    /// # Errors
    /// The errors of the call.
    fn call(&self, call: DraftCall) -> Result<DraftAnswer>;
}
