//! The digests of children in nodes.
//!
//! The nodes of a zone hold them without the bytes of the zone. A node can therefore point only at
//! objects of its own zone, and its body is the same in every zone.

use super::digest::{DIGEST_BYTES, Digest};
use super::varint::Reader;
use super::zone::{ZONE_BYTES, Zone};

/// The format number at the head of nodes of [`Zone::WHOLE`].
const WHOLE_FORMAT: u8 = 1;
/// The format number at the head of nodes of all other zones.
const ZONED_FORMAT: u8 = 2;

/// Returns the format of the nodes of a zone.
pub(super) fn format_of(zone: Zone) -> u8 {
    if zone == Zone::WHOLE { WHOLE_FORMAT } else { ZONED_FORMAT }
}

/// Returns the zone of the children of a node with this format and digest; `None` for a format that
/// this release does not support.
pub(super) fn zone_of(format: u8, digest: Digest) -> Option<Zone> {
    match format {
        WHOLE_FORMAT => Some(Zone::WHOLE),
        ZONED_FORMAT => Some(digest.zone()).filter(|zone| *zone != Zone::WHOLE),
        _ => None,
    }
}

/// Appends the digest of a child to a node of a zone.
///
/// # Panics
/// If the child belongs to another zone: a node must never point at it.
pub(super) fn put_child(out: &mut Vec<u8>, zone: Zone, child: Digest) {
    let bytes = child.as_bytes();
    if zone == Zone::WHOLE {
        return out.extend_from_slice(bytes);
    }
    assert_eq!(child.zone(), zone, "a node points at an object of another zone");
    out.extend_from_slice(&bytes[..DIGEST_BYTES - ZONE_BYTES]);
}

/// Takes the digest of a child from the front of what is left of a node of a zone.
pub(super) fn take_child(reader: &mut Reader<'_>, zone: Zone) -> Option<Digest> {
    if zone == Zone::WHOLE {
        return reader.array().map(Digest::from_bytes);
    }
    let mut bytes = [0; DIGEST_BYTES];
    let (content, _) = bytes.split_at_mut(DIGEST_BYTES - ZONE_BYTES);
    content.copy_from_slice(reader.take(DIGEST_BYTES - ZONE_BYTES)?);
    Some(Digest::from_bytes(bytes).in_zone(zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object_kind::ObjectKind;

    fn body(zone: Zone, child: Digest) -> Vec<u8> {
        let mut body = Vec::new();
        put_child(&mut body, zone, child.in_zone(zone));
        body
    }

    #[test]
    fn a_child_comes_back_in_the_zone_of_its_node() {
        let child = Digest::of(ObjectKind::Chunk, b"x");
        for number in [0, 1, 0x01_02_03, 0xff_ff_ff] {
            let zone = Zone::new(number).unwrap();
            let body = body(zone, child);
            let node = Digest::of(ObjectKind::Tree, &body).in_zone(zone);
            assert_eq!(zone_of(format_of(zone), node), Some(zone));
            assert_eq!(take_child(&mut Reader::new(&body), zone), Some(child.in_zone(zone)));
        }
    }

    #[test]
    fn the_body_of_a_node_is_the_same_in_each_zone() {
        let child = Digest::of(ObjectKind::Chunk, b"x");
        let [one, other] = [7, 8].map(|number| body(Zone::new(number).unwrap(), child));
        assert_eq!(one, other);
    }
}
