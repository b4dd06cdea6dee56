//! What a frozen draft has on the host, for whoever makes a version of it.

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

/// What the host has under a name.
#[derive(Debug)]
pub enum Upper {
    /// A name of the tree below that was removed.
    Whiteout,
    /// A file, and what it stands on.
    File(Option<ContentXattr>),
    /// A directory, and what it stands on.
    Directory(Option<TreeXattr>),
    /// A symlink, and where it points.
    Symlink(Box<[u8]>),
    /// Something that no version holds.
    Special(&'static str),
}

impl Upper {
    /// What is at `path`, with its attributes.
    ///
    /// # Errors
    /// What the host says.
    pub fn at(path: &Path) -> Result<(Self, fs::Metadata)> {
        let meta = fs::symlink_metadata(path).at("stat", path)?;
        let kind = meta.file_type();
        let told = |e: Errno| Error::io(format!("cannot read {}", path.display()), e.into());
        let upper = if kind.is_dir() {
            Self::Directory(TreeXattr::of(path).map_err(told)?)
        } else if kind.is_file() {
            Self::File(ContentXattr::at(path).map_err(told)?)
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

/// The names the host has in a directory of a draft, sorted.
///
/// # Errors
/// What the host says.
pub fn upper_entries(directory: &Path) -> Result<Vec<EntryName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        names.push(EntryName::try_from(&*entry.at("list", directory)?.file_name())?);
    }
    names.sort_unstable();
    Ok(names)
}

/// A file of a frozen draft that stands on content and has bytes of its own.
pub struct DraftFile {
    file: Arc<File>,
    /// What it stands on.
    pub xattr: ContentXattr,
    /// Its length.
    pub size_bytes: u64,
}

impl DraftFile {
    /// Opens it.
    ///
    /// # Errors
    /// What the host says.
    pub fn open(path: &Path, xattr: ContentXattr) -> Result<Self> {
        let file = File::open(path).at("read", path)?;
        let size_bytes = file.metadata().at("stat", path)?.len();
        let xattr = ContentXattr { visible_bytes: xattr.visible_bytes.min(size_bytes), ..xattr };
        Ok(Self { file: Arc::new(file), xattr, size_bytes })
    }

    /// Fills `buffer` from `offset`; how much was there.
    ///
    /// # Errors
    /// What the host or the base says.
    pub fn read(&self, lower: &dyn Lower, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let xattr = ContentXattr { clean: false, ..self.xattr };
        Ok(read_with_lower(lower, Some(&self.file), &xattr, offset, buffer)?)
    }

    /// Whether the bytes from `offset` to `end` are all the content's.
    ///
    /// # Errors
    /// What the host says.
    pub fn is_transparent(&self, offset: u64, end: u64) -> io::Result<bool> {
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
