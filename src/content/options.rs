//! The options with which a process reads a store: its cache, its deadlines, the folders it may
//! read, and its keys to servers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{AccessHint, Error, Kind, Result};
use crate::model::api_key::ApiKey;
use crate::model::host::Host;
use crate::model::server_url::TeamUrl;

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

/// The access to a repository on a server.
#[derive(Debug, Clone)]
pub struct ServerAccess {
    /// The repository.
    pub url: TeamUrl,
    /// The key of the caller.
    pub key: ApiKey,
}

/// A function that returns the caller's key to a repository.
type FindKey = dyn Fn(&TeamUrl) -> Result<ApiKey> + Send + Sync;

/// A source of the caller's keys to servers.
#[derive(Clone)]
pub struct Keys(Arc<FindKey>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Returns a source that calls `find`.
    pub fn new(find: impl Fn(&TeamUrl) -> Result<ApiKey> + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }

    /// Returns the access to a repository.
    ///
    /// # Errors
    /// [`Kind::Denied`] if there is no key for its server.
    pub fn access(&self, url: &TeamUrl) -> Result<ServerAccess> {
        Ok(ServerAccess { url: url.clone(), key: (self.0)(url)? })
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(|url| {
            Err(Error::new(Kind::Denied, format!("there is no key for {url}"))
                .hint(AccessHint::SignIn(url.server.to_string())))
        })
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
    /// The caller's keys to servers.
    pub keys: Keys,
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
            keys: Keys::default(),
            host,
        }
    }
}
