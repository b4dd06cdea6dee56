//! What a host must do for drafts that stand on versions. It is tried when the drafts are opened, since
//! what a file system says of itself does not tell it: marks stay, holes are told exactly where they
//! are, before and after they reach the disk, and names can be covered.

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

/// Longer than a huge page, which tmpfs may use for a single byte.
const HOLE_BYTES: u64 = 8 << 20;

fn lacks(what: &str) -> io::Error {
    io::Error::other(format!("its file system {what}"))
}

/// What `step` says, as something the file system lacks.
fn needs<T>(what: &str, step: rustix::io::Result<T>) -> io::Result<T> {
    step.map_err(|e| lacks(&format!("{what} ({})", io::Error::from(e))))
}

/// Tries it in `work`; the error says what is lacking.
///
/// # Errors
/// What the host lacks, or says.
pub fn try_host(work: &Path, block_bytes: u64) -> io::Result<()> {
    let folder = tempfile::tempdir_in(work)?;
    xattrs(folder.path())?;
    holes(&folder.path().join("holes"), block_bytes)?;
    whiteouts(folder.path())
}

fn xattrs(folder: &Path) -> io::Result<()> {
    let lacking = "keeps no extended attributes of users";
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

/// The pieces of data that the host tells of a file.
fn reported_extents(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    loop {
        match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => {
                at = seek(file, SeekFrom::Hole(begin))?;
                pieces.push((begin, at));
            }
            Err(Errno::NXIO) => return Ok(pieces),
            Err(e) => return Err(lacks(&format!("does not tell holes ({})", io::Error::from(e)))),
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
        // What is in memory is told in one way, what is on the disk in another.
        for synced in [false, true] {
            if synced {
                file.sync_all()?;
            }
            if reported_extents(&file)? != wanted {
                return Err(lacks(&format!("does not tell {what}")));
            }
        }
        Ok(())
    };
    exactly(&[], "holes")?;
    let bytes = vec![1; block as usize];
    file.write_all_at(&bytes, middle)?;
    let end = size - size % block;
    file.write_all_at(&bytes[..(size - end) as usize], end)?;
    exactly(&[(middle, middle + block), (end, size)], "holes around a block that is written")?;
    // Cut off and made longer, it has no other data than it had.
    file.set_len(middle + block / 2)?;
    file.set_len(size)?;
    // (What is left of the divided block may be told in smaller pieces.)
    for synced in [false, true] {
        if synced {
            file.sync_all()?;
        }
        let left = middle + block / 2..=middle + block;
        if !matches!(reported_extents(&file)?[..], [(begin, end)] if begin == middle && left.contains(&end))
        {
            return Err(lacks("does not tell holes where a file was cut off"));
        }
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    needs("makes no holes", fallocate(&file, punch, 0, size.next_multiple_of(block)))?;
    exactly(&[], "holes that are made")
}

fn whiteouts(folder: &Path) -> io::Result<()> {
    let (from, to) = (folder.join("from"), folder.join("to"));
    fs::write(&from, b"")?;
    let lacking = "cannot cover removed names";
    needs(lacking, renameat_with(CWD, &from, CWD, &to, RenameFlags::WHITEOUT))?;
    needs(lacking, renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE))
}
