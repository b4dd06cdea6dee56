//! The walk: one thread, in path order, with big files read and cut on the way.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::file::{CHANGED_RETRIES, OpenFile, keeps_changing};
use super::index::{OldIndex, Stamp};
use super::source::{IgnoreStack, Link, Source, index_key};
use crate::content::chunk::Cutter;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Content, SYMLINK_MAX_BYTES};

/// Files up to this many bytes are read by the hashing threads, several to a unit.
pub const SMALL_MAX_BYTES: u64 = 4 << 20;
/// A unit is full with so many files …
const UNIT_FILES: usize = 256;
/// … or so many bytes.
const UNIT_BYTES: u64 = 4 << 20;
/// How much of a big file one unit carries.
const SEGMENT_BYTES: usize = 8 << 20;

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
    /// The big file is read, and was the same all the time.
    End,
    /// It changed: what was read of it does not count.
    Abort,
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

/// Takes units in order; an error says that nobody wants more.
pub type Emit<'a> = dyn FnMut(Unit) -> Result<()> + 'a;

/// The walk.
pub struct Scan<'a> {
    source: &'a Source,
    cutter: &'a Cutter,
    old: OldIndex,
    ignores: IgnoreStack,
    /// Directories from the root down to here, by device and inode: a symlink back up is a loop.
    above: HashSet<(u64, u64)>,
    unit: Unit,
    unit_bytes: u64,
    emit: &'a mut Emit<'a>,
}

