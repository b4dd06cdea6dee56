//! Numbers about a repository, and about what this process did with a remote store.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

use super::repository::Repository;
use crate::error::{Kind, Result};
use crate::registry::RegistryInfo;

/// Returns the numbers of packs, objects and bytes in the repository; `None` for a user who may not
/// see all of it.
pub fn contents(repository: &Repository) -> Result<Option<RegistryInfo>> {
    match repository.registry.info() {
        Err(e) if e.kind() == Kind::Denied => Ok(None),
        info => info.map(Some),
    }
}

/// Numbers since the process began; all zero over a store in a directory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stats {
    /// True if there is a remote store.
    pub remote: bool,
    /// Reads of objects that did not wait for the store.
    pub cache_hits: u64,
    /// Reads of objects that waited for the store.
    pub cache_misses: u64,
    /// Bytes that did not have to be fetched.
    pub saved_bytes: u64,
    /// Bytes that came from the store.
    pub fetched_bytes: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// Requests that failed for good.
    pub failures: u64,
    /// Objects whose bytes were wrong, in the cache or from the store.
    pub wrong_objects: u64,
    /// Segments that were evicted for others.
    pub evictions: u64,
    /// Bytes in the cache.
    pub cache_bytes: u64,
    /// The limit of `cache_bytes`.
    pub cache_limit_bytes: u64,
    /// Segments in the cache.
    pub cache_files: u64,
    /// The slowest requests of the last minutes: a description, and milliseconds.
    pub slowest: Vec<(String, u64)>,
}

impl Stats {
    /// Returns the share of reads that did not wait for the store, in percent; `None` without reads.
    pub fn hit_percent(&self) -> Option<u64> {
        let all = self.cache_hits + self.cache_misses;
        (self.cache_hits * 100).checked_div(all)
    }
}

/// Returns the numbers of this process.
pub(crate) fn stats(repository: &Repository) -> Stats {
    let Some(fetcher) = repository.store.fetcher() else {
        return Stats::default();
    };
    let counters = &fetcher.counters;
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (cache_bytes, cache_files) = fetcher.cache().map_or((0, 0), |cache| cache.entered());
    let milliseconds = |took: std::time::Duration| took.as_millis() as u64;
    Stats {
        remote: true,
        cache_hits: get(&counters.hits),
        cache_misses: get(&counters.misses),
        saved_bytes: get(&counters.hit_bytes),
        fetched_bytes: get(&counters.fetched_bytes),
        requests: get(&counters.requests),
        in_flight: get(&counters.in_flight),
        retries: fetcher.threads().retries.load(Ordering::Relaxed),
        failures: get(&counters.failures),
        wrong_objects: get(&counters.wrong_objects),
        evictions: get(&counters.evictions),
        cache_bytes,
        cache_limit_bytes: fetcher.cache().map_or(0, |cache| cache.limit_bytes()),
        cache_files,
        slowest: counters
            .slowest()
            .into_iter()
            .map(|slow| (slow.what, milliseconds(slow.took)))
            .collect(),
    }
}
