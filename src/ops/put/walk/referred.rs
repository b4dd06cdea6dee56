//! The external files of references, in path order.

use std::path::Path;

use crate::error::Result;
use crate::model::name::EntryName;
use crate::ops::put::external_sort::Sorted;
use crate::ops::put::reference::Mounts;
use crate::ops::put::source::index_key;

/// The external files of references that are still to come.
pub(crate) struct Referred {
    pub(super) sorted: Sorted,
    pub(super) mounts: Mounts,
    /// A flag to hash the files of this machine.
    pub(super) checksum: bool,
}

/// The relation of the next external file to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// The next external file is neither at the path nor below it.
    Elsewhere,
    /// The next external file is at the path.
    At,
    /// The next external file is below the path.
    Below,
}

impl Referred {
    /// Returns the external files in `sorted`. Files of this machine are hashed if `checksum` is
    /// set.
    pub(crate) fn new(sorted: Sorted, checksum: bool) -> Self {
        Self { sorted, mounts: Mounts::default(), checksum }
    }

    /// Returns the name in directory `relative` that leads to the next external file, if one does.
    pub(super) fn next_name(&self, relative: &Path) -> Result<Option<EntryName>> {
        let prefix = index_key(relative);
        let Some(key) = self.sorted.peek() else { return Ok(None) };
        let rest = match (prefix.is_empty(), key.strip_prefix(prefix.as_slice())) {
            (true, _) => key,
            (false, Some([0, rest @ ..])) => rest,
            _ => return Ok(None),
        };
        let name = rest.split(|b| *b == 0).next().unwrap_or_default();
        Ok(Some(EntryName::try_from(name)?))
    }

    pub(super) fn stand(&self, path: &Path) -> Stand {
        let wanted = index_key(path);
        match self.sorted.peek().and_then(|key| key.strip_prefix(wanted.as_slice())) {
            Some([]) => Stand::At,
            Some([0, ..]) => Stand::Below,
            _ => Stand::Elsewhere,
        }
    }
}