impl<'a> Scan<'a> {
    /// A walk of `source`; units go to `emit`.
    pub fn new(
        source: &'a Source,
        cutter: &'a Cutter,
        old: OldIndex,
        emit: &'a mut Emit<'a>,
    ) -> Self {
        let (ignores, above) = (IgnoreStack::default(), HashSet::new());
        Self { source, cutter, old, ignores, above, unit: Unit::default(), unit_bytes: 0, emit }
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// What cannot be read, and what `emit` says.
    pub fn run(mut self) -> Result<()> {
        match self.source.single().cloned() {
            Some(name) => {
                let root = self.source.root();
                let meta = fs::metadata(root).at("read", root)?;
                self.file(name.clone(), Path::new(name.as_os_str()), root.to_owned(), &meta)?;
            }
            None => self.directory(Path::new(""))?,
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        self.unit_bytes = 0;
        let unit = std::mem::take(&mut self.unit);
        if unit.events.is_empty() { Ok(()) } else { (self.emit)(unit) }
    }

    fn push(&mut self, event: Event, bytes: u64) -> Result<()> {
        self.unit.events.push(event);
        self.unit_bytes += bytes;
        if self.unit.events.len() >= UNIT_FILES || self.unit_bytes >= UNIT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// The contents of the directory at `relative`.
    fn directory(&mut self, relative: &Path) -> Result<()> {
        let full = self.source.root().join(relative);
        let meta = fs::metadata(&full).at("read", &full)?;
        let identity = (meta.dev(), meta.ino());
        if !self.above.insert(identity) {
            let what = format!("symlink {} leads back to a directory above it", full.display());
            return Err(Error::new(Kind::Conflict, what).hint("--exclude it, or use --no-follow"));
        }
        self.ignores.enter(&full)?;
        for name in sorted_names(&full)? {
            let relative = relative.join(name.as_os_str());
            self.entry(name, &relative)?;
        }
        self.ignores.leave();
        self.above.remove(&identity);
        Ok(())
    }

    fn entry(&mut self, name: EntryName, relative: &Path) -> Result<()> {
        let full = self.source.root().join(relative);
        let mut meta = fs::symlink_metadata(&full).at("read", &full)?;
        let left_out = match meta.is_dir() {
            true => !self.source.filters().enters(relative),
            false => !self.source.filters().takes(relative),
        };
        if left_out || self.ignores.ignores(&full, meta.is_dir()) {
            return Ok(());
        }
        if meta.is_symlink() {
            match self.source.link(relative)? {
                Link::Inside(target) if target.len() <= SYMLINK_MAX_BYTES => {
                    return self.push(Event::Symlink(name, target), 0);
                }
                Link::Inside(_) | Link::Outside => {
                    self.push(Event::Followed, 0)?;
                    meta = fs::metadata(&full).at("read", &full)?;
                }
            }
        }
        if meta.is_dir() {
            self.push(Event::Enter(name), 0)?;
            self.directory(relative)?;
            return self.push(Event::Leave, 0);
        }
        if meta.is_file() {
            return self.file(name, relative, full, &meta);
        }
        let kind = special_kind(&meta);
        self.push(Event::Warning(format!("{} is {kind}: left out", full.display())), 0)
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
        let known = self.old.find(&key, &stamp);
        let executable = meta.mode() & 0o111 != 0;
        let size_bytes = meta.len();
        let file = FileMeta { name, key, path, executable, stamp, size_bytes };
        match known {
            Some(content) => self.push(Event::Known(file, content), 0),
            None if size_bytes <= SMALL_MAX_BYTES => self.push(Event::Small(file), size_bytes),
            None => self.big_file(file),
        }
    }

    fn big_file(&mut self, mut file: FileMeta) -> Result<()> {
        for _ in 0..=CHANGED_RETRIES {
            let open = OpenFile::open(&file.path)?;
            (file.stamp, file.size_bytes) = (open.stamp, open.size_bytes);
            self.push(Event::Begin(file.clone()), 0)?;
            self.segments(&file.path, &open)?;
            if open.is_unchanged().at("read", &file.path)? {
                return self.push(Event::End, 0);
            }
            self.push(Event::Abort, 0)?;
        }
        Err(keeps_changing(&file.path))
    }

    /// Reads and cuts a file; stops early when it turns out shorter than it was.
    fn segments(&mut self, path: &Path, open: &OpenFile) -> Result<()> {
        let zero_chunk = self.cutter.cut(&vec![0; self.cutter.max_bytes()]) as u64;
        let mut offset = 0;
        let mut carry: Vec<u8> = Vec::new();
        while offset < open.size_bytes {
            if carry.is_empty() {
                let hole = open.hole_end(offset).saturating_sub(offset);
                let whole = hole.checked_sub(self.cutter.max_bytes() as u64);
                if let Some(room) = whole {
                    let chunks = room / zero_chunk + 1;
                    self.push(Event::Zeros(chunks), 0)?;
                    offset += chunks * zero_chunk;
                    continue;
                }
            }
            self.flush()?;
            let mut buffer = std::mem::take(&mut carry);
            let have = buffer.len();
            let left = (open.size_bytes - offset).min((SEGMENT_BYTES - have) as u64) as usize;
            buffer.resize(have + left, 0);
            let count = open.read(offset, &mut buffer[have..]).at("read", path)?;
            buffer.truncate(have + count);
            offset += count as u64;
            let at_end = count < left || offset == open.size_bytes;
            let cuts = self.cut(&buffer, at_end);
            let used = cuts.last().map_or(0, |cut| cut.end);
            carry.extend_from_slice(&buffer[used..]);
            self.unit.buffer = buffer;
            self.unit.events.push(Event::Segment(cuts));
            self.flush()?;
            if count < left {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The chunks of `buffer`; unless the file ends with it, what is left may be cut only when
    /// more is known.
    fn cut(&self, buffer: &[u8], at_end: bool) -> Vec<Range<usize>> {
        let mut cuts = Vec::new();
        let mut start = 0;
        while start < buffer.len() && (at_end || buffer.len() - start >= self.cutter.max_bytes()) {
            let window = &buffer[start..buffer.len().min(start + self.cutter.max_bytes())];
            let end = start + self.cutter.cut(window);
            cuts.push(start..end);
            start = end;
        }
        cuts
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
