//! The lower of drafts: trees and content of versions, read-only.

use rustix::io::Errno;

use super::Result;
use crate::error::{Error, Kind};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Content, Entry, Target};

/// The trees and content of versions. Those that a draft is based on are pinned: they exist as long
/// as the draft does.
pub(crate) trait Lower: Send + Sync {
    /// Returns the entry `name` of the directory `tree`.
    ///
    /// # Errors
    /// Any error of the store or the registry.
    fn entry(&self, tree: Digest, name: &EntryName) -> crate::error::Result<Option<Target>>;

    /// Returns entries of the directory `tree` from `position` on: at least one, unless it ends
    /// there.
    ///
    /// # Errors
    /// Any error of the store or the registry.
    fn run(&self, tree: Digest, position: u64) -> crate::error::Result<Vec<Entry>>;

    /// Fills `buffer` from byte `offset` of a file, and returns the number of bytes that were
    /// there.
    ///
    /// # Errors
    /// Any error of the store or the registry.
    fn read(
        &self,
        content: &Content,
        offset: u64,
        buffer: &mut [u8],
    ) -> crate::error::Result<usize>;
}

/// Logs an error of the lower, and returns its errno.
pub(crate) fn errno_of(error: &Error) -> Errno {
    tracing::error!("cannot read the lower of a draft: {error}");
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

/// Returns the entry `name` of a lower tree; `None` for a name that no version can hold.
pub(crate) fn entry(
    lower: &dyn Lower,
    tree: Digest,
    name: &std::ffi::OsStr,
) -> Result<Option<Target>> {
    let Ok(name) = EntryName::try_from(name) else {
        return if name.len() > 255 { Err(Errno::NAMETOOLONG) } else { Ok(None) };
    };
    lower.entry(tree, &name).map_err(|e| errno_of(&e))
}
