//! The rows that calls on many objects read, so that an engine over a network fetches them at once.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{NewObject, PackId};
use crate::registry::LeaseId;
use crate::registry::engine::{Span, View, Want};
use crate::registry::keys::{self, Key, Space};
use crate::registry::record::decode_object;

/// Announces reads of the records of objects.
pub(in crate::registry) fn want_objects(view: &dyn View, digests: &[Digest]) -> Result<()> {
    view.want(&|| Ok(Want::keys(digests.iter().map(keys::object))))
}

/// Announces reads of the records of the children of objects.
pub(super) fn want_children(view: &dyn View, objects: &[NewObject]) -> Result<()> {
    view.want(&|| {
        let children = objects.iter().flat_map(|object| &object.children);
        Ok(Want::keys(children.map(keys::object)))
    })
}

/// Returns what the registration of objects in a pack reads first.
pub(super) fn registration(lease: LeaseId, id: PackId, objects: &[NewObject]) -> Want {
    let children = objects.iter().flat_map(|object| &object.children);
    let digests: BTreeSet<_> =
        objects.iter().map(|object| &object.digest).chain(children).collect();
    let mut wanted: Vec<_> = digests.into_iter().map(keys::object).collect();
    wanted.extend([keys::lease(lease.0), keys::pack(id)]);
    Want::keys(wanted)
}

/// Announces reads of the records of objects, and of their packs.
pub(in crate::registry) fn want_packs(view: &dyn View, digests: &[Digest]) -> Result<()> {
    want_objects(view, digests)?;
    view.want(&|| {
        let mut packs = BTreeSet::new();
        for digest in digests {
            let Some(bytes) = view.get(&keys::object(digest))? else { continue };
            packs.insert(decode_object(&bytes)?.extent.pack);
        }
        Ok(Want::keys(packs.into_iter().map(keys::pack)))
    })
}

/// Announces reads of all that decides whether objects are garbage.
pub(in crate::registry) fn want_fates(view: &dyn View, digests: &[Digest]) -> Result<()> {
    view.want(&|| {
        let pins = digests.iter().map(|digest| {
            let (from, to) = Key::of(Space::Pin).fixed(digest.as_bytes()).range();
            Span { from, to, limit: 1 }
        });
        let keys =
            digests.iter().flat_map(|digest| [keys::object(digest), keys::unreachable(digest)]);
        Ok(Want { keys: keys.collect(), spans: pins.collect() })
    })?;
    want_packs(view, digests)
}
