//! External sort: any number of records, in memory and beyond that in runs on the disk. Keys of
//! external files sort in the order in which a walk meets their paths.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Kind, PutHint, Result};

/// The memory of records that become one run on the disk.
const RUN_BYTES: usize = 64 << 20;
/// The approximate memory of a record beside its bytes.
const RECORD_BYTES: usize = 64;
/// The maximum length of a record: a path, a URL and a few tags.
const RECORD_MAX_BYTES: usize = 64 << 10;

/// An external file of a version that is being made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its path in the version, components separated by NUL: the order of bytes is that of a walk.
    pub(crate) key: Vec<u8>,
    /// Its descriptor, encoded; that of a file of this machine has only its place.
    pub(crate) body: Vec<u8>,
}

/// A sorter that takes records in any order.
pub(crate) struct ExternalSort {
    folder: PathBuf,
    held: Vec<Record>,
    held_bytes: usize,
    runs: Vec<File>,
    count: u64,
    most: u64,
}

impl ExternalSort {
    /// Returns a sorter for up to `most` records, with its runs in `folder`.
    pub(crate) fn new(folder: &Path, most: u64) -> Self {
        let folder = folder.to_owned();
        Self { folder, held: Vec::new(), held_bytes: 0, runs: Vec::new(), count: 0, most }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there are more than allowed.
    pub(crate) fn push(&mut self, record: Record) -> Result<()> {
        self.count += 1;
        if self.count > self.most {
            let what = format!("the references name more than {} objects", self.most);
            return Err(Error::new(Kind::Usage, what).hint(PutHint::AllowObjects));
        }
        self.held_bytes += record.key.len() + record.body.len() + RECORD_BYTES;
        self.held.push(record);
        if self.held_bytes >= RUN_BYTES { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        self.held_bytes = 0;
        self.held.sort_unstable();
        std::fs::create_dir_all(&self.folder).at("create", &self.folder)?;
        let file = tempfile::tempfile_in(&self.folder).at("write in", &self.folder)?;
        let mut out = BufWriter::new(file);
        for record in self.held.drain(..) {
            let bytes =
                postcard::to_stdvec(&record).expect("a record has a shape that can be written");
            let length = (bytes.len() as u32).to_le_bytes();
            let written = out.write_all(&length).and_then(|()| out.write_all(&bytes));
            written.at("write in", &self.folder)?;
        }
        let mut file = out.into_inner().map_err(|e| e.into_error()).at("write in", &self.folder)?;
        file.rewind().at("read in", &self.folder)?;
        self.runs.push(file);
        Ok(())
    }

    /// Returns all records, sorted.
    pub(crate) fn sorted(mut self) -> Result<Sorted> {
        self.held.sort_unstable();
        let mut sorted = Sorted { runs: Vec::new(), next: BinaryHeap::new() };
        sorted.runs.extend(self.runs.into_iter().map(|file| Run::Disk(BufReader::new(file))));
        sorted.runs.push(Run::Memory(self.held.into_iter()));
        for index in 0..sorted.runs.len() {
            sorted.advance(index)?;
        }
        Ok(sorted)
    }
}

enum Run {
    Disk(BufReader<File>),
    Memory(IntoIter<Record>),
}

impl Run {
    fn next(&mut self) -> Result<Option<Record>> {
        let file = match self {
            Self::Memory(records) => return Ok(records.next()),
            Self::Disk(file) => file,
        };
        let failed = |e| Error::io("cannot read a list of references", e);
        let mut length = [0; 4];
        match file.read_exact(&mut length) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map_err(failed)?,
        }
        let mut bytes = vec![0; (u32::from_le_bytes(length) as usize).min(RECORD_MAX_BYTES)];
        file.read_exact(&mut bytes).map_err(failed)?;
        postcard::from_bytes(&bytes).map(Some).map_err(|e| {
            Error::new(Kind::Corrupt, "a list of references cannot be decoded").because(e)
        })
    }
}

/// Records in the order of their keys.
pub(crate) struct Sorted {
    runs: Vec<Run>,
    next: BinaryHeap<Reverse<(Record, usize)>>,
}

impl Sorted {
    fn advance(&mut self, run: usize) -> Result<()> {
        if let Some(record) = self.runs[run].next()? {
            self.next.push(Reverse((record, run)));
        }
        Ok(())
    }

    /// Returns the key of the next record.
    pub(crate) fn peek(&self) -> Option<&[u8]> {
        self.next.peek().map(|Reverse((record, _))| record.key.as_slice())
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if a later record of its run cannot be decoded.
    pub(crate) fn take(&mut self) -> Result<Option<Record>> {
        let Some(Reverse((record, run))) = self.next.pop() else { return Ok(None) };
        self.advance(run)?;
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_sorted_from_memory_and_disk_and_too_many_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = ExternalSort::new(folder.path(), 1_000);
        for number in 0..1_000u32 {
            let key = (number.wrapping_mul(2_654_435_761)).to_be_bytes().to_vec();
            sorter.push(Record { key, body: vec![1; 20] }).unwrap();
            if number % 300 == 299 {
                sorter.spill().unwrap();
            }
        }
        let over = sorter.push(Record { key: vec![0], body: Vec::new() }).unwrap_err();
        assert!(over.message().contains("1000"), "{over}");
        let mut sorted = sorter.sorted().unwrap();
        let (mut last, mut count) = (Vec::new(), 0);
        while let Some(peeked) = sorted.peek().map(<[u8]>::to_vec) {
            let record = sorted.take().unwrap().unwrap();
            assert_eq!(record.key, peeked);
            assert!(last < record.key);
            (last, count) = (record.key, count + 1);
        }
        assert_eq!(count, 1_000);
    }
}
