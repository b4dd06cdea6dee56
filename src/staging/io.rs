//! Reads and writes of open files.
//!
//! A file with lower content has the content's bytes where the upper file has holes. So data is
//! written in whole blocks, filled up with the content's bytes, and zeros are written as data. The
//! clean flag of the file is cleared before its first change.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::Result;
use super::base_xattr::ContentXattr;
use super::drafts::Drafts;
use super::handle::{Inode, OpenMode};
use super::lower::{Lower, errno_of};
use crate::model::tree::Content;

/// The most bytes that one copy reports: what a reply can hold, in whole blocks.
const COPY_MAX_BYTES: u64 = 1 << 31;
/// The most zeros in one write.
const ZEROS_BYTES: u64 = 1 << 20;

impl Drafts {
    /// Fills `buffer` from `offset`, and returns the number of bytes that were there.
    ///
    /// # Errors
    /// Any error of the upper file system or of the lower.
    pub(crate) fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let open = self.handles.file(handle)?;
        let shared = open.inode.read();
        let file = shared.came_up.as_ref().or(open.file.as_ref());
        match (shared.xattr, file) {
            (None, Some(file)) => read_host(file, offset, buffer),
            (Some(xattr), file) => read_with_lower(&*self.lower, file, &xattr, offset, buffer),
            (None, None) => Ok(0),
        }
    }

    /// Returns whether an open file has lower content that is `such`, or its lock is taken by a
    /// writer.
    pub(crate) fn has_lower_content(&self, handle: u64, such: impl Fn(&Content) -> bool) -> bool {
        self.handles.file(handle).is_ok_and(|open| {
            let stands = |xattr: Option<ContentXattr>| xattr.is_some_and(|m| such(&m.content));
            open.inode.try_read().is_none_or(|inode| stands(inode.xattr))
        })
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// Any error of the upper file system or of the lower; ENOSPC if no byte fits.
    pub(crate) fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<usize> {
        let open = self.handles.file(handle)?;
        let _change = self.gates.change(&open.draft)?;
        let file = open.upper_file()?;
        {
            let shared = open.inode.read();
            if shared.xattr.is_none() {
                return write_host(file, offset, data);
            }
        }
        let mut shared = open.inode.write();
        let Some(xattr) = shared.xattr else { return write_host(file, offset, data) };
        self.soil(&mut shared, file)?;
        self.own_end(file, &xattr, offset)?;
        let (start, filled) = self.filled(file, &xattr, offset, data)?;
        let written = write_host(file, start, &filled)? as u64;
        let end = (start + written).min(offset + data.len() as u64);
        // A short count reports what fitted; the next write returns the error.
        match end.checked_sub(offset) {
            Some(count) if count > 0 => Ok(count as usize),
            _ => Err(Errno::NOSPC),
        }
    }

    /// Returns `data` with the content's bytes around it, and the offset where the result begins.
    /// It reaches to the ends of the first and last block, if those are holes.
    fn filled(
        &self,
        file: &File,
        xattr: &ContentXattr,
        offset: u64,
        data: &[u8],
    ) -> Result<(u64, Vec<u8>)> {
        let block = self.block_bytes;
        let end = offset + data.len() as u64;
        let first = offset - offset % block;
        let fill_head = first < offset && first < xattr.visible_bytes && is_hole(file, first)?;
        let start = if fill_head { first } else { offset };
        let last = end - end % block;
        let tail_end = (last + block).min(xattr.visible_bytes);
        let fill_tail = last < end && end < tail_end && is_hole(file, last)?;
        let stop = if fill_tail { tail_end } else { end };
        let mut filled = vec![0; (stop - start) as usize];
        let head = (offset - start) as usize;
        if head > 0 {
            let seen = (xattr.visible_bytes.min(offset) - start) as usize;
            self.read_base(&xattr.content, start, &mut filled[..seen])?;
        }
        filled[head..head + data.len()].copy_from_slice(data);
        self.read_base(&xattr.content, end, &mut filled[head + data.len()..])?;
        Ok((start, filled))
    }

    /// Prepares a file that is about to end at `end`: one that is shorter grows, one that is longer
    /// is truncated. Fills the block that the shorter of the two ends divides with the content's
    /// bytes. Some file systems fill the rest of such a block with zeros, and the hole is lost.
    fn own_end(&self, file: &File, xattr: &ContentXattr, end: u64) -> Result<()> {
        let size = rustix::fs::fstat(file)?.st_size as u64;
        let (start, filled) = self.filled(file, xattr, size.min(end), &[])?;
        if write_host(file, start, &filled)? == filled.len() { Ok(()) } else { Err(Errno::NOSPC) }
    }

    /// Writes the content's bytes wherever the upper file system reports data in a file that has
    /// none of its own. File systems that keep small files within their inodes report no holes in
    /// them.
    fn own_told(&self, file: &File, xattr: &ContentXattr) -> Result<()> {
        let mut at = 0;
        while at < xattr.visible_bytes {
            let (own, stop) = whose(file, at, xattr.visible_bytes)?;
            while own && at < stop {
                let mut bytes = vec![0; (stop - at).min(ZEROS_BYTES) as usize];
                self.read_base(&xattr.content, at, &mut bytes)?;
                if write_host(file, at, &bytes)? < bytes.len() {
                    return Err(Errno::NOSPC);
                }
                at += bytes.len() as u64;
            }
            at = at.max(stop);
        }
        Ok(())
    }

    fn write_zeros(&self, file: &File, xattr: &ContentXattr, mut at: u64, end: u64) -> Result<()> {
        let zeros = vec![0; (end - at).min(ZEROS_BYTES) as usize];
        while at < end {
            let step = (end - at).min(ZEROS_BYTES);
            let (start, filled) = self.filled(file, xattr, at, &zeros[..step as usize])?;
            if write_host(file, start, &filled)? < filled.len() {
                return Err(Errno::NOSPC);
            }
            at += step;
        }
        Ok(())
    }

    fn read_base(&self, content: &Content, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let count = self.lower.read(content, offset, buffer).map_err(|e| errno_of(&e))?;
        if count == buffer.len() { Ok(()) } else { Err(Errno::IO) }
    }

    /// Truncates a file or makes it longer.
    pub(super) fn truncate(&self, node: u64, file: &File, size: u64) -> Result<()> {
        let length = || Ok(rustix::fs::fstat(file)?.st_size as u64);
        let inode = self.handles.share(node, || ContentXattr::of(file, length()?))?;
        let done = (|| {
            let mut shared = inode.write();
            let Some(xattr) = shared.xattr else { return rustix::fs::ftruncate(file, size) };
            if size != length()? {
                self.soil(&mut shared, file)?;
                self.own_end(file, &xattr, size)?;
            }
            rustix::fs::ftruncate(file, size)?;
            self.see_only(&mut shared, file, size.min(xattr.visible_bytes))
        })();
        self.handles.give_back(node);
        done
    }

    /// Prepares the first difference of a file from its content: clears its clean flag.
    fn soil(&self, shared: &mut Inode, file: &File) -> Result<()> {
        if let Some(xattr) = &mut shared.xattr
            && xattr.clean
        {
            self.own_told(file, xattr)?;
            let soiled = ContentXattr { clean: false, ..*xattr };
            self.set_mark(&soiled, file)?;
            *xattr = soiled;
        }
        Ok(())
    }

    /// Reduces the visible bytes of the content.
    fn see_only(&self, shared: &mut Inode, file: &File, visible_bytes: u64) -> Result<()> {
        let Some(xattr) = shared.xattr.filter(|xattr| xattr.visible_bytes != visible_bytes) else {
            return Ok(());
        };
        let xattr = ContentXattr { visible_bytes, clean: false, ..xattr };
        self.set_mark(&xattr, file)?;
        shared.xattr = (visible_bytes > 0).then_some(xattr);
        Ok(())
    }

    /// Writes the base xattr of a file, and notes that even fdatasync(2) must make it durable.
    fn set_mark(&self, xattr: &ContentXattr, file: &File) -> Result<()> {
        let upper = rustix::fs::fstat(file)?.st_ino;
        self.marked.lock().unwrap_or_else(PoisonError::into_inner).insert(upper);
        xattr.set(file)
    }

    /// Closes a file or directory.
    pub(crate) fn release(&self, handle: u64) {
        if let Some(file) = self.handles.close(handle)
            && file.mode == OpenMode::Write
        {
            self.gates.drop_writer(&file.draft);
        }
    }

    /// Makes a file durable.
    ///
    /// # Errors
    /// Any error of the disk.
    pub(crate) fn fsync(&self, handle: u64, data_only: bool) -> Result<()> {
        let open = self.handles.file(handle)?;
        let shared = open.inode.read();
        // A file that is only in the lower tree is durable.
        let Some(file) = shared.came_up.as_ref().or(open.file.as_ref()) else { return Ok(()) };
        let upper = rustix::fs::fstat(file)?.st_ino;
        let marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner).remove(&upper);
        let synced = if data_only && !marked { file.sync_data() } else { file.sync_all() };
        if synced.is_err() && marked {
            self.marked.lock().unwrap_or_else(PoisonError::into_inner).insert(upper);
        }
        synced.map_err(|e| errno(&e))
    }

    /// Allocates or frees a part of a file.
    ///
    /// # Errors
    /// EOPNOTSUPP for other modes on a file with lower content, and any error of the upper file
    /// system.
    pub(crate) fn fallocate(&self, handle: u64, offset: u64, length: u64, mode: u32) -> Result<()> {
        let open = self.handles.file(handle)?;
        let _change = self.gates.change(&open.draft)?;
        let flags = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        let file = open.upper_file()?;
        let mut shared = open.inode.write();
        let Some(xattr) = shared.xattr else {
            return rustix::fs::fallocate(file, flags, offset, length);
        };
        let end = offset.checked_add(length).ok_or(Errno::FBIG)?;
        let zeroes = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if (flags - FallocateFlags::KEEP_SIZE - zeroes) != FallocateFlags::empty() {
            return Err(Errno::OPNOTSUPP);
        }
        self.soil(&mut shared, file)?;
        if flags.intersects(zeroes) {
            if offset < xattr.visible_bytes && end < xattr.visible_bytes {
                return self.write_zeros(file, &xattr, offset, end);
            }
            self.own_end(file, &xattr, offset)?;
            self.see_only(&mut shared, file, offset.min(xattr.visible_bytes))?;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(file, punch, offset, length)?;
        } else {
            // Allocated blocks may be reported as holes or as data: none are allocated where holes
            // show the content.
            self.own_end(file, &xattr, end)?;
            let rest = offset.max(xattr.visible_bytes.next_multiple_of(self.block_bytes));
            if end > rest {
                rustix::fs::fallocate(file, flags, rest, end - rest)?;
            }
        }
        let longer = !flags.contains(FallocateFlags::KEEP_SIZE)
            && end > rustix::fs::fstat(file)?.st_size as u64;
        // Fewer bytes of the content may be visible by now.
        if let (true, Some(xattr)) = (longer && flags.intersects(zeroes), shared.xattr) {
            self.own_end(file, &xattr, end)?;
        }
        if longer { rustix::fs::ftruncate(file, end) } else { Ok(()) }
    }

    /// Returns the next offset of data or of a hole.
    ///
    /// # Errors
    /// ENXIO at or beyond the end, and any error of the upper file system.
    pub(crate) fn seek(&self, handle: u64, to: SeekFrom) -> Result<u64> {
        let open = self.handles.file(handle)?;
        let shared = open.inode.read();
        let file = shared.came_up.as_ref().or(open.file.as_ref());
        let visible = shared.xattr.map_or(0, |xattr| xattr.visible_bytes);
        let size = match file {
            Some(file) => rustix::fs::fstat(file)?.st_size as u64,
            None => visible,
        };
        let on_host = |to| match file {
            Some(file) if visible < size => rustix::fs::seek(file, to),
            _ => Ok(size),
        };
        match to {
            SeekFrom::Data(at) | SeekFrom::Hole(at) if at >= size => Err(Errno::NXIO),
            SeekFrom::Data(at) if at < visible => Ok(at),
            SeekFrom::Hole(at) if at < visible => on_host(SeekFrom::Hole(visible)),
            to => match file {
                Some(file) => rustix::fs::seek(file, to),
                None => Err(Errno::NXIO),
            },
        }
    }

    /// Copies within the upper. EOPNOTSUPP if that is not enough: the kernel then reads and writes.
    /// `plain` if the target must not get lower content.
    ///
    /// # Errors
    /// EOPNOTSUPP as above, and any error of the upper file system.
    pub(crate) fn copy_range(
        &self,
        (from, mut from_offset): (u64, u64),
        (to, mut to_offset): (u64, u64),
        length: u64,
        plain: bool,
    ) -> Result<u64> {
        let (source, target) = (self.handles.file(from)?, self.handles.file(to)?);
        let xattr = source.inode.read().xattr;
        if let Some(xattr) =
            xattr.filter(|xattr| xattr.clean && !plain && source.draft == target.draft)
        {
            let length = length.min(xattr.visible_bytes.saturating_sub(from_offset));
            return self.adopt(to, xattr.content, from_offset, to_offset, length);
        }
        let _change = self.gates.change(&target.draft)?;
        let shared = target.inode.read();
        if xattr.is_some() || shared.xattr.is_some() {
            return Err(Errno::OPNOTSUPP);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let copied = rustix::fs::copy_file_range(
            source.upper_file()?,
            Some(&mut from_offset),
            target.upper_file()?,
            Some(&mut to_offset),
            length,
        )?;
        Ok(copied as u64)
    }

    /// Copies a part of `content` by making it lower content. That is possible if the file is
    /// empty, or holds exactly the bytes of `content` before that part.
    ///
    /// # Errors
    /// EOPNOTSUPP if that is not so, and any error of the upper file system.
    pub(crate) fn adopt(
        &self,
        handle: u64,
        content: Content,
        from_offset: u64,
        to_offset: u64,
        length: u64,
    ) -> Result<u64> {
        if !self.can_stand() {
            return Err(Errno::OPNOTSUPP);
        }
        let open = self.handles.file(handle)?;
        let _change = self.gates.change(&open.draft)?;
        let file = open.upper_file()?;
        // The reply holds a 32-bit count.
        let length =
            length.min(content.size_bytes().saturating_sub(from_offset)).min(COPY_MAX_BYTES);
        if length == 0 {
            return Ok(0);
        }
        let mut shared = open.inode.write();
        let size = rustix::fs::fstat(file)?.st_size as u64;
        let before = match shared.xattr {
            None => 0,
            Some(xattr) if xattr.content == content => xattr.visible_bytes,
            Some(_) => return Err(Errno::OPNOTSUPP),
        };
        let goes_on = before == size && to_offset == size && from_offset == size;
        // A file with bytes of its own is not that content.
        let holds_data = before > 0 && !is_all_hole(file)?;
        // Some file systems fill the rest of a partial block with zeros when the file grows.
        let divided = !size.is_multiple_of(self.block_bytes);
        if !goes_on || holds_data || divided {
            return Err(Errno::OPNOTSUPP);
        }
        let visible_bytes = size + length;
        let clean = visible_bytes == content.size_bytes();
        let xattr = ContentXattr { content, visible_bytes, clean };
        self.set_mark(&xattr, file)?;
        rustix::fs::ftruncate(file, visible_bytes)?;
        if !clean {
            self.own_told(file, &xattr)?;
        }
        shared.xattr = Some(xattr);
        Ok(length)
    }
}

