//! The steps of a walk, before and after the hashing threads.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::content::chunk::Cutter;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::name::EntryName;
use crate::model::object_kind::ObjectKind;
use crate::model::recipe::Piece;
use crate::model::tree::{Child, Content, Entry};
use crate::model::zone::{Zone, other_zone};
use crate::ops::put::file::OpenFile;
use crate::ops::put::stamp::Stamp;
use crate::ops::totals::Difference;

/// The maximum size of a file that a hashing thread reads, with others of one unit.
pub(crate) const SMALL_MAX_BYTES: u64 = 4 << 20;

/// A file of the walk.
#[derive(Debug, Clone)]
pub(crate) struct FileMeta {
    /// Its name in its directory.
    pub(crate) name: EntryName,
    /// Its path in the tree: NUL-separated as in the put index, with slashes if it is a draft's.
    pub(crate) key: Vec<u8>,
    /// Its path on the host; empty if it is not to be read there.
    pub(crate) path: PathBuf,
    /// Its executable bit.
    pub(crate) executable: bool,
    /// Its stamp when the walk saw it or it was read.
    pub(crate) stamp: Stamp,
    /// Its length then.
    pub(crate) size_bytes: u64,
    /// A flag that allows its bytes to become a pack's.
    pub(crate) share: bool,
    /// A flag of a file with more than one hard link.
    pub(crate) linked: bool,
    /// The age that its times need, when it is read, for a later change to show in them; `None` if
    /// it may never show.
    pub(crate) settles_in: Option<Duration>,
}

/// A chunk within a unit's buffer.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// The digest of the chunk.
    pub(crate) digest: Digest,
    /// The position of its bytes in the buffer.
    pub(crate) range: Range<usize>,
}

/// A step of building a tree. Steps come in path order.
#[derive(Debug)]
pub(crate) enum Event {
    /// The start of a directory.
    Enter(EntryName),
    /// The end of the directory.
    Leave,
    /// A symlink.
    Symlink(EntryName, Box<[u8]>),
    /// A file that has not changed since the last put.
    Known(FileMeta, Content),
    /// An external file, and the body of the object that describes it.
    Referred(FileMeta, Content, Vec<u8>),
    /// A file that was read, with all its chunks.
    File(FileMeta, Vec<Cut>),
    /// The start of a big file.
    Begin(FileMeta),
    /// Its next chunks.
    Pieces(Vec<Cut>),
    /// A number of chunks of zeros, which are next.
    Zeros(u64),
    /// Its next chunks, which are stored already.
    Reuse(Vec<Piece>),
    /// The end of a big file that did not change while it was read.
    End,
    /// The end of a big file that changed: the chunks so far do not count.
    Abort,
    /// An entry that an existing tree has already.
    Unchanged(Entry),
    /// A run of such entries: a leaf of the existing tree.
    Run(Child),
    /// An existing tree that is the result as a whole.
    Whole(Digest),
    /// A correction of the totals that the other events add up to.
    Adjust(Difference),
    /// A symlink that led out was followed.
    Followed,
    /// A warning, for example about a file that was left out.
    Warning(String),
}

impl Event {
    /// Gives new content its digests in the zone of a put.
    ///
    /// # Errors
    /// [`Unsupported`](crate::error::Kind::Unsupported) for stored content of another zone.
    pub(crate) fn enter(&mut self, zone: Zone) -> Result<()> {
        if zone == Zone::WHOLE {
            return Ok(());
        }
        let is_own = |digest: Digest| digest.zone() == zone;
        let is_own = match self {
            Self::File(_, cuts) | Self::Pieces(cuts) => {
                cuts.iter_mut().for_each(|cut| cut.digest = cut.digest.in_zone(zone));
                true
            }
            Self::Referred(_, content, _) => {
                *content = content.in_zone(zone);
                true
            }
            Self::Known(_, content) => content.digest().is_none_or(is_own),
            Self::Reuse(pieces) => pieces.iter().all(|piece| is_own(piece.digest)),
            Self::Unchanged(entry) => entry.target.object().is_none_or(is_own),
            Self::Run(child) => is_own(child.digest),
            Self::Whole(tree) => is_own(*tree),
            _ => true,
        };
        if is_own { Ok(()) } else { Err(other_zone()) }
    }
}

/// A step that needs reading or hashing before it is an [`Event`].
#[derive(Debug)]
pub(crate) enum Work {
    /// A file to be read.
    Small(FileMeta),
    /// An external file. If it has a path, it is to be read and hashed.
    Refer(FileMeta, External),
    /// The next chunks of a big file.
    Segment(Vec<Range<usize>>),
    /// The next chunks of a big file, as prehashing guessed them.
    Guess {
        /// The open file.
        file: Arc<OpenFile>,
        /// The offset of the first chunk.
        offset: u64,
        /// The guessed chunks.
        pieces: Vec<Piece>,
    },
}

/// A step of a walk.
#[derive(Debug)]
pub(crate) enum Found {
    /// A step that needs no work.
    Ready(Event),
    /// A step that a hashing thread turns into an event.
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

/// A run of steps: each is [`Found`] by a walk, or an [`Event`].
#[derive(Debug)]
pub(crate) struct Unit<T> {
    /// The steps in it.
    pub(crate) steps: Vec<T>,
    /// The bytes of its chunks.
    pub(crate) buffer: Vec<u8>,
}

impl<T> Default for Unit<T> {
    fn default() -> Self {
        Self { steps: Vec::new(), buffer: Vec::new() }
    }
}

/// Hashes the chunk in a range of `buffer`.
pub(crate) fn cut(buffer: &[u8], range: Range<usize>) -> Cut {
    Cut { digest: Digest::of(ObjectKind::Chunk, &buffer[range.clone()]), range }
}

/// Cuts and hashes `buffer` from `start` on.
pub(crate) fn cut_all(buffer: &[u8], mut start: usize, cutter: &Cutter) -> Vec<Cut> {
    let mut cuts = Vec::new();
    while start < buffer.len() {
        let window = &buffer[start..buffer.len().min(start + cutter.max_bytes())];
        let end = start + cutter.cut(window);
        cuts.push(cut(buffer, start..end));
        start = end;
    }
    cuts
}
