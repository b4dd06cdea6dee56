//! How two trees differ.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Only in the second.
    Added,
    /// Only in the first.
    Removed,
    /// In both, and not the same.
    Changed,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The path, of any bytes.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// How.
    pub change: Change,
    /// Size in the first, of a file.
    pub before_bytes: Option<u64>,
    /// Size in the second, of a file.
    pub after_bytes: Option<u64>,
    /// Whether it is a directory (only told of one that is empty).
    pub directory: bool,
}

/// Paths as bytes: not every one is text.
mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into())
    }
}
