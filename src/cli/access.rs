//! Options of stores, and keys to servers, from the settings.

use artifactfs::config::{Config, Credentials};
use artifactfs::content::options::{Keys, StoreOptions};

/// Returns the options of stores.
pub fn access(config: &Config) -> StoreOptions {
    let mut access = StoreOptions::default();
    if let Some(bytes) = config.cache_bytes.value {
        access.cache_bytes = bytes;
    }
    access.cache.clone_from(&config.cache_dir.value);
    let credentials = credentials(config);
    access.keys = Keys::new(move |url| credentials.find(&url.to_string(), &url.server));
    access.external_folders.clone_from(&config.external_dirs.value);
    access
}

/// Returns the sources of this user's keys.
pub fn credentials(config: &Config) -> Credentials {
    Credentials { key_file: config.key_file.value.clone(), file: config.credentials.clone() }
}
