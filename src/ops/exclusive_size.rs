//! The bytes that deleting versions would free, computed without deleting.
//!
//! Each node is walked once. Chunks, of which there may be many millions, point at nothing. Chunks
//! with several references are put aside, sorted (on the disk if they are many) and counted at the
//! end. Memory follows the nodes that are shared, not the files.

use std::collections::{HashMap, HashSet};

use super::put::external_sort::{ExternalSort, Record};
use super::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::Located;
use crate::model::object_kind::ObjectKind;

/// The number of objects looked up in one call. It is large because a registry may be far away.
const BATCH: usize = 8_192;

/// Returns the bytes in the store that deleting versions with these roots would free: exactly what
/// [`super::delete::delete`] frees.
pub fn exclusive_bytes(repository: &Repository, roots: &[Digest]) -> Result<u64> {
    let mut lost: HashMap<Digest, u64> = HashMap::new();
    let mut goes = |digest: Digest, at: &Located| loses_last(&mut lost, digest, at);
    walk(repository, roots.to_vec(), &mut goes, &|found, refs| found >= refs)
}

/// Takes one reference from an object. Returns whether it was the last.
fn loses_last(lost: &mut HashMap<Digest, u64>, digest: Digest, at: &Located) -> bool {
    if at.refs <= 1 {
        return true;
    }
    let gone = lost.entry(digest).or_default();
    *gone += 1;
    let last = *gone == at.refs;
    if last {
        lost.remove(&digest);
    }
    last
}

/// Returns the bytes in the store of everything that a version with this root is made of, each
/// object once.
pub(crate) fn stored_bytes(repository: &Repository, root: Digest) -> Result<u64> {
    let mut seen = HashSet::new();
    // An object with one reference is met only once.
    let mut first = |digest: Digest, at: &Located| at.refs <= 1 || seen.insert(digest);
    walk(repository, vec![root], &mut first, &|_, _| true)
}

/// Walks from the roots to everything they are made of, and returns the bytes of what counts.
/// `enters` decides whether a node counts and is walked. `counts` decides whether a chunk counts,
/// from how often it was met and its references.
fn walk(
    repository: &Repository,
    mut open: Vec<Digest>,
    enters: &mut dyn FnMut(Digest, &Located) -> bool,
    counts: &dyn Fn(u64, u64) -> bool,
) -> Result<u64> {
    let mut aside = ExternalSort::new(&repository.layout.puts(), u64::MAX);
    let mut total = 0;
    while !open.is_empty() {
        let batch = open.split_off(open.len().saturating_sub(BATCH));
        // The reader remembers the places of the nodes that it is about to read.
        let located = repository.reader.locate(&batch)?;
        for (digest, at) in batch.into_iter().zip(located) {
            let Some(at) = at else { continue };
            if at.kind == ObjectKind::Chunk && at.refs > 1 {
                aside.push(chunk(&digest, &at))?;
            } else if at.kind == ObjectKind::Chunk || enters(digest, &at) {
                total += u64::from(at.extent.stored_bytes);
                open.extend(repository.reader.children(digest, at.kind)?);
            }
        }
    }
    Ok(total + count(aside, counts)?)
}

fn chunk(digest: &Digest, at: &Located) -> Record {
    let stored = u64::from(at.extent.stored_bytes).to_le_bytes();
    let body = [at.refs.to_le_bytes(), stored].concat();
    Record { key: digest.as_bytes().to_vec(), body }
}

/// Returns the bytes of those chunks in `aside` that count.
fn count(aside: ExternalSort, counts: &dyn Fn(u64, u64) -> bool) -> Result<u64> {
    let mut sorted = aside.sorted()?;
    let mut total = 0;
    while let Some(Record { key, body }) = sorted.take()? {
        let mut found = 1;
        while sorted.peek() == Some(&key[..]) {
            sorted.take()?;
            found += 1;
        }
        let (refs, stored) = count_and_bytes(&body).ok_or_else(|| {
            Error::new(Kind::Corrupt, "temporary records on the disk are not what was written")
        })?;
        if counts(found, refs) {
            total += stored;
        }
    }
    Ok(total)
}

fn count_and_bytes(body: &[u8]) -> Option<(u64, u64)> {
    let (refs, rest) = body.split_first_chunk()?;
    let (stored, _) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*refs), u64::from_le_bytes(*stored)))
}
