//! The rows that calls on many objects read, so that an engine over a network fetches them at once.

use std::collections::BTreeSet;

use super::table::object;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::registry::engine::{Span, View, Want};
use crate::registry::keys::{self, Key, Space};

/// Announces reads of the records of objects.
pub(in crate::registry) fn want_objects(view: &dyn View, digests: &[Digest]) -> Result<()> {
    view.want(&|| Ok(Want::keys(digests.iter().map(keys::object))))
}

/// Announces reads of the records of objects, and of their packs.
pub(in crate::registry) fn want_packs(view: &dyn View, digests: &[Digest]) -> Result<()> {
    want_objects(view, digests)?;
    view.want(&|| {
        let mut packs = BTreeSet::new();
        for digest in digests {
            packs.extend(object(view, digest)?.map(|located| located.extent.pack));
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
