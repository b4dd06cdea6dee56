//! Pins: objects that were there before, held by a lease until it ends.
//!
//! A few are kept one by one, each under a key. Many are kept as they come, a batch under one key: a key each, in
//! the order of digests, would rewrite a page of the table for every object of a put. Who has to know whether an
//! object is pinned reads the batches once in a transaction.

use std::collections::HashSet;

use crate::error::Result;
use crate::model::digest::Digest;
use crate::registry::engine::{Transaction, View};
use crate::registry::keys::{self, Key, Space};
use crate::registry::paging::each_below;
use crate::registry::record;

/// Digests of a batch from which on they are kept together.
const TOGETHER: usize = 64;
/// Pins from which on no more go in one transaction.
const UNPINNED_AT_ONCE: usize = 16_384;
/// Bytes of a digest that are remembered while a transaction looks for pins: no two have these in common.
const MARK_BYTES: usize = 12;

/// Pins objects for a lease; `batch` is a number that it has not used.
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

/// Takes some of a lease's pins away: which; none when there are none left.
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

/// What is pinned, as one transaction sees it. Nothing may be pinned or unpinned after the first question.
#[derive(Default)]
pub(in crate::registry) struct Pins {
    /// Of those that are kept together.
    together: Option<HashSet<[u8; MARK_BYTES]>>,
}

impl Pins {
    /// Whether a lease pins the object.
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
