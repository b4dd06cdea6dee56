//! The options with which a process reads a store: its cache, its deadlines, and the folders it may read.

use std::path::PathBuf;
use std::time::Duration;

/// The size of a cache that nobody chose.
pub const DEFAULT_CACHE_BYTES: u64 = 10 << 30;

/// How long operations may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Listings, look-ups.
    pub metadata: Duration,
    /// What is in files.
    pub data: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { metadata: Duration::from_secs(10), data: Duration::from_secs(60) }
    }
}

/// How a remote store is read; a local one needs none of it.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Where what was fetched is kept; `None`: nowhere.
    pub cache: Option<PathBuf>,
    /// What that may take.
    pub cache_bytes: u64,
    /// How long operations may take.
    pub deadlines: Deadlines,
    /// Whether more is fetched than is asked for.
    pub reads_ahead: bool,
    /// The folders of this machine that external files may be in; `None`: all.
    pub external_folders: Option<Vec<PathBuf>>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let (cache_bytes, deadlines) = (DEFAULT_CACHE_BYTES, Deadlines::default());
        Self { cache: None, cache_bytes, deadlines, reads_ahead: true, external_folders: None }
    }
}
