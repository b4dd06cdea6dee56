//! The progress and the report of a put.

use crate::model::digest::Digest;
use crate::model::version::{AddedPart, Committed, Totals};

/// The receiver of a put's progress.
pub trait Progress: Send + Sync {
    /// Adds files and bytes that are done: read, or known from the last put.
    fn advance(&self, files: u64, bytes: u64);
}

/// A receiver that ignores progress.
pub struct Silent;

impl Progress for Silent {
    fn advance(&self, _files: u64, _bytes: u64) {}
}

/// The result of a put.
#[derive(Debug, Clone)]
pub struct PutReport {
    /// The version; `None` for a dry run, and for a part of a group.
    pub committed: Option<Committed>,
    /// The part of a group that it became, if any.
    pub part: Option<AddedPart>,
    /// The root tree.
    pub root: Digest,
    /// The totals of the root tree.
    pub totals: Totals,
    /// Bytes of objects that were not in the repository before, nodes included.
    pub stored_bytes: u64,
    /// Files that were read; the others were known from the last put.
    pub files_read: u64,
    /// Symlinks that led out and were followed.
    pub followed: u64,
    /// The warnings, for example about files left out: one line each, at most [`WARNINGS_MAX`].
    pub warnings: Vec<String>,
}

/// The maximum number of warnings kept: a directory of a million sockets must not fill the memory.
pub const WARNINGS_MAX: usize = 100;
