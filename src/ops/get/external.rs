//! Getting external files: their bytes, or links to them.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, openat, readlinkat, symlinkat, unlinkat};

use super::{Job, Made, rename_into_place, temporary_name};
use crate::content::external;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::name::EntryName;
use crate::ops::repository::Repository;

/// The suffix of a file that holds the URL of an external file, if that cannot be linked.
pub(crate) const URL_SUFFIX: &str = ".url";
/// The number of bytes copied at a time.
const STEP_BYTES: u64 = 4 << 20;

/// Writes the bytes of an external file.
///
/// # Errors
/// [`Kind::Corrupt`] if they are not the bytes that were recorded.
pub(super) fn fill(repository: &Repository, file: &File, job: &Job, digest: Digest) -> Result<()> {
    let external = repository.reader.external(digest)?;
    let size = job.content.size_bytes();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; size.min(STEP_BYTES) as usize];
    let mut offset = 0;
    while offset < size {
        let step = (size - offset).min(STEP_BYTES) as usize;
        let part = &mut buffer[..step];
        repository.reader.read_at(&job.content, offset, part)?;
        hasher.update(part);
        file.write_all_at(part, offset).at("write", &job.shown)?;
        offset += step as u64;
    }
    if external.checksum.is_some_and(|recorded| recorded != *hasher.finalize().as_bytes()) {
        let what = format!("{} is not what was recorded: its bytes differ", external.url);
        return Err(Error::new(Kind::Corrupt, what));
    }
    Ok(())
}

/// Returns whether an open file of the right length has the bytes of an external file; `false` if
/// their checksum is unknown.
pub(super) fn is_same(repository: &Repository, file: &File, digest: Digest) -> Result<bool> {
    match repository.reader.external(digest)?.checksum {
        Some(recorded) => {
            let found =
                external::hash(file).map_err(|e| Error::io("cannot read the existing file", e))?;
            Ok(found == recorded)
        }
        None => Ok(false),
    }
}

/// Links an external file: by a symlink if it is of this machine, else by a file with its URL.
pub(super) fn link(repository: &Repository, job: &Job, digest: Digest) -> Result<Made> {
    let external = repository.reader.external(digest)?;
    match external.url.path() {
        Some(path) => {
            let there = readlinkat(&*job.directory, job.name.as_os_str(), Vec::new());
            if there.is_ok_and(|there| there.as_bytes() == path.as_os_str().as_bytes()) {
                return Ok(Made::Kept);
            }
            let temporary = temporary_name(&repository.host);
            symlinkat(&path, &*job.directory, &temporary).at("create", &job.shown)?;
            rename_into_place(&job.directory, &temporary, &job.name, &job.shown)?;
            Ok(Made::Written(0))
        }
        None => write_url(repository, job, &external),
    }
}

fn write_url(repository: &Repository, job: &Job, external: &Arc<External>) -> Result<Made> {
    let name = EntryName::try_from(&*[job.name.as_bytes(), URL_SUFFIX.as_bytes()].concat())?;
    let text = format!("{}\n", external.url);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(there) = openat(&*job.directory, name.as_os_str(), flags, Mode::empty())
        && let Ok(there) = std::io::read_to_string(File::from(there))
        && there == text
    {
        return Ok(Made::Kept);
    }
    let temporary = temporary_name(&repository.host);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    let file = openat(&*job.directory, &*temporary, flags, mode).at("create", &job.shown)?;
    if let Err(e) = File::from(file).write_all_at(text.as_bytes(), 0) {
        // The error of the write is returned; a leftover has a temporary name.
        let _ = unlinkat(&*job.directory, &*temporary, AtFlags::empty());
        return Err(e).at("write", &job.shown);
    }
    rename_into_place(&job.directory, &temporary, &name, &job.shown)?;
    Ok(Made::Written(text.len() as u64))
}
