//! What a draft stands on: the tree of a version, read-only, which this room knows only so far.

use rustix::io::Errno;

use super::Result;
use crate::error::{Error, Kind};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Content, Entry, Target};

/// Trees and content of versions. What a draft stands on is pinned: it is there as long as the
/// draft is.
pub trait Lower: Send + Sync {
    /// The entry `name` of the directory `tree`.
    ///
    /// # Errors
    /// When the tree cannot be read.
    fn entry(&self, tree: Digest, name: &EntryName) -> crate::error::Result<Option<Target>>;

    /// Entries of the directory `tree` from `position` on: at least one, unless it ends there.
    ///
    /// # Errors
    /// When the tree cannot be read.
    fn run(&self, tree: Digest, position: u64) -> crate::error::Result<Vec<Entry>>;

    /// Fills `buffer` from byte `offset` of a file; how much was there.
    ///
    /// # Errors
    /// When the content cannot be read.
    fn read(
        &self,
        content: &Content,
        offset: u64,
        buffer: &mut [u8],
    ) -> crate::error::Result<usize>;
}

/// The errno of an error of the base; it leaves a line in the log.
pub fn errno_of(error: &Error) -> Errno {
    tracing::error!("below a draft: {error}");
    match error.kind() {
        Kind::Stale => Errno::STALE,
        Kind::NotFound => Errno::NOENT,
        Kind::Denied => Errno::ACCESS,
        Kind::Full => Errno::NOSPC,
        Kind::TimedOut => Errno::TIMEDOUT,
        Kind::Usage
        | Kind::BadName
        | Kind::Conflict
        | Kind::ReadOnly
        | Kind::Corrupt
        | Kind::Unavailable
        | Kind::WouldBlock
        | Kind::Unsupported => Errno::IO,
    }
}

/// The entry `name`; a name that no version can hold has none.
pub fn entry(lower: &dyn Lower, tree: Digest, name: &std::ffi::OsStr) -> Result<Option<Target>> {
    let Ok(name) = EntryName::try_from(name) else {
        return if name.len() > 255 { Err(Errno::NAMETOOLONG) } else { Ok(None) };
    };
    lower.entry(tree, &name).map_err(|e| errno_of(&e))
}
