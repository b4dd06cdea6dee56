//! Zones: sets of objects that may share bytes.
//!
//! A repository that is not served to others is one zone, [`Zone::WHOLE`]. In a zoned repository
//! each project is a zone. The last three bytes of the digests and pack ids of a zone are its
//! number, so a digest or a pack id tells to which project it belongs, and equal bytes in two
//! projects are two objects.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, RepositoryHint};

/// The number of bytes of a zone's number.
pub(crate) const ZONE_BYTES: usize = 3;

/// The number of a zone; 0 stands for the whole repository.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Zone(u32);

impl Zone {
    /// The zone of a repository that is one zone.
    pub const WHOLE: Self = Self(0);
    /// The zone with the largest number.
    pub(crate) const LAST: Self = Self((1 << (8 * ZONE_BYTES)) - 1);

    /// Returns the zone with a number, if there can be one.
    pub(crate) fn new(number: u64) -> Option<Self> {
        let number = u32::try_from(number).ok()?;
        (number <= Self::LAST.0).then_some(Self(number))
    }

    /// Returns the zone of which these are the bytes.
    pub(crate) const fn from_bytes([a, b, c]: [u8; ZONE_BYTES]) -> Self {
        Self(u32::from_be_bytes([0, a, b, c]))
    }

    /// Returns the bytes, big-endian.
    pub(crate) const fn to_bytes(self) -> [u8; ZONE_BYTES] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Returns the number.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// Builds the error of content that a zone refers to but does not have.
pub(crate) fn other_zone() -> Error {
    let what = "content of one project cannot be stored in another without being copied";
    Error::new(Kind::Unsupported, what).hint(RepositoryHint::CopyFiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_are_no_zones() {
        assert_eq!(Zone::new(0xff_ff_ff), Some(Zone::LAST));
        assert_eq!(Zone::new(0x01_00_00_00), None);
        assert_eq!(Zone::new(u64::MAX), None);
        assert_eq!(Zone::from_bytes(Zone(0x01_02_03).to_bytes()), Zone(0x01_02_03));
    }
}
