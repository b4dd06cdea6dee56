//! What a put found out about each file, in path order: for the index of the next put, or for the
//! draft that stands on the new version afterwards.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::index::NewIndex;
use super::walk::event::FileMeta;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::tree::Content;

/// No record is longer: a path of 4,096 bytes and a few numbers.
const RECORD_MAX_BYTES: usize = 8_192;

/// The outcome of one path of a draft. Paths are relative to the draft's root.
#[derive(Debug, Serialize, Deserialize)]
pub enum Line {
    /// A file that was read; `shared` when its bytes are a pack's now.
    File {
        /// Where.
        path: Vec<u8>,
        /// What is in it.
        content: Content,
        /// The pack's file, if it is the same inode.
        shared: Option<PathBuf>,
    },
    /// A directory that differs from what it stood on; what is below it came before.
    Directory {
        /// Where.
        path: Vec<u8>,
        /// Its tree now.
        tree: Digest,
    },
}

/// The outcomes of a draft: a file without a name, so memory does not grow with the draft.
pub struct DraftOutcomes(BufWriter<File>);

impl DraftOutcomes {
    /// Begins one in `folder`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(folder: &Path) -> Result<Self> {
        tempfile::tempfile_in(folder).map(BufWriter::new).map(Self).at("write in", folder)
    }

    fn add(&mut self, line: &Line) -> Result<()> {
        let bytes = postcard::to_stdvec(line).expect("a line has no shape postcard cannot write");
        let length = (bytes.len() as u32).to_le_bytes();
        let written = self.0.write_all(&length).and_then(|()| self.0.write_all(&bytes));
        written.map_err(|e| Error::io("cannot note what was committed", e))
    }

    /// Calls `each` with every line.
    ///
    /// # Errors
    /// When it cannot be read, and what `each` says.
    pub fn each(self, each: &mut dyn FnMut(Line) -> Result<()>) -> Result<()> {
        let read = |e| Error::io("cannot read what was committed", e);
        let mut file = self.0.into_inner().map_err(|e| read(e.into_error()))?;
        file.rewind().map_err(read)?;
        let mut file = BufReader::new(file);
        let mut length = [0; 4];
        loop {
            match file.read_exact(&mut length) {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                done => done.map_err(read)?,
            }
            let length = u32::from_le_bytes(length) as usize;
            let mut bytes = vec![0; length.min(RECORD_MAX_BYTES)];
            file.read_exact(&mut bytes).map_err(read)?;
            let line = postcard::from_bytes(&bytes).map_err(|e| {
                Error::new(Kind::Corrupt, "what was committed cannot be read").because(e)
            })?;
            each(line)?;
        }
    }
}

/// Where it goes.
pub enum Outcomes {
    /// Nowhere.
    None,
    /// Into the index of the next put of the same path.
    Index(NewIndex, SystemTime),
    /// To a draft.
    Draft(DraftOutcomes),
}

impl Outcomes {
    /// A file that was read or known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(
        &mut self,
        file: &FileMeta,
        content: Content,
        read: bool,
        shared: Option<PathBuf>,
    ) -> Result<()> {
        match self {
            Self::None => Ok(()),
            // What is elsewhere is not known by a stamp.
            Self::Index(..) if file.path.as_os_str().is_empty() => Ok(()),
            Self::Index(index, now) => {
                index.add(file, content, *now);
                Ok(())
            }
            Self::Draft(outcomes) if read || file.linked => {
                let path = file.key.clone();
                outcomes.add(&Line::File { path, content, shared })
            }
            Self::Draft(_) => Ok(()),
        }
    }

    /// A directory that was walked.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn directory(&mut self, path: Vec<u8>, tree: Digest) -> Result<()> {
        match self {
            Self::Draft(outcomes) => outcomes.add(&Line::Directory { path, tree }),
            Self::None | Self::Index(..) => Ok(()),
        }
    }
}
