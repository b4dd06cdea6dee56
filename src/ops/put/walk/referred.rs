//! The files that references name, in the order of paths.

use std::path::Path;

use crate::error::Result;
use crate::model::name::EntryName;
use crate::ops::put::external_sort::Sorted;
use crate::ops::put::reference::Mounts;
use crate::ops::put::source::index_key;

/// What references name, as far as it is still to come.
pub struct Referred {
    pub(super) sorted: Sorted,
    pub(super) mounts: Mounts,
    /// Whether the bytes of files of this machine are hashed.
    pub(super) checksum: bool,
}

/// Where a walk stands to what references name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// Not at the path, nor below it.
    Elsewhere,
    /// The path is that of an external file.
    At,
    /// External files lie below it.
    Below,
}

impl Referred {
    /// Of `sorted`; files of this machine are hashed if `checksum`.
    pub fn new(sorted: Sorted, checksum: bool) -> Self {
        Self { sorted, mounts: Mounts::default(), checksum }
    }

    /// The name in directory `relative` of what comes next, if that is there or below.
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
