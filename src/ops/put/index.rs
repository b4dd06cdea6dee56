//! The put index: size, times, inode and content of every file that the last put of a source saw,
//! in walk order. Unchanged files are not read again. It is a file that is read and written as a
//! stream.
//!
//! ```text
//! magic "AFSPUT2\n"   record*      record := length:u32le postcard
//! ```
//! A lost index costs time, nothing else. A record is used only if size, mtime, ctime, device and
//! inode are the same. A file is entered only if every later change of it must show in these. For
//! that, its times lie well before the moment it was read, and no process had it mapped for writing
//! (`file.rs`). The first format had no such rule and is not read.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use super::walk::event::FileMeta;
use crate::error::{IoContext, Result};
use crate::model::tree::Content;

const MAGIC: &[u8; 8] = b"AFSPUT2\n";
/// The maximum length of a record: a path of 4,096 bytes and a few numbers.
const RECORD_MAX_BYTES: u64 = 8_192;

#[derive(Serialize, Deserialize)]
struct Record {
    key: Vec<u8>,
    stamp: Stamp,
    content: Content,
}

/// The last index, read in step with a walk.
pub(crate) struct OldIndex {
    file: Option<BufReader<File>>,
    next: Option<Record>,
}

impl OldIndex {
    /// Opens the index at `path`. If it is missing, cannot be opened or has another format, it is
    /// empty and every file is read.
    pub(crate) fn open(path: &Path) -> Self {
        let mut file = match File::open(path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(e) => {
                if e.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(
                        "cannot open the put index {}, so every file is read: {e}",
                        path.display()
                    );
                }
                None
            }
        };
        let mut magic = [0; MAGIC.len()];
        let good = file.as_mut().is_some_and(|f| f.read_exact(&mut magic).is_ok());
        let mut index = Self { file: file.filter(|_| good && magic == *MAGIC), next: None };
        index.advance();
        index
    }

    /// Returns an index without records: every file is read.
    pub(crate) fn empty() -> Self {
        Self { file: None, next: None }
    }

    fn advance(&mut self) {
        self.next = self.file.as_mut().and_then(read_record);
        if self.next.is_none() {
            self.file = None;
        }
    }

    /// Returns the content of the file with this key, if its stamp is the same. Keys must ascend
    /// from call to call.
    pub(crate) fn find(&mut self, key: &[u8], stamp: &Stamp) -> Option<Content> {
        while self.next.as_ref().is_some_and(|record| record.key.as_slice() < key) {
            self.advance();
        }
        let record = self.next.as_ref().filter(|r| r.key == key && r.stamp == *stamp)?;
        Some(record.content)
    }
}

fn read_record(file: &mut BufReader<File>) -> Option<Record> {
    let mut length = [0; 4];
    file.read_exact(&mut length).ok()?;
    let length = u64::from(u32::from_le_bytes(length));
    if length > RECORD_MAX_BYTES {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).ok()?;
    postcard::from_bytes(&bytes).ok()
}

/// Removes an index that names content which is no longer stored.
pub(crate) fn forget(path: &Path) {
    if let Err(e) = fs::remove_file(path) {
        tracing::debug!("the put index {} was not removed: {e}", path.display());
    }
}

/// The index of this put, which replaces the old one when the put is done.
pub(crate) struct NewIndex {
    file: Option<(BufWriter<tempfile::NamedTempFile>, PathBuf)>,
}

impl NewIndex {
    /// Begins an index as a temporary file beside the old one.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let folder = path.parent().expect("an index lies in the folder of puts");
        fs::create_dir_all(folder).at("create", folder)?;
        let file = tempfile::NamedTempFile::new_in(folder).at("create", folder)?;
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC).at("write", folder)?;
        Ok(Self { file: Some((file, path.to_owned())) })
    }

    /// Adds a file, unless a later change of it may not show in its stamp.
    pub(crate) fn add(&mut self, meta: &FileMeta, content: Content, now: SystemTime) {
        let Some((file, _)) = &mut self.file else {
            return;
        };
        if !meta.settles_in.is_some_and(|age| meta.stamp.is_older(age, now)) {
            return;
        }
        let (key, stamp) = (meta.key.clone(), meta.stamp);
        let bytes = postcard::to_stdvec(&Record { key, stamp, content });
        let bytes = bytes.expect("a record has no shape postcard cannot write");
        let length = (bytes.len() as u32).to_le_bytes();
        if file.write_all(&length).and_then(|()| file.write_all(&bytes)).is_err() {
            // Perhaps the disk is full. The old index stays: the next put reads what changed since.
            self.file = None;
        }
    }

    /// Replaces the old index.
    pub(crate) fn keep(self) {
        let Some((file, path)) = self.file else {
            return;
        };
        let kept = file.into_inner().map_err(|e| e.into_error());
        let kept = kept.and_then(|file| file.persist(&path).map_err(|e| e.error));
        if let Err(e) = kept {
            tracing::debug!("the put index {} was not kept: {e}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_the_bytes_of_the_format() {
        let digest = crate::model::digest::Digest::from_bytes([7; 32]);
        let size_bytes = 300;
        let contents = [
            Content::Empty,
            Content::Chunk { digest, size_bytes },
            Content::Recipe { digest, size_bytes },
            Content::External { digest, size_bytes },
        ];
        for (kind, content) in (0u8..).zip(contents) {
            let bytes = postcard::to_stdvec(&content).unwrap();
            let rest = if kind == 0 { Vec::new() } else { [&[7; 32][..], &[0xac, 2]].concat() };
            assert_eq!((bytes[0], &bytes[1..]), (kind, rest.as_slice()));
            assert_eq!(content.code(), kind);
        }
    }
}
