//! The differences between two trees.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The way in which a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The path is only in the second tree.
    Added,
    /// The path is only in the first tree.
    Removed,
    /// The path is in both, and not the same.
    Changed,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The path, of any bytes.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// The way in which it differs.
    pub change: Change,
    /// The size of a file in the first tree.
    pub before_bytes: Option<u64>,
    /// The size of a file in the second tree.
    pub after_bytes: Option<u64>,
    /// True for a directory; only an empty one is reported.
    pub directory: bool,
}

/// Paths as bytes, since not every path is text.
mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into())
    }
}
