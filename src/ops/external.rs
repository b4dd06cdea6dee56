//! Asking whether files that live elsewhere are still what was recorded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::repository::Repository;
use crate::error::{Error, Result};
use crate::model::digest::Digest;

/// How many are asked for at a time: most of the time is spent waiting for servers.
const CHECKS_AT_ONCE: usize = 16;

/// Checks the files that `digests` describe, several at a time; those that failed, by their index, in order.
///
/// # Errors
/// When a descriptor cannot be read.
pub fn check(repository: &Repository, digests: &[Digest]) -> Result<Vec<(usize, Error)>> {
    let mut described = Vec::with_capacity(digests.len());
    for digest in digests {
        described.push((*digest, repository.reader.external(*digest)?));
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let externals = repository.store.externals();
    std::thread::scope(|scope| {
        for _ in 0..CHECKS_AT_ONCE.min(described.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((digest, external)) = described.get(index) else { return };
                    if let Err(e) = externals.verify(*digest, external) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, e));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable_by_key(|(index, _)| *index);
    Ok(failed)
}
