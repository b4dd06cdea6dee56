//! The walk: one thread, in path order, with big files read and cut on the way.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::feed::Feed;
use super::file::{OpenFile, SETTLED};
use super::index::{OldIndex, Stamp};
use super::referred::Referred;
use super::source::{IgnoreStack, Link, Source, index_key};
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::name::EntryName;
use crate::model::recipe::Piece;
use crate::model::tree::{Child, Content, Entry, SYMLINK_MAX_BYTES};
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

/// What happens next, in path order.
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
    /// A file to be read by a hashing thread.
    Small(FileMeta),
    /// An external file; one with a path is to be read and hashed.
    Refer(FileMeta, External),
    /// An external file, and the body of the object that describes it.
    Referred(FileMeta, Content, Vec<u8>),
    /// A file that was read: all its chunks.
    File(FileMeta, Vec<Cut>),
    /// A big file begins.
    Begin(FileMeta),
    /// Its next chunks, to be hashed.
    Segment(Vec<Range<usize>>),
    /// Its next chunks.
    Pieces(Vec<Cut>),
    /// So many chunks of zeros.
    Zeros(u64),
    /// Its next chunks, as somebody guessed them, to be read and hashed.
    Guess {
        /// The file.
        file: Arc<OpenFile>,
        /// Where they begin.
        offset: u64,
        /// The chunks.
        pieces: Vec<Piece>,
    },
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

/// A piece of work.
#[derive(Debug, Default)]
pub struct Unit {
    /// What happens in it.
    pub events: Vec<Event>,
    /// Bytes that its cuts are in.
    pub buffer: Vec<u8>,
}

/// The walk.
pub struct Scan<'a> {
    source: Option<&'a Source>,
    pub(super) referred: Option<Referred>,
    pub(super) old: OldIndex,
    ignores: IgnoreStack,
    /// Directories from the root down to here, by device and inode: a symlink back up is a loop.
    above: HashSet<(u64, u64)>,
    pub(super) feed: Feed<'a>,
}

impl<'a> Scan<'a> {
    /// A walk of `source` and what references name, that feeds `feed`.
    pub fn new(
        source: Option<&'a Source>,
        referred: Option<Referred>,
        old: OldIndex,
        feed: Feed<'a>,
    ) -> Self {
        let (ignores, above) = (IgnoreStack::default(), HashSet::new());
        Self { source, referred, old, ignores, above, feed }
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// What cannot be read, and what `emit` says.
    pub fn run(mut self) -> Result<()> {
        let top = Path::new("");
        match self.source.map(|source| (source, source.single().cloned())) {
            None => self.referred_before(top, None)?,
            Some((source, Some(name))) => {
                let (root, path) = (source.root(), Path::new(name.as_os_str()));
                let meta = fs::metadata(root).at("read", root)?;
                self.referred_before(top, Some(&name))?;
                self.file(name.clone(), path, root.to_owned(), &meta)?;
                self.referred_after(path, name.clone(), true)?;
                self.referred_before(top, None)?;
            }
            Some((source, None)) => {
                self.ignores = source.ignores()?;
                self.directory(source, top)?;
            }
        }
        self.feed.flush()
    }

    /// The contents of the directory at `relative`.
    fn directory(&mut self, source: &Source, relative: &Path) -> Result<()> {
        let full = source.root().join(relative);
        let meta = fs::metadata(&full).at("read", &full)?;
        let identity = (meta.dev(), meta.ino());
        if !self.above.insert(identity) {
            let what = format!("symlink {} leads back to a directory above it", full.display());
            return Err(Error::new(Kind::Conflict, what).hint("--exclude it, or use --no-follow"));
        }
        self.ignores.enter(&full)?;
        for name in sorted_names(&full)? {
            self.referred_before(relative, Some(&name))?;
            let path = relative.join(name.as_os_str());
            let told = self.entry(source, name.clone(), &path)?;
            self.referred_after(&path, name, told)?;
        }
        self.referred_before(relative, None)?;
        self.ignores.leave();
        self.above.remove(&identity);
        Ok(())
    }

    /// `false` when it is left out.
    fn entry(&mut self, source: &Source, name: EntryName, relative: &Path) -> Result<bool> {
        let full = source.root().join(relative);
        let mut meta = fs::symlink_metadata(&full).at("read", &full)?;
        let left_out = match meta.is_dir() {
            true => !source.filters().enters(relative),
            false => !source.filters().takes(relative),
        };
        if left_out || self.ignores.ignores(&full, meta.is_dir()) {
            return Ok(false);
        }
        if meta.is_symlink() {
            match source.link(relative)? {
                Link::Inside(target) if target.len() <= SYMLINK_MAX_BYTES => {
                    return self.feed.push(Event::Symlink(name, target), 0).map(|()| true);
                }
                Link::Inside(_) | Link::Outside => {
                    self.feed.push(Event::Followed, 0)?;
                    meta = fs::metadata(&full).at("read", &full)?;
                }
            }
        }
        if meta.is_dir() {
            self.feed.push(Event::Enter(name), 0)?;
            self.directory(source, relative)?;
            return self.feed.push(Event::Leave, 0).map(|()| true);
        }
        if meta.is_file() {
            return self.file(name, relative, full, &meta).map(|()| true);
        }
        let kind = special_kind(&meta);
        let what = format!("{} is {kind}: left out", full.display());
        self.feed.push(Event::Warning(what), 0).map(|()| false)
    }

    fn file(
        &mut self,
        name: EntryName,
        relative: &Path,
        path: PathBuf,
        meta: &fs::Metadata,
    ) -> Result<()> {
        let stamp = Stamp::of(meta);
        let key = index_key(relative);
        let known = self.old.find(&key, &stamp).filter(|known| !known.is_external());
        let executable = meta.mode() & 0o111 != 0;
        let size_bytes = meta.len();
        let file = FileMeta {
            name,
            key,
            path,
            executable,
            stamp,
            size_bytes,
            share: false,
            linked: false,
            // What is known was entered by this rule; for what is read it is found out.
            settles_in: Some(SETTLED),
        };
        match known {
            Some(content) => self.feed.push(Event::Known(file, content), 0),
            None if size_bytes <= SMALL_MAX_BYTES => self.feed.push(Event::Small(file), size_bytes),
            None => self.feed.big_file(file),
        }
    }
}

fn sorted_names(directory: &Path) -> Result<Vec<EntryName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        names.push(EntryName::try_from(&*entry.at("list", directory)?.file_name())?);
    }
    names.sort_unstable();
    Ok(names)
}

fn special_kind(meta: &fs::Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a FIFO"
    } else {
        "a device"
    }
}
