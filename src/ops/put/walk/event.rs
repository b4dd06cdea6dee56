//! The steps of a walk, before and after the hashing threads.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::content::chunk::Cutter;
use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::name::EntryName;
use crate::model::object_kind::ObjectKind;
use crate::model::recipe::Piece;
use crate::model::tree::{Child, Content, Entry};
use crate::ops::put::file::OpenFile;
use crate::ops::put::stamp::Stamp;
use crate::ops::totals::Difference;

/// Files up to this many bytes are read by the hashing threads, several to a unit.
pub const SMALL_MAX_BYTES: u64 = 4 << 20;

/// A file of the walk.
#[derive(Debug, Clone)]
pub struct FileMeta {
    /// Its name in its directory.
    pub name: EntryName,
    /// Its path, as the put index keeps it.
    pub key: Vec<u8>,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it may be executed.
    pub executable: bool,
    /// What it was when the walk saw it or it was read.
    pub stamp: Stamp,
    /// Its length then.
    pub size_bytes: u64,
    /// Whether its bytes may become a pack's.
    pub share: bool,
    /// Whether it has names elsewhere.
    pub linked: bool,
    /// How old its times must have been when it was read for a later change to show in them; `None` if
    /// it may never show.
    pub settles_in: Option<Duration>,
}

/// A chunk within a unit's buffer.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The chunk.
    pub digest: Digest,
    /// Where its bytes are.
    pub range: Range<usize>,
}

/// A step of building a tree. Steps come in path order.
#[derive(Debug)]
pub enum Event {
    /// A directory begins.
    Enter(EntryName),
    /// The directory ends.
    Leave,
    /// A symlink.
    Symlink(EntryName, Box<[u8]>),
    /// A file that has not changed since the last put.
    Known(FileMeta, Content),
    /// An external file, and the body of the object that describes it.
    Referred(FileMeta, Content, Vec<u8>),
    /// A file that was read: all its chunks.
    File(FileMeta, Vec<Cut>),
    /// A big file begins.
    Begin(FileMeta),
    /// Its next chunks.
    Pieces(Vec<Cut>),
    /// So many chunks of zeros.
    Zeros(u64),
    /// Its next chunks, which are there already.
    Reuse(Vec<Piece>),
    /// The big file is read, and was the same all the time.
    End,
    /// It changed: what was read of it does not count.
    Abort,
    /// An entry of a directory below that has not changed.
    Unchanged(Entry),
    /// A run of such entries: a node of the directory below.
    Run(Child),
    /// The whole tree is one that is there already.
    Whole(Digest),
    /// What is in the tree differs by so much from what events told.
    Adjust(Difference),
    /// A symlink that led out was followed.
    Followed,
    /// Something was left out.
    Warning(String),
}

/// A step that needs reading or hashing before it is an [`Event`].
#[derive(Debug)]
pub enum Work {
    /// A file to be read.
    Small(FileMeta),
    /// An external file; one with a path is to be read and hashed.
    Refer(FileMeta, External),
    /// The next chunks of a big file.
    Segment(Vec<Range<usize>>),
    /// The next chunks of a big file, as somebody guessed them.
    Guess {
        /// The file.
        file: Arc<OpenFile>,
        /// Where they begin.
        offset: u64,
        /// The chunks.
        pieces: Vec<Piece>,
    },
}

/// A step of a walk.
#[derive(Debug)]
pub enum Found {
    /// A step that needs neither.
    Ready(Event),
    /// A step of which a hashing thread makes an event.
    Work(Work),
}

impl From<Event> for Found {
    fn from(event: Event) -> Self {
        Self::Ready(event)
    }
}

impl From<Work> for Found {
    fn from(work: Work) -> Self {
        Self::Work(work)
    }
}

/// A run of steps: [`Found`] by a walk, or an [`Event`] each.
#[derive(Debug)]
pub struct Unit<T> {
    /// The steps in it.
    pub steps: Vec<T>,
    /// The bytes that its cuts are in.
    pub buffer: Vec<u8>,
}

impl<T> Default for Unit<T> {
    fn default() -> Self {
        Self { steps: Vec::new(), buffer: Vec::new() }
    }
}

/// Hashes the chunk in a range of `buffer`.
pub fn cut(buffer: &[u8], range: Range<usize>) -> Cut {
    Cut { digest: Digest::of(ObjectKind::Chunk, &buffer[range.clone()]), range }
}

/// The chunks of `buffer` from `start` on, hashed.
pub fn cut_all(buffer: &[u8], mut start: usize, cutter: &Cutter) -> Vec<Cut> {
    let mut cuts = Vec::new();
    while start < buffer.len() {
        let window = &buffer[start..buffer.len().min(start + cutter.max_bytes())];
        let end = start + cutter.cut(window);
        cuts.push(cut(buffer, start..end));
        start = end;
    }
    cuts
}
