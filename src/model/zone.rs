//! Zones: sets of objects that may share bytes.
//!
//! A repository that is not served to others is one zone, [`Zone::WHOLE`]. In a zoned repository
//! each project is a zone. The last three bytes of the digests and pack ids of a zone are its
//! number, so a digest or a pack id tells to which project it belongs, and equal bytes in two
//! projects are two objects. The nodes of such a zone hold the digests of their children without
//! these bytes. A node can therefore point only at objects of its own zone, and its body is the same
//! in every zone.

use serde::{Deserialize, Serialize};

use super::digest::{DIGEST_BYTES, Digest};
use super::varint;
use crate::error::{Error, Kind, RepositoryHint};

/// The number of bytes of a zone's number.
pub(crate) const ZONE_BYTES: usize = 3;
/// The format number at the head of nodes of [`Zone::WHOLE`].
const WHOLE_FORMAT: u8 = 1;
/// The format number at the head of nodes of all other zones.
const ZONED_FORMAT: u8 = 2;

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

    /// Returns the format of nodes.
    pub(super) const fn node_format(self) -> u8 {
        match self.0 {
            0 => WHOLE_FORMAT,
            _ => ZONED_FORMAT,
        }
    }

    /// Returns the zone whose digests the node with this digest and format holds; `None` for a
    /// format that this release does not support.
    pub(super) fn of_node(format: u8, digest: Digest) -> Option<Self> {
        match format {
            WHOLE_FORMAT => Some(Self::WHOLE),
            ZONED_FORMAT => Some(digest.zone()).filter(|zone| *zone != Self::WHOLE),
            _ => None,
        }
    }

    /// Appends the digest of a child to a node.
    ///
    /// # Panics
    /// If the child belongs to another zone: a node must never point at it.
    pub(super) fn put_child(self, out: &mut Vec<u8>, child: Digest) {
        let bytes = child.as_bytes();
        if self == Self::WHOLE {
            return out.extend_from_slice(bytes);
        }
        assert_eq!(child.zone(), self, "a node points at an object of another zone");
        out.extend_from_slice(&bytes[..DIGEST_BYTES - ZONE_BYTES]);
    }

    /// Takes the digest of a child from the front of what is left of a node.
    pub(super) fn take_child(self, reader: &mut varint::Reader<'_>) -> Option<Digest> {
        if self == Self::WHOLE {
            return reader.array().map(Digest::from_bytes);
        }
        let mut bytes = [0; DIGEST_BYTES];
        let (content, _) = bytes.split_at_mut(DIGEST_BYTES - ZONE_BYTES);
        content.copy_from_slice(reader.take(DIGEST_BYTES - ZONE_BYTES)?);
        Some(Digest::from_bytes(bytes).in_zone(self))
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
    use crate::model::object_kind::ObjectKind;

    #[test]
    fn a_child_comes_back_in_the_zone_of_its_node() {
        let child = Digest::of(ObjectKind::Chunk, b"x");
        for zone in [Zone::WHOLE, Zone(1), Zone(0x01_02_03), Zone::LAST] {
            let (child, mut body) = (child.in_zone(zone), Vec::new());
            zone.put_child(&mut body, child);
            let node = Digest::of(ObjectKind::Tree, &body).in_zone(zone);
            let found = Zone::of_node(zone.node_format(), node).unwrap();
            assert_eq!(found, zone);
            assert_eq!(found.take_child(&mut varint::Reader::new(&body)), Some(child));
        }
    }

    #[test]
    fn the_body_of_a_node_is_the_same_in_each_zone() {
        let child = Digest::of(ObjectKind::Chunk, b"x");
        let body = |zone: Zone| {
            let mut body = Vec::new();
            zone.put_child(&mut body, child.in_zone(zone));
            body
        };
        assert_eq!(body(Zone(7)), body(Zone(8)));
    }

    #[test]
    fn numbers_that_do_not_fit_are_no_zones() {
        assert_eq!(Zone::new(0xff_ff_ff), Some(Zone::LAST));
        assert_eq!(Zone::new(0x01_00_00_00), None);
        assert_eq!(Zone::new(u64::MAX), None);
        assert_eq!(Zone::from_bytes(Zone(0x01_02_03).to_bytes()), Zone(0x01_02_03));
    }
}
