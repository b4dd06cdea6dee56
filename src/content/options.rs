//! The options with which a process reads a store: its cache, its deadlines, and the folders it may
//! read.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::host::Host;

/// The size of a cache if none was chosen.
pub(crate) const DEFAULT_CACHE_BYTES: u64 = 10 << 30;

/// The time that operations may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The time for listings and look-ups.
    pub metadata: Duration,
    /// The time for the content of files.
    pub data: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { metadata: Duration::from_secs(10), data: Duration::from_secs(60) }
    }
}

/// The options with which a process reads a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The folder of the cache; `None` for no cache.
    pub cache: Option<PathBuf>,
    /// The bound of the cache.
    pub cache_bytes: u64,
    /// The time that operations may take.
    pub deadlines: Deadlines,
    /// True if more is fetched than a read needs.
    pub reads_ahead: bool,
    /// The folders of this machine that external files may be in; `None` for all.
    pub external_folders: Option<Vec<PathBuf>>,
    /// The clock and the randomness.
    pub host: Host,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let (cache_bytes, deadlines) = (DEFAULT_CACHE_BYTES, Deadlines::default());
        let host = Host::system();
        Self {
            cache: None,
            cache_bytes,
            deadlines,
            reads_ahead: true,
            external_folders: None,
            host,
        }
    }
}
