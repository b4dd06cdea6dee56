//! Base xattrs: extended attributes in the upper that name the lower tree of a directory or the
//! lower content of a file. They appear, move and go with their inode.
//!
//! ```text
//! user.artifactfs.tree      on a directory:    format:u8 (1)  flags:u8  digest:32
//! user.artifactfs.content   on a regular file: format:u8 (1)  flags:u8  kind:u8
//!                                              visible:u64le  size:u64le  digest:32
//! flags   1: clean, nothing below (or in it) differs from the tree (or content)
//! kind    1 chunk, 2 recipe, 3 external
//! ```
//! A directory without a base xattr has no lower tree. Of a file with one, the first `visible`
//! bytes come from the content, except where the upper file has data: its holes are transparent.
//! Beyond `visible` a hole reads as zeros, as usual.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, lgetxattr, lsetxattr};
use rustix::io::Errno;

use super::Result;
use crate::model::digest::{DIGEST_BYTES, Digest};
use crate::model::tree::Content;

/// The prefix of our own attributes, which users can neither see nor set.
pub(crate) const OWN_PREFIX: &str = "user.artifactfs.";
const TREE: &str = "user.artifactfs.tree";
const CONTENT: &str = "user.artifactfs.content";
const FORMAT: u8 = 1;
const CLEAN: u8 = 1;
const TREE_BYTES: usize = 2 + DIGEST_BYTES;
const CONTENT_BYTES: usize = 3 + 8 + 8 + DIGEST_BYTES;

/// The base xattr of a directory: its lower tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeXattr {
    /// The digest of the lower tree.
    pub(crate) tree: Digest,
    /// True if nothing in or below the directory differs from the lower tree.
    pub(crate) clean: bool,
}

/// The base xattr of a file: its lower content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentXattr {
    /// The lower content.
    pub(crate) content: Content,
    /// The number of its first bytes that are visible; at most the length of the file.
    pub(crate) visible_bytes: u64,
    /// True if the file is exactly the content.
    pub(crate) clean: bool,
}

fn absent<T>(error: Errno) -> Result<Option<T>> {
    match error {
        // A file system that refuses our attributes holds none of them.
        Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM => Ok(None),
        other => Err(other),
    }
}

impl TreeXattr {
    /// Reads the base xattr of the directory at `path`.
    ///
    /// # Errors
    /// EIO if it is damaged, and any error of the upper file system.
    pub(crate) fn of(path: &Path) -> Result<Option<Self>> {
        let mut bytes = [0; TREE_BYTES];
        match lgetxattr(path, TREE, &mut bytes) {
            Ok(TREE_BYTES) if bytes[0] == FORMAT => {
                let digest = bytes[2..].try_into().expect("the rest is a digest");
                let clean = bytes[1] & CLEAN != 0;
                Ok(Some(Self { tree: Digest::from_bytes(digest), clean }))
            }
            Ok(_) => Err(Errno::IO),
            Err(e) => absent(e),
        }
    }

    /// Writes the base xattr of the directory at `path`.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn set(&self, path: &Path) -> Result<()> {
        let mut bytes = [0; TREE_BYTES];
        (bytes[0], bytes[1]) = (FORMAT, if self.clean { CLEAN } else { 0 });
        bytes[2..].copy_from_slice(self.tree.as_bytes());
        lsetxattr(path, TREE, &bytes, XattrFlags::empty())
    }
}

impl ContentXattr {
    /// Returns the base xattr of a file that is exactly `content`; `None` for content without
    /// bytes.
    pub(crate) fn whole(content: Content) -> Option<Self> {
        let visible_bytes = content.size_bytes();
        (visible_bytes > 0).then_some(Self { content, visible_bytes, clean: true })
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if bytes.len() != CONTENT_BYTES || bytes[0] != FORMAT {
            return None;
        }
        let (visible_bytes, size_bytes) = (number(3)?, number(11)?);
        let digest = Digest::from_bytes(bytes[19..].try_into().ok()?);
        let content = Content::from_code(bytes[2], digest, size_bytes)?;
        Some(Self { content, visible_bytes, clean: bytes[1] & CLEAN != 0 })
    }

