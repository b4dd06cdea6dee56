//! Options of stores from flags and environment: cache and folders of external files.

use std::path::PathBuf;

use bytesize::ByteSize;

use artifactfs::config::EXTERNAL_DIRS_VARIABLE;
use artifactfs::content::options::StoreOptions;
use artifactfs::error::{Error, Kind, Result};

/// Parses a number of bytes as people write it: `500MB`, `10GiB`, `4096`.
pub fn size(text: &str) -> Result<u64> {
    text.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| {
        Error::new(Kind::Usage, format!("\"{text}\" is not a size"))
            .hint("write it as 4096, 500MB, or 10GiB")
    })
}

/// Returns the options of stores; `variable` reads an environment variable.
///
/// # Errors
/// [`Kind::Usage`] if `cache_size` is not a size, or a folder of external files is relative.
pub fn access(
    directory: Option<PathBuf>,
    cache_size: Option<&str>,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> Result<StoreOptions> {
    let mut access = StoreOptions::default();
    if let Some(text) = cache_size {
        access.cache_bytes = size(text)?;
    }
    let home = || Some(variable("HOME")?.join(".cache"));
    let caches = || variable("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(home);
    access.cache = directory.or_else(|| Some(caches()?.join("artifactfs")));
    access.external_folders = external_folders(variable(EXTERNAL_DIRS_VARIABLE))?;
    Ok(access)
}

/// Parses the folders that external files may be in: absolute paths, separated by colons.
fn external_folders(text: Option<PathBuf>) -> Result<Option<Vec<PathBuf>>> {
    let Some(text) = text else { return Ok(None) };
    let folders = std::env::split_paths(&text).filter(|folder| !folder.as_os_str().is_empty());
    let folders: Vec<PathBuf> = folders.collect();
    if let Some(folder) = folders.iter().find(|folder| !folder.is_absolute()) {
        let what =
            format!("{EXTERNAL_DIRS_VARIABLE}: {} is not an absolute path", folder.display());
        return Err(Error::new(Kind::Usage, what).hint("write DIR:DIR, each from / on"));
    }
    Ok(Some(folders))
}
