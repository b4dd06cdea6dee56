//! The kinds of objects.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    /// Up to 1 MiB of file content.
    Chunk,
    /// The ordered chunks of one file, or a run of them.
    Recipe,
    /// One directory, or a run of its entries.
    Tree,
}

impl ObjectKind {
    /// Returns the byte that stands for it in indexes and records.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Chunk => 0,
            Self::Recipe => 1,
            Self::Tree => 2,
        }
    }

    /// Returns the kind that a byte stands for, if there is one.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Chunk),
            1 => Some(Self::Recipe),
            2 => Some(Self::Tree),
            _ => None,
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunk => "chunk",
            Self::Recipe => "recipe",
            Self::Tree => "tree",
        })
    }
}
