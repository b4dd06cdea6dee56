//! Pins: objects that a lease did not write and holds until it ends.
//!
//! A small batch has a key for each pin. A large batch has one key for all. Keys for each pin, in
//! the order of digests, would rewrite a page of the table for every object of a put. A transaction
//! that must find out whether objects are pinned reads the large batches once.

use std::collections::HashSet;

use crate::error::Result;
use crate::model::digest::Digest;
use crate::registry::engine::{Transaction, View};
use crate::registry::keys::{self, Key, Space};
use crate::registry::paging::each_below;
use crate::registry::record;

/// The number of digests from which on a batch has one key for all.
const TOGETHER: usize = 64;
/// The number of removed pins after which a transaction removes no more batches.
const UNPINNED_AT_ONCE: usize = 16_384;
/// The length of the digest prefixes that a transaction keeps in memory; two digests with an equal
/// prefix of 96 bits do not occur.
const MARK_BYTES: usize = 12;

/// Pins objects for a lease; `batch` is a number that the lease has not used yet.
pub(in crate::registry) fn pin(
    transaction: &mut dyn Transaction,
    lease: u64,
    batch: u64,
    digests: &[Digest],
) -> Result<()> {
    let space = if digests.len() < TOGETHER { Space::PinnedBy } else { Space::PinnedTogether };
    if space == Space::PinnedBy {
        for digest in digests {
            transaction.put(&keys::pin(digest, lease), &[])?;
        }
    }
    let key = Key::of(space).number(lease).number(batch).done();
    transaction.put(&key, &record::encode_digests(digests))
}

/// Removes some pins of a lease. Returns their digests; none if no pins are left.
pub(in crate::registry) fn unpin(
    transaction: &mut dyn Transaction,
    lease: u64,
) -> Result<Vec<Digest>> {
    let mut gone = Vec::new();
    for space in [Space::PinnedBy, Space::PinnedTogether] {
        let (from, to) = Key::of(space).number(lease).range();
        while gone.len() < UNPINNED_AT_ONCE {
            let Some((key, value)) = transaction.scan(&from, &to, 1)?.pop() else { break };
            let digests = record::decode_digests(&value)?;
            if space == Space::PinnedBy {
                for digest in &digests {
                    transaction.delete(&keys::pin(digest, lease))?;
                }
            }
            transaction.delete(&key)?;
            gone.extend(digests);
        }
    }
    Ok(gone)
}

/// The pins as one transaction sees them. The transaction must not pin or unpin after the first
/// call of `hold`.
#[derive(Default)]
pub(in crate::registry) struct Pins {
    /// The prefixes of all digests in large batches; `None` before they are read.
    together: Option<HashSet<[u8; MARK_BYTES]>>,
}

impl Pins {
    /// Returns whether a lease pins the object.
    pub(in crate::registry) fn hold(&mut self, view: &dyn View, digest: &Digest) -> Result<bool> {
        let (from, to) = Key::of(Space::Pin).fixed(digest.as_bytes()).range();
        if !view.scan(&from, &to, 1)?.is_empty() {
            return Ok(true);
        }
        let marks = match &mut self.together {
            Some(marks) => marks,
            unread => unread.insert(marks(view)?),
        };
        Ok(marks.contains(&mark(digest)))
    }
}

fn mark(digest: &Digest) -> [u8; MARK_BYTES] {
    let (mark, _) = digest.as_bytes().split_first_chunk().expect("a digest is longer");
    *mark
}

fn marks(view: &dyn View) -> Result<HashSet<[u8; MARK_BYTES]>> {
    let mut marks = HashSet::new();
    each_below(view, Key::of(Space::PinnedTogether), &mut |_, value| {
        marks.extend(record::decode_digests(value)?.iter().map(mark));
        Ok(())
    })?;
    Ok(marks)
}
