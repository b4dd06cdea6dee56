//! A trial of the upper file system when the drafts are opened. Drafts with a lower tree need
//! extended attributes that stay, holes that are reported exactly, before and after they reach the
//! disk, and whiteouts. The type of a file system does not reveal these.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, RenameFlags, SeekFrom, fallocate, renameat_with, seek};
use rustix::io::Errno;

use super::base_xattr::{ContentXattr, TreeXattr};
use crate::model::digest::Digest;
use crate::model::object_kind::ObjectKind;
use crate::model::tree::Content;

/// The size of a hole: longer than a huge page, which tmpfs may use for a single byte.
const HOLE_BYTES: u64 = 8 << 20;

fn lacks(what: &str) -> io::Error {
    io::Error::other(format!("its file system {what}"))
}

/// Turns an error of `step` into what the file system lacks.
fn needs<T>(what: &str, step: rustix::io::Result<T>) -> io::Result<T> {
    step.map_err(|e| lacks(&format!("{what} ({})", io::Error::from(e))))
}

/// Tries the upper file system in the directory `work`; the error names what is lacking.
///
/// # Errors
/// An error for the first feature that it lacks, and any error of the upper file system.
pub(crate) fn try_host(work: &Path, block_bytes: u64) -> io::Result<()> {
    let folder = tempfile::tempdir_in(work)?;
    xattrs(folder.path())?;
    holes(&folder.path().join("holes"), block_bytes)?;
    whiteouts(folder.path())
}

fn xattrs(folder: &Path) -> io::Result<()> {
    let lacking = "does not keep user extended attributes";
    let digest = Digest::of(ObjectKind::Chunk, b"");
    needs(lacking, TreeXattr { tree: digest, clean: true }.set(folder))?;
    if needs(lacking, TreeXattr::of(folder))?.is_none() {
        return Err(lacks(lacking));
    }
    let path = folder.join("mark");
    let file = File::create(&path)?;
    let content = Content::Chunk { digest, size_bytes: 1 };
    let xattr = ContentXattr { content, visible_bytes: 1, clean: true };
    needs(lacking, xattr.set(&file))?;
    if needs(lacking, ContentXattr::at(&path))? == Some(xattr) {
        Ok(())
    } else {
        Err(lacks(lacking))
    }
}

/// Returns the extents of data that the file system reports for a file.
fn reported_extents(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    loop {
        match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => {
                at = seek(file, SeekFrom::Hole(begin))?;
                pieces.push((begin, at));
            }
            Err(Errno::NXIO) => return Ok(pieces),
            Err(e) => {
                return Err(lacks(&format!("does not report holes ({})", io::Error::from(e))));
            }
        }
    }
}

fn holes(path: &Path, block: u64) -> io::Result<()> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let middle = (HOLE_BYTES / 2).next_multiple_of(block) + block;
    // The end divides a block, as most ends do.
    let size = (middle + HOLE_BYTES / 2).next_multiple_of(block) + block / 2;
    file.set_len(size)?;
    let exactly = |wanted: &[(u64, u64)], what: &str| -> io::Result<()> {
        // Data in memory may be reported in another way than data on the disk.
        for synced in [false, true] {
            if synced {
                file.sync_all()?;
            }
            if reported_extents(&file)? != wanted {
                return Err(lacks(&format!("does not report {what}")));
            }
        }
        Ok(())
    };
    exactly(&[], "holes")?;
    let bytes = vec![1; block as usize];
    file.write_all_at(&bytes, middle)?;
    let end = size - size % block;
    file.write_all_at(&bytes[..(size - end) as usize], end)?;
    exactly(&[(middle, middle + block), (end, size)], "holes around a written block")?;
    // After it is truncated and made longer, it has no new data.
    file.set_len(middle + block / 2)?;
    file.set_len(size)?;
    // (The rest of the divided block may be reported in smaller pieces.)
    for synced in [false, true] {
        if synced {
            file.sync_all()?;
        }
        let left = middle + block / 2..=middle + block;
        if !matches!(reported_extents(&file)?[..], [(begin, end)] if begin == middle && left.contains(&end))
        {
            return Err(lacks("does not report holes after a truncation"));
        }
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    needs("cannot punch holes", fallocate(&file, punch, 0, size.next_multiple_of(block)))?;
    exactly(&[], "punched holes")
}

fn whiteouts(folder: &Path) -> io::Result<()> {
    let (from, to) = (folder.join("from"), folder.join("to"));
    fs::write(&from, b"")?;
    let lacking = "has no whiteouts";
    needs(lacking, renameat_with(CWD, &from, CWD, &to, RenameFlags::WHITEOUT))?;
    needs(lacking, renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE))
}
