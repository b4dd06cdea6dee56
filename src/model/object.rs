//! Objects and where their bytes are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::name::NameError;
use super::object_kind::ObjectKind;

/// Bytes in a pack id.
pub const PACK_ID_BYTES: usize = 16;

/// The name of a pack: random, never derived from content, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackId(pub [u8; PACK_ID_BYTES]);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for PackId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let number = (text.len() == 2 * PACK_ID_BYTES)
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .ok_or_else(|| NameError::new("pack id", text.as_bytes(), "32 hexadecimal digits"))?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// Where an object's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The pack.
    pub pack: PackId,
    /// First byte within the pack's body.
    pub offset: u64,
    /// Bytes in the pack.
    pub stored_bytes: u32,
}

impl PackId {
    /// The pack that is never in a store: the place of an object that nobody has.
    pub const NONE: Self = Self([0; PACK_ID_BYTES]);
}

/// Whether the good bytes of an object are in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// They are, as far as anybody knows.
    Present,
    /// They are damaged or lost, and counted as before: its children still bear its reference.
    Absent,
    /// They are damaged or lost, and its children were never counted, since nobody could read it.
    AbsentUncounted,
}

impl Presence {
    /// The byte that stands for it in records.
    pub const fn code(self) -> u8 {
        match self {
            Self::Present => 0,
            Self::Absent => 1,
            Self::AbsentUncounted => 2,
        }
    }

    /// The presence of a byte, if it is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Present),
            1 => Some(Self::Absent),
            2 => Some(Self::AbsentUncounted),
            _ => None,
        }
    }
}

/// An object as the registry knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// What it is.
    pub kind: ObjectKind,
    /// How its bytes are stored; see `content::codec`.
    pub codec: u8,
    /// Bytes once decoded.
    pub body_bytes: u32,
    /// Where it is.
    pub extent: Extent,
    /// How many parents (trees, recipes, version roots) point at it.
    pub refs: u64,
    /// Whether its bytes are good. An absent object keeps its last place, or has [`PackId::NONE`]; reading it there
    /// is harmless, since every byte is verified. The next `put` that brings the object stores it anew.
    pub presence: Presence,
}

impl Located {
    /// Whether its bytes have to be stored again.
    pub fn is_absent(&self) -> bool {
        self.presence != Presence::Present
    }
}

/// An object that was written to a pack and is to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewObject {
    /// Its name.
    pub digest: Digest,
    /// What it is.
    pub kind: ObjectKind,
    /// How its bytes are stored.
    pub codec: u8,
    /// Bytes once decoded.
    pub body_bytes: u32,
    /// First byte within its pack's body.
    pub offset: u64,
    /// Bytes in the pack.
    pub stored_bytes: u32,
    /// For a recipe or tree: the objects it points at, each once.
    pub children: Vec<Digest>,
}
