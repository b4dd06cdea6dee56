//! The upper of a frozen draft, as a commit reads it.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::base_xattr::{ContentXattr, TreeXattr};
use super::io::read_with_lower;
use super::lower::Lower;
use crate::error::{Error, IoContext, Result};
use crate::model::name::EntryName;

/// An entry of the upper.
#[derive(Debug)]
pub(crate) enum Upper {
    /// A name of the lower tree that was removed.
    Whiteout,
    /// A file, and its base xattr.
    File(Option<ContentXattr>),
    /// A directory, and its base xattr.
    Directory(Option<TreeXattr>),
    /// A symlink, and its target.
    Symlink(Box<[u8]>),
    /// A special file, which no version can hold.
    Special(&'static str),
}

impl Upper {
    /// Reads the entry at `path` and its metadata.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn at(path: &Path) -> Result<(Self, fs::Metadata)> {
        let meta = fs::symlink_metadata(path).at("stat", path)?;
        let kind = meta.file_type();
        let unreadable = |e: Errno| Error::io(format!("cannot read {}", path.display()), e.into());
        let upper = if kind.is_dir() {
            Self::Directory(TreeXattr::of(path).map_err(unreadable)?)
        } else if kind.is_file() {
            Self::File(ContentXattr::at(path).map_err(unreadable)?)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).at("read", path)?;
            Self::Symlink(target.into_os_string().into_vec().into())
        } else if kind.is_char_device() && meta.rdev() == 0 {
            Self::Whiteout
        } else if kind.is_socket() {
            Self::Special("a socket")
        } else if kind.is_fifo() {
            Self::Special("a FIFO")
        } else {
            Self::Special("a device")
        };
        Ok((upper, meta))
    }
}

/// Returns the names in an upper directory of a draft, sorted.
///
/// # Errors
/// Any error of the upper file system, and a name that no version can hold.
pub(crate) fn upper_entries(directory: &Path) -> Result<Vec<EntryName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        names.push(EntryName::try_from(&*entry.at("list", directory)?.file_name())?);
    }
    names.sort_unstable();
    Ok(names)
}

/// A file of a frozen draft with lower content and bytes of its own.
pub(crate) struct DraftFile {
    file: Arc<File>,
    /// The base xattr of the file.
    pub(crate) xattr: ContentXattr,
    /// The length of the file.
    pub(crate) size_bytes: u64,
}

impl DraftFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn open(path: &Path, xattr: ContentXattr) -> Result<Self> {
        let file = File::open(path).at("read", path)?;
        let size_bytes = file.metadata().at("stat", path)?.len();
        let xattr = ContentXattr { visible_bytes: xattr.visible_bytes.min(size_bytes), ..xattr };
        Ok(Self { file: Arc::new(file), xattr, size_bytes })
    }

    /// Fills `buffer` from `offset`, and returns the number of bytes that were there.
    ///
    /// # Errors
    /// Any error of the upper file system or of `lower`.
    pub(crate) fn read(
        &self,
        lower: &dyn Lower,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let xattr = ContentXattr { clean: false, ..self.xattr };
        Ok(read_with_lower(lower, Some(&self.file), &xattr, offset, buffer)?)
    }

    /// Returns whether the bytes from `offset` to `end` are all visible bytes of the lower content.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn is_transparent(&self, offset: u64, end: u64) -> io::Result<bool> {
        if end > self.xattr.visible_bytes {
            return Ok(false);
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(data >= end),
            Err(Errno::NXIO) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}
