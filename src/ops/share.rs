//! What would go if versions went: a deletion tried out on paper.

use std::collections::HashMap;

use super::repository::Repository;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::Located;

/// Dead nodes expanded at once.
const BATCH: usize = 1_024;

/// Bytes in the store that deleting versions with these roots would free: exactly what
/// [`super::delete::delete`] frees. Memory follows the objects that lose a reference and stay.
///
/// # Errors
/// What reading a node says.
pub fn exclusive_bytes(repository: &Repository, roots: &[Digest]) -> Result<u64> {
    let mut lost: HashMap<Digest, u64> = HashMap::new();
    let mut freed = 0;
    let mut dropped: Vec<Digest> = roots.to_vec();
    while !dropped.is_empty() {
        let batch = dropped.split_off(dropped.len().saturating_sub(BATCH));
        let located = repository.registry.locate(batch.clone())?;
        for (digest, at) in batch.into_iter().zip(located) {
            let Some(at) = at else { continue };
            if loses_last(&mut lost, digest, &at) {
                freed += u64::from(at.extent.stored_bytes);
                dropped.extend(repository.reader.children(digest, at.kind)?);
            }
        }
    }
    Ok(freed)
}

/// Takes one reference; whether it was the last.
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

/// Bytes in the store of everything a version with this root is made of, each object once.
///
/// # Errors
/// What reading a node says.
pub fn stored_bytes(repository: &Repository, root: Digest) -> Result<u64> {
    let mut seen = std::collections::HashSet::from([root]);
    let mut open = vec![root];
    let mut total = 0;
    while !open.is_empty() {
        let batch = open.split_off(open.len().saturating_sub(BATCH));
        let located = repository.registry.locate(batch.clone())?;
        for (digest, at) in batch.into_iter().zip(located) {
            let Some(at) = at else { continue };
            total += u64::from(at.extent.stored_bytes);
            let children = repository.reader.children(digest, at.kind)?;
            open.extend(children.into_iter().filter(|child| seen.insert(*child)));
        }
    }
    Ok(total)
}
