//! Options of stores from the settings.

use artifactfs::config::Config;
use artifactfs::content::options::StoreOptions;

/// Returns the options of stores.
pub fn access(config: &Config) -> StoreOptions {
    let mut access = StoreOptions::default();
    if let Some(bytes) = config.cache_bytes.value {
        access.cache_bytes = bytes;
    }
    access.cache.clone_from(&config.cache_dir.value);
    access.external_folders.clone_from(&config.external_dirs.value);
    access
}