    fn encode(&self) -> Option<[u8; CONTENT_BYTES]> {
        let digest = self.content.digest()?;
        let mut bytes = [0; CONTENT_BYTES];
        bytes[..3].copy_from_slice(&[
            FORMAT,
            if self.clean { CLEAN } else { 0 },
            self.content.code(),
        ]);
        bytes[3..11].copy_from_slice(&self.visible_bytes.to_le_bytes());
        bytes[11..19].copy_from_slice(&self.content.size_bytes().to_le_bytes());
        bytes[19..].copy_from_slice(digest.as_bytes());
        Some(bytes)
    }

    fn read(found: Result<usize>, bytes: &[u8]) -> Result<Option<Self>> {
        match found {
            Ok(length) => Self::decode(&bytes[..length]).map(Some).ok_or(Errno::IO),
            Err(e) => absent(e),
        }
    }

    /// Reads the base xattr of the file at `path`.
    ///
    /// # Errors
    /// EIO if it is damaged, and any error of the upper file system.
    pub(crate) fn at(path: &Path) -> Result<Option<Self>> {
        let mut bytes = [0; CONTENT_BYTES];
        Self::read(lgetxattr(path, CONTENT, &mut bytes), &bytes)
    }

    /// Reads the base xattr of an open file of `size` bytes. If it makes more bytes visible than
    /// the file has, a truncation was interrupted: it is cut to `size` and written back.
    ///
    /// # Errors
    /// EIO if it is damaged, and any error of the upper file system.
    pub(crate) fn of(file: impl AsFd, size: u64) -> Result<Option<Self>> {
        let mut bytes = [0; CONTENT_BYTES];
        let file = file.as_fd();
        let xattr = Self::read(fgetxattr(file, CONTENT, &mut bytes), &bytes)?;
        match xattr {
            Some(xattr) if xattr.visible_bytes > size => {
                let cut = Self { visible_bytes: size, clean: false, ..xattr };
                cut.set(file)?;
                Ok((size > 0).then_some(cut))
            }
            xattr => Ok(xattr),
        }
    }

    /// Writes the base xattr of an open file; removes it if no byte is visible.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn set(&self, file: impl AsFd) -> Result<()> {
        match self.encode() {
            Some(bytes) if self.visible_bytes > 0 => {
                fsetxattr(file, CONTENT, &bytes, XattrFlags::empty())
            }
            _ => Self::clear(file),
        }
    }

    /// Removes the base xattr of an open file.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn clear(file: impl AsFd) -> Result<()> {
        match fremovexattr(file, CONTENT) {
            Err(Errno::NODATA) => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object_kind::ObjectKind;

    #[test]
    fn marks_come_back_from_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(ObjectKind::Chunk, b"x");
        assert_eq!(TreeXattr::of(folder.path()).unwrap(), None);
        for clean in [true, false] {
            let xattr = TreeXattr { tree: digest, clean };
            xattr.set(folder.path()).unwrap();
            assert_eq!(TreeXattr::of(folder.path()).unwrap(), Some(xattr));
        }
        let path = folder.path().join("file");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(70).unwrap();
        assert_eq!(ContentXattr::at(&path).unwrap(), None);
        let content = Content::Recipe { digest, size_bytes: 100 };
        let xattr = ContentXattr { content, visible_bytes: 100, clean: true };
        xattr.set(&file).unwrap();
        assert_eq!(ContentXattr::at(&path).unwrap(), Some(xattr));
        // The file was truncated, and its base xattr not yet.
        let cut = ContentXattr { visible_bytes: 70, clean: false, ..xattr };
        assert_eq!(ContentXattr::of(&file, 70).unwrap(), Some(cut));
        assert_eq!(ContentXattr::at(&path).unwrap(), Some(cut));
        ContentXattr { visible_bytes: 0, ..xattr }.set(&file).unwrap();
        assert_eq!(ContentXattr::at(&path).unwrap(), None);
    }
}
