//! The progress and the report of a put.

use crate::model::digest::Digest;
use crate::model::version::{AddedPart, Committed, Totals};

/// Told how far it is.
pub trait Progress: Send + Sync {
    /// So many more bytes of files are done, read or known.
    fn advance(&self, files: u64, bytes: u64);
}

/// Nobody watches.
pub struct Silent;

impl Progress for Silent {
    fn advance(&self, _files: u64, _bytes: u64) {}
}

/// What a put did.
#[derive(Debug, Clone)]
pub struct PutReport {
    /// The version; `None` for a dry run, and for a part of a group.
    pub committed: Option<Committed>,
    /// The part of a group it became.
    pub part: Option<AddedPart>,
    /// The root tree.
    pub root: Digest,
    /// What is in it.
    pub totals: Totals,
    /// Bytes of objects that were not in the repository before, nodes included.
    pub stored_bytes: u64,
    /// Files that were read; the others were known from the last put.
    pub files_read: u64,
    /// Symlinks that led out and were followed.
    pub followed: u64,
    /// What was left out, a line each, at most [`WARNINGS_MAX`].
    pub warnings: Vec<String>,
}

/// Warnings that are kept: a directory of a million sockets must not fill the memory.
pub const WARNINGS_MAX: usize = 100;
