//! What is done with open files, and extended attributes.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::Result;
use super::handle::OpenMode;
use super::scratch::Drafts;

/// The longest value, and the longest list of names, of extended attributes (xattr(7)).
const XATTR_MAX_BYTES: usize = 64 << 10;

impl Drafts {
    /// Fills `buffer` from `offset`; how much was there.
    ///
    /// # Errors
    /// What the host says.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let open = self.handles.file(handle)?;
        let mut done = 0;
        while done < buffer.len() {
            match open.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) => return Err(errno(&e)),
            }
        }
        Ok(done)
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// What the host says; ENOSPC when nothing fitted.
    pub fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<usize> {
        let open = self.handles.file(handle)?;
        let _change = self.gates.change(&open.draft)?;
        let mut done = 0;
        while done < data.len() {
            match open.file.write_at(&data[done..], offset + done as u64) {
                Ok(count) => done += count,
                // What fitted is told; the next write gets the error.
                Err(_) if done > 0 => break,
                Err(e) => return Err(errno(&e)),
            }
        }
        Ok(done)
    }

    /// Closes a file or directory.
    pub fn release(&self, handle: u64) {
        if let Some(file) = self.handles.close(handle)
            && file.mode == OpenMode::Write
        {
            self.gates.drop_writer(&file.draft);
        }
    }

    /// Makes a file durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn fsync(&self, handle: u64, data_only: bool) -> Result<()> {
        let open = self.handles.file(handle)?;
        let synced = if data_only { open.file.sync_data() } else { open.file.sync_all() };
        synced.map_err(|e| errno(&e))
    }

    /// Allocates or frees a part of a file.
    ///
    /// # Errors
    /// What the host says.
    pub fn fallocate(&self, handle: u64, offset: u64, length: u64, mode: u32) -> Result<()> {
        let open = self.handles.file(handle)?;
        let _change = self.gates.change(&open.draft)?;
        let flags = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        rustix::fs::fallocate(&open.file, flags, offset, length)
    }

    /// Where data or a hole begins.
    ///
    /// # Errors
    /// What the host says.
    pub fn seek(&self, handle: u64, to: SeekFrom) -> Result<u64> {
        rustix::fs::seek(&self.handles.file(handle)?.file, to)
    }

    /// Copies within the host.
    ///
    /// # Errors
    /// What the host says.
    pub fn copy_range(
        &self,
        (from, mut from_offset): (u64, u64),
        (to, mut to_offset): (u64, u64),
        length: u64,
    ) -> Result<usize> {
        let (from, to) = (self.handles.file(from)?, self.handles.file(to)?);
        let _change = self.gates.change(&to.draft)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        rustix::fs::copy_file_range(
            &from.file,
            Some(&mut from_offset),
            &to.file,
            Some(&mut to_offset),
            length,
        )
    }

    /// The host path of a node, for calls that only take paths (xattrs).
    fn host_path(&self, id: u64) -> Result<PathBuf> {
        Ok(self.root.join(self.lock_nodes().path(id)?))
    }

    /// The value of a `user.` attribute.
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, ENODATA, and what the host says.
    pub fn getxattr(&self, id: u64, name: &OsStr) -> Result<Vec<u8>> {
        only_user(name)?;
        let _names = self.shared();
        let path = self.host_path(id)?;
        let mut value = vec![0; XATTR_MAX_BYTES];
        let length = rustix::fs::lgetxattr(&path, name, &mut value)?;
        value.truncate(length);
        Ok(value)
    }

    /// Sets a `user.` attribute; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, and what the host says.
    pub fn setxattr(&self, id: u64, name: &OsStr, value: &[u8], flags: u32) -> Result<()> {
        only_user(name)?;
        let _change = self.change(id)?;
        let _names = self.shared();
        let path = self.host_path(id)?;
        let flags = rustix::fs::XattrFlags::from_bits_truncate(flags);
        rustix::fs::lsetxattr(&path, name, value, flags)
    }

    /// The names of all attributes, each ended by NUL.
    ///
    /// # Errors
    /// What the host says.
    pub fn listxattr(&self, id: u64) -> Result<Vec<u8>> {
        let _names = self.shared();
        let path = self.host_path(id)?;
        let mut names = vec![0; XATTR_MAX_BYTES];
        let length = rustix::fs::llistxattr(&path, &mut names)?;
        names.truncate(length);
        let mine = names.split_inclusive(|b| *b == 0).filter(|name| name.starts_with(b"user."));
        Ok(mine.flatten().copied().collect())
    }

    /// Removes a `user.` attribute.
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, ENODATA, and what the host says.
    pub fn removexattr(&self, id: u64, name: &OsStr) -> Result<()> {
        only_user(name)?;
        let _change = self.change(id)?;
        let _names = self.shared();
        rustix::fs::lremovexattr(self.host_path(id)?, name)
    }
}

fn only_user(name: &OsStr) -> Result<()> {
    let user = name.as_encoded_bytes().starts_with(b"user.");
    if user { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
