//! The decisions about objects and their counts: pure functions of the rows that were seen.

use crate::model::object::{Extent, Located, NewObject, PackId, Presence};
use crate::model::object_kind::ObjectKind;
use crate::registry::record::PackRecord;

/// Adds an object to (`sign` 1) or subtracts it from (-1) the record of its pack.
pub(super) fn count(pack: &mut PackRecord, located: &Located, sign: i64) {
    let stored = i64::from(located.extent.stored_bytes);
    pack.live_objects = pack.live_objects.saturating_add_signed(sign);
    pack.live_bytes = pack.live_bytes.saturating_add_signed(sign * stored);
    if located.refs == 0 && pack.lease.is_some() {
        pack.unreferenced = pack.unreferenced.saturating_add_signed(sign);
    }
}

/// Adds a parent to an object. Returns whether its pack has one unreferenced object less.
pub(super) fn refer(located: &mut Located) -> bool {
    located.refs += 1;
    located.refs == 1
}

/// The fate of an object that lost a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays: it has parents, or a lease holds it.
    Kept,
    /// It is marked as unreachable: its removal needs its children.
    Unreachable,
    /// It is removed at once: a chunk has no children.
    Removed,
}

/// Subtracts a parent from an object. `pinned` reports whether a lease pins the object, and is
/// called only if that matters.
///
/// # Errors
/// Those of `pinned`.
pub(super) fn unrefer<E>(
    located: &mut Located,
    pack: &mut PackRecord,
    pinned: impl FnOnce() -> Result<bool, E>,
) -> Result<Fate, E> {
    located.refs = located.refs.saturating_sub(1);
    let leased = pack.lease.is_some();
    if located.refs > 0 || leased || pinned()? {
        if located.refs == 0 && leased {
            pack.unreferenced += 1;
        }
        return Ok(Fate::Kept);
    }
    Ok(match located.kind {
        ObjectKind::Chunk => Fate::Removed,
        _ => Fate::Unreachable,
    })
}

/// The result of registering an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// The object was present, in this pack.
    Known(PackId),
    /// The object was absent and has a new place; its children are already counted.
    Mended(Located),
    /// The object has a new record; its children are not counted yet.
    New(Located),
}

/// Decides what registering an object in a pack changes. An absent object keeps its count, so
/// everything that needs it is mended at once.
pub(super) fn insert(old: Option<&Located>, pack: PackId, new: &NewObject) -> Inserted {
    let NewObject { kind, codec, body_bytes, offset, stored_bytes, .. } = *new;
    let extent = Extent { pack, offset, stored_bytes };
    let presence = Presence::Present;
    let located = |refs| Located { kind, codec, body_bytes, extent, refs, presence };
    match old {
        Some(old) => match old.presence {
            Presence::Present => Inserted::Known(old.extent.pack),
            Presence::Absent => Inserted::Mended(located(old.refs)),
            Presence::AbsentUncounted => Inserted::New(located(old.refs)),
        },
        None => Inserted::New(located(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;
    use proptest::prelude::*;

    fn pack_id(byte: u8) -> PackId {
        PackId([byte; 16])
    }

    fn object(kind: ObjectKind) -> NewObject {
        let digest = Digest::of(kind, b"x");
        let (codec, body_bytes, offset, stored_bytes) = (0, 10, 64, 7);
        NewObject { digest, kind, codec, body_bytes, offset, stored_bytes, children: Vec::new() }
    }

    fn located(kind: ObjectKind, refs: u64, presence: Presence) -> Located {
        let Inserted::New(located) = insert(None, pack_id(5), &object(kind)) else {
            panic!("nothing was there");
        };
        Located { refs, presence, ..located }
    }

    /// The fate of an object after the loss of one of `refs` parents.
    fn fate(kind: ObjectKind, refs: u64, leased: bool, pinned: bool) -> Fate {
        let mut pack = PackRecord { lease: leased.then_some(1), ..PackRecord::default() };
        let mut located = located(kind, refs, Presence::Present);
        unrefer(&mut located, &mut pack, || Ok::<_, ()>(pinned)).unwrap()
    }

    #[test]
    fn an_object_without_parents_and_leases_is_garbage() {
        use ObjectKind::{Chunk, Tree};
        assert_eq!(fate(Chunk, 1, false, false), Fate::Removed);
        assert_eq!(fate(Tree, 1, false, false), Fate::Unreachable);
        for (refs, leased, pinned) in [(2, false, false), (1, true, false), (1, false, true)] {
            assert_eq!(fate(Chunk, refs, leased, pinned), Fate::Kept);
            assert_eq!(fate(Tree, refs, leased, pinned), Fate::Kept);
        }
    }

    #[test]
    fn an_object_is_stored_once_and_an_absent_one_is_mended() {
        let new = object(ObjectKind::Tree);
        let found = |presence| {
            let old = located(ObjectKind::Tree, 3, presence);
            insert(Some(&old), pack_id(9), &new)
        };
        assert_eq!(found(Presence::Present), Inserted::Known(pack_id(5)));
        let Inserted::Mended(mended) = found(Presence::Absent) else { panic!("it was absent") };
        assert_eq!(
            (mended.refs, mended.extent.pack, mended.presence),
            (3, pack_id(9), Presence::Present)
        );
        let Inserted::New(new) = found(Presence::AbsentUncounted) else { panic!("it was absent") };
        assert_eq!((new.refs, new.extent.pack), (3, pack_id(9)));
    }

    proptest! {
        /// The counts of a pack under a lease after any row of changes are those of its objects.
        #[test]
        fn the_counts_of_a_pack_follow_its_objects(steps in prop::collection::vec((0usize..6, any::<bool>()), 1..200)) {
            let mut pack = PackRecord { lease: Some(1), ..PackRecord::default() };
            let mut objects: Vec<_> =
                (0..6).map(|_| located(ObjectKind::Chunk, 0, Presence::Present)).collect();
            objects.iter().for_each(|object| count(&mut pack, object, 1));
            for (index, more) in steps {
                let object = &mut objects[index];
                match more {
                    true => pack.unreferenced -= u64::from(refer(object)),
                    false if object.refs > 0 => {
                        let fate = unrefer(object, &mut pack, || Ok::<_, ()>(false)).unwrap();
                        prop_assert_eq!(fate, Fate::Kept);
                    }
                    false => {}
                }
                let unreferenced = objects.iter().filter(|object| object.refs == 0).count() as u64;
                prop_assert_eq!((pack.live_objects, pack.live_bytes, pack.unreferenced), (6, 42, unreferenced));
            }
        }
    }
}
