//! Reading one file of a version into memory.

use std::ffi::OsStr;

use super::repository::Repository;
use crate::content::directory::resolve;
use crate::error::{Error, GetHint, Kind, Result};
use crate::model::name::EntryName;
use crate::model::tree::Target;
use crate::model::version::VersionInfo;

/// The maximum length of a file that is read at once, in bytes: 1 GiB.
pub const READ_MAX_BYTES: u64 = 1 << 30;

/// Returns the content of the file at `path`, whose parts are separated by `/`.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such file, [`Kind::Full`] if it is longer than
/// [`READ_MAX_BYTES`].
pub fn read_file(repository: &Repository, version: &VersionInfo, path: &str) -> Result<Vec<u8>> {
    let reference = version.reference();
    let names: Vec<EntryName> = path
        .split('/')
        .map(|name| EntryName::try_from(OsStr::new(name)))
        .collect::<std::result::Result<_, _>>()?;
    let entry = resolve(&repository.reader, version.root, &names)?;
    let Some(Target::File { content, .. }) = entry.map(|entry| entry.target) else {
        return Err(Error::new(Kind::NotFound, format!("{reference} has no file {path}")));
    };
    if content.size_bytes() > READ_MAX_BYTES {
        let what = format!("{path} in {reference} is too long to be read at once");
        return Err(Error::new(Kind::Full, what).hint(GetHint::WriteOut));
    }
    let mut bytes = vec![0; content.size_bytes() as usize];
    repository.reader.read_at(&content, 0, &mut bytes)?;
    Ok(bytes)
}
