//! Checks of external files: whether they are still what was recorded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::repository::Repository;
use crate::content::directory::each_entry;
use crate::error::{Error, Result};
use crate::model::digest::Digest;
use crate::model::tree::{Content, Target};

/// The number of files checked at a time: most of the time is spent waiting for servers.
const CHECKS_AT_ONCE: usize = 16;

/// The result of checking files.
pub(crate) struct Checked {
    /// The files that failed, by their index, in order.
    pub(crate) failed: Vec<(usize, Error)>,
    /// The number of files that only their length tells from others.
    pub(crate) unproven: u64,
}

/// Checks the files that `digests` describe, several at a time.
pub(crate) fn check(repository: &Repository, digests: &[Digest]) -> Result<Checked> {
    let mut described = Vec::with_capacity(digests.len());
    for digest in digests {
        described.push((*digest, repository.reader.external(*digest)?));
    }
    let unproven = described.iter().filter(|(_, external)| !external.is_proven()).count() as u64;
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
    Ok(Checked { failed, unproven })
}

/// Counts the external files below a tree that only their length tells from others.
pub(crate) fn count_unproven(repository: &Repository, root: Digest) -> Result<u64> {
    let (mut left, mut count) = (vec![root], 0);
    while let Some(tree) = left.pop() {
        each_entry(&repository.reader, tree, &mut |entry| {
            match entry.target {
                Target::Directory(below) => left.push(below),
                Target::File { content: Content::External { digest, .. }, .. } => {
                    count += u64::from(!repository.reader.external(digest)?.is_proven());
                }
                Target::File { .. } | Target::Symlink(_) => {}
            }
            Ok(())
        })?;
    }
    Ok(count)
}
