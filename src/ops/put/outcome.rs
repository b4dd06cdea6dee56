//! The outcome of a put for each file, in path order. It goes to the index of the next put, or to
//! the draft that is rebased on the new version.

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

/// The maximum length of a record in bytes. Calls with relative names make paths longer than a
/// system call takes (4,096), so this is far above two of those.
const RECORD_MAX_BYTES: usize = 1 << 20;

/// The outcome of one path of a draft. Paths are relative to the draft's root.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A file that was read or has more than one hard link.
    File {
        /// Its path.
        path: Vec<u8>,
        /// Its content.
        content: Content,
        /// The path of its pack, if that is the same inode.
        shared: Option<PathBuf>,
    },
    /// A directory that differs from its lower; lines for what is below it come before.
    Directory {
        /// Its path.
        path: Vec<u8>,
        /// Its new tree.
        tree: Digest,
    },
}

/// The outcomes of a draft, in a file without a name, so that memory does not grow with the draft.
pub(crate) struct DraftOutcomes(BufWriter<File>);

impl DraftOutcomes {
    /// Creates the file in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        tempfile::tempfile_in(folder).map(BufWriter::new).map(Self).at("write in", folder)
    }

    fn add(&mut self, line: &Line) -> Result<()> {
        let bytes = postcard::to_stdvec(line).expect("a line has no shape postcard cannot write");
        if bytes.len() > RECORD_MAX_BYTES {
            let what = format!("a path in the draft has more than {RECORD_MAX_BYTES} bytes");
            return Err(Error::new(Kind::Unsupported, what).hint("use fewer levels of directories"));
        }
        let length = (bytes.len() as u32).to_le_bytes();
        let written = self.0.write_all(&length).and_then(|()| self.0.write_all(&bytes));
        written.map_err(|e| Error::io("cannot write the outcomes of a commit", e))
    }

    /// Calls `each` with every line.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a line that cannot be decoded; the errors of `each`.
    pub(crate) fn each(self, each: &mut dyn FnMut(Line) -> Result<()>) -> Result<()> {
        let read = |e| Error::io("cannot read the outcomes of a commit", e);
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
                Error::new(Kind::Corrupt, "the outcomes of a commit cannot be decoded").because(e)
            })?;
            each(line)?;
        }
    }
}

/// The destination of outcomes.
pub(crate) enum Outcomes {
    /// No destination.
    None,
    /// The index of the next put of the same source, and the time when this put began.
    Index(NewIndex, SystemTime),
    /// A draft.
    Draft(DraftOutcomes),
}

impl Outcomes {
    /// Records a file that was read, or known from the last put or the draft's lower.
    pub(crate) fn file(
        &mut self,
        file: &FileMeta,
        content: Content,
        read: bool,
        shared: Option<PathBuf>,
    ) -> Result<()> {
        match self {
            Self::None => Ok(()),
            // An external file that was not read has no stamp to compare.
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

    /// Records a directory that was walked.
    pub(crate) fn directory(&mut self, path: Vec<u8>, tree: Digest) -> Result<()> {
        match self {
            Self::Draft(outcomes) => outcomes.add(&Line::Directory { path, tree }),
            Self::None | Self::Index(..) => Ok(()),
        }
    }
}