/// Fills `buffer` from `offset` of a file with lower content; `file` is its upper file.
///
/// # Errors
/// Any error of the upper file system or of the lower.
pub(super) fn read_with_lower(
    lower: &dyn Lower,
    file: Option<&Arc<File>>,
    xattr: &ContentXattr,
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize> {
    let size = match file {
        Some(file) => rustix::fs::fstat(file)?.st_size as u64,
        None => xattr.visible_bytes,
    };
    let wanted = size.saturating_sub(offset).min(buffer.len() as u64) as usize;
    let end = offset + wanted as u64;
    let mut at = offset;
    while at < end {
        let (own, stop) = match file {
            Some(file) if at >= xattr.visible_bytes => {
                let count = read_host(file, at, &mut buffer[(at - offset) as usize..wanted])?;
                return Ok((at - offset) as usize + count);
            }
            Some(file) if !xattr.clean => whose(file, at, end.min(xattr.visible_bytes))?,
            _ => (false, end.min(xattr.visible_bytes)),
        };
        let part = &mut buffer[(at - offset) as usize..(stop - offset) as usize];
        let count = match (own, file) {
            (true, Some(file)) => read_host(file, at, part)?,
            _ => lower.read(&xattr.content, at, part).map_err(|e| errno_of(&e))?,
        };
        if count == 0 {
            return Ok((at - offset) as usize);
        }
        at += count as u64;
    }
    Ok(wanted)
}

/// Returns whether the bytes at `at` are the upper file's own, and where that changes, at most
/// `end`.
fn whose(file: &File, at: u64, end: u64) -> Result<(bool, u64)> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) if data == at => {
            let hole = rustix::fs::seek(file, SeekFrom::Hole(at))?;
            Ok((true, hole.min(end)))
        }
        Ok(data) => Ok((false, data.min(end))),
        Err(Errno::NXIO) => Ok((false, end)),
        Err(e) => Err(e),
    }
}

fn is_hole(file: &File, block: u64) -> Result<bool> {
    match rustix::fs::seek(file, SeekFrom::Data(block)) {
        Ok(data) => Ok(data > block),
        Err(Errno::NXIO) => Ok(true),
        Err(e) => Err(e),
    }
}

pub(super) fn is_all_hole(file: &File) -> Result<bool> {
    match rustix::fs::seek(file, SeekFrom::Data(0)) {
        Ok(_) => Ok(false),
        Err(Errno::NXIO) => Ok(true),
        Err(e) => Err(e),
    }
}

fn read_host(file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(errno(&e)),
        }
    }
    Ok(done)
}

fn write_host(file: &File, offset: u64, data: &[u8]) -> Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.write_at(&data[done..], offset + done as u64) {
            Ok(count) => done += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // A short count reports what fitted; the next write returns the error.
            Err(_) if done > 0 => break,
            Err(e) => return Err(errno(&e)),
        }
    }
    Ok(done)
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
