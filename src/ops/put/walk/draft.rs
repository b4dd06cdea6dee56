//! The walk of a draft: it reads the upper, and of the lower only the nodes around changed names.

use std::fs::{self, File};
use std::iter::Peekable;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use super::event::{Event, FileMeta, SMALL_MAX_BYTES, Work, cut_all};
use super::feed::{Feed, SEGMENT_BYTES};
use crate::content::cursor::{Cursor, Step};
use crate::content::pack::SOLO_MIN_BYTES;
use crate::content::reader::Reader;
use crate::error::{DraftHint, Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::recipe::Piece;
use crate::model::tree::{Entry, SYMLINK_MAX_BYTES, Target};
use crate::ops::put::source::stays_inside;
use crate::ops::put::stamp::Stamp;
use crate::ops::totals::Difference;
use crate::staging::{
    BEING_WRITTEN, ContentXattr, DraftFile, Lower, TreeXattr, Upper, Writers, upper_entries,
};

/// The maximum number of reused pieces in one event.
const REUSED_PIECES: usize = 4_096;
/// The time that a commit waits for the kernel to release a closed file.
const UNMAPPED_WAIT: Duration = Duration::from_secs(2);
/// The interval between two checks during that time.
const UNMAPPED_POLL: Duration = Duration::from_millis(2);
/// The maximum length of a path in bytes, with the NUL behind it (limits.h).
const PATH_MAX: usize = 4_096;
/// The set-user-id and set-group-id bits.
const SET_ID_BITS: u32 = 0o6000;

/// A frozen draft.
pub(crate) struct DraftSource<'a> {
    /// The directory of its files on the host.
    pub(crate) root: PathBuf,
    /// The open directory `root`.
    pub(crate) folder: File,
    /// The reader of its lower.
    pub(crate) lower: &'a dyn Lower,
    /// The root tree of its lower, by its record, and the totals of that tree.
    pub(crate) known: Option<(Digest, Difference)>,
    /// A flag to refuse anything that no version can hold; otherwise it is left out with a warning.
    pub(crate) strict: bool,
    /// A flag to keep symlinks that lead out of the version; otherwise they are refused.
    pub(crate) external_symlinks: bool,
    /// A lookup of the chunks at the head of a file, by its inode on the host. They are a guess.
    pub(crate) prehashed: &'a (dyn Fn(u64) -> Vec<Piece> + Sync),
    /// A predicate that allows the bytes of a file to become a pack's, by its inode on the host.
    pub(crate) may_share: &'a (dyn Fn(u64) -> bool + Sync),
    /// A callback that durably records a path in the draft before its bytes become a pack's.
    pub(crate) sharing: &'a (dyn Fn(&Path) -> Result<()> + Sync),
}

impl DraftSource<'_> {
    /// Returns the host's path of a file of the draft. If that exceeds [`PATH_MAX`] on the host,
    /// though not in the mount, the path starts at the descriptor of `folder` instead.
    fn at(&self, relative: &Path) -> PathBuf {
        let path = self.root.join(relative);
        if path.as_os_str().len() < PATH_MAX {
            return path;
        }
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(relative)
    }
}

/// The walk of a draft.
pub(crate) struct DraftScan<'a> {
    source: &'a DraftSource<'a>,
    reader: &'a Reader,
    feed: Feed<'a>,
}

/// The upper names of a directory that are still to come.
type Names = Peekable<IntoIter<EntryName>>;

/// A directory of the draft.
struct Place<'a> {
    relative: &'a Path,
    names: Names,
}

impl<'a> DraftScan<'a> {
    /// Returns a walk of `source` that feeds `feed`.
    pub(crate) fn new(source: &'a DraftSource<'a>, reader: &'a Reader, feed: Feed<'a>) -> Self {
        Self { source, reader, feed }
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// [`Kind::Conflict`] for a symlink that is refused, for a mapped file, and for anything that
    /// no version can hold if the draft is strict.
    pub(crate) fn run(mut self) -> Result<()> {
        let root = &self.source.root;
        let mark = TreeXattr::of(root).map_err(|e| cannot_read(root, e))?;
        if let Some(mark) = mark {
            let inside = match self.source.known {
                Some((tree, inside)) if tree == mark.tree => inside,
                _ => Difference::within(self.reader, mark.tree)?,
            };
            self.adjust(inside)?;
            if mark.clean {
                self.feed.push(Event::Whole(mark.tree), 0)?;
                return self.feed.flush();
            }
        }
        self.directory(Path::new(""), mark.map(|mark| mark.tree))?;
        self.feed.flush()
    }

    fn adjust(&mut self, by: Difference) -> Result<()> {
        if by == Difference::default() { Ok(()) } else { self.feed.push(Event::Adjust(by), 0) }
    }

    /// Subtracts a lower entry that is gone, with all below it, from the totals.
    fn lose(&mut self, old: Option<&Target>) -> Result<()> {
        match old {
            Some(old) => {
                let lost = Difference::of(self.reader, old)?.negated();
                self.adjust(lost)
            }
            None => Ok(()),
        }
    }

    fn directory(&mut self, relative: &Path, tree: Option<Digest>) -> Result<()> {
        let names = upper_entries(&self.source.at(relative))?.into_iter().peekable();
        let mut place = Place { relative, names };
        if let Some(tree) = tree {
            let mut cursor = Cursor::new(self.reader, tree)?;
            while let Some(name) = cursor.name() {
                self.upper_before(&mut place, Some(name))?;
                match cursor.step(self.reader, place.names.peek())? {
                    Some(Step::Run(child)) => self.feed.push(Event::Run(child), 0)?,
                    Some(Step::Entry(entry)) => self.entry(&mut place, entry)?,
                    None => {}
                }
            }
        }
        self.upper_before(&mut place, None)
    }

    /// Walks an entry of the lower, or the upper's entry in its place.
    fn entry(&mut self, place: &mut Place<'_>, entry: Entry) -> Result<()> {
        match place.names.next_if_eq(&entry.name) {
            Some(name) => self.upper(place.relative, name, Some(&entry.target)),
            None => self.feed.push(Event::Unchanged(entry), 0),
        }
    }

    /// Walks the upper's entries before `bound`; all that are left if it is `None`.
    fn upper_before(&mut self, place: &mut Place<'_>, bound: Option<&EntryName>) -> Result<()> {
        while let Some(name) = place.names.next_if(|name| bound.is_none_or(|bound| name < bound)) {
            self.upper(place.relative, name, None)?;
        }
        Ok(())
    }

    /// Walks the upper's entry `name`, which takes the place of `old`.
    fn upper(&mut self, parent: &Path, name: EntryName, old: Option<&Target>) -> Result<()> {
        let relative = parent.join(name.as_os_str());
        let full = self.source.at(&relative);
        let (upper, meta) = Upper::at(&full)?;
        if let (Upper::Directory(Some(mark)), Some(Target::Directory(tree))) = (&upper, old)
            && mark.tree == *tree
        {
            return self.same_directory(name, &relative, *mark);
        }
        self.lose(old)?;
        match upper {
            Upper::Whiteout => Ok(()),
            Upper::File(mark) => self.file(name, relative, &meta, mark),
            Upper::Directory(mark) => {
                if let Some(mark) = mark {
                    let inside = Difference::within(self.reader, mark.tree)?;
                    self.adjust(inside)?;
                }
                match mark {
                    Some(mark) if mark.clean => {
                        self.adjust(Difference::DIRECTORY)?;
                        let target = Target::Directory(mark.tree);
                        self.feed.push(Event::Unchanged(Entry { name, target }), 0)
                    }
                    mark => self.changed_directory(name, &relative, mark.map(|mark| mark.tree)),
                }
            }
            Upper::Symlink(target) => self.symlink(name, &relative, target),
            Upper::Special(kind) => {
                self.left_out(format!("{} is {kind}", relative.display()), "left out")
            }
        }
    }

    /// Walks a directory that kept its lower tree, which the totals count already.
    fn same_directory(&mut self, name: EntryName, relative: &Path, mark: TreeXattr) -> Result<()> {
        if mark.clean {
            let target = Target::Directory(mark.tree);
            return self.feed.push(Event::Unchanged(Entry { name, target }), 0);
        }
        self.adjust(Difference::DIRECTORY.negated())?;
        self.changed_directory(name, relative, Some(mark.tree))
    }

    fn changed_directory(
        &mut self,
        name: EntryName,
        relative: &Path,
        tree: Option<Digest>,
    ) -> Result<()> {
        self.feed.push(Event::Enter(name), 0)?;
        self.directory(relative, tree)?;
        self.feed.push(Event::Leave, 0)
    }

    fn left_out(&mut self, what: String, done: &str) -> Result<()> {
        if self.source.strict {
            return Err(Error::new(Kind::Conflict, what).hint(DraftHint::CommitLeniently));
        }
        self.feed.push(Event::Warning(format!("{what}: {done}")), 0)
    }

    fn symlink(&mut self, name: EntryName, relative: &Path, target: Box<[u8]>) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let to = Path::new(std::ffi::OsStr::from_bytes(&target));
        if target.len() > SYMLINK_MAX_BYTES
            || !(self.source.external_symlinks || stays_inside(relative, to))
        {
            let what = format!("symlink {} leads out, to {}", relative.display(), to.display());
            return Err(Error::new(Kind::Conflict, what).hint(DraftHint::CommitExternalSymlinks));
        }
        self.feed.push(Event::Symlink(name, target), 0)
    }

    fn file(
        &mut self,
        name: EntryName,
        relative: PathBuf,
        meta: &fs::Metadata,
        mark: Option<ContentXattr>,
    ) -> Result<()> {
        let path = self.source.at(&relative);
        if meta.mode() & SET_ID_BITS != 0 {
            let what = format!("{} has a set-id bit", relative.display());
            self.left_out(what, "the bit is left out")?;
        }
        let (executable, size_bytes) = (meta.mode() & 0o111 != 0, meta.len());
        let share = size_bytes >= SOLO_MIN_BYTES
            && meta.nlink() == 1
            && mark.is_none()
            && (self.source.may_share)(meta.ino());
        let key = std::os::unix::ffi::OsStringExt::into_vec(relative.into_os_string());
        let stamp = Stamp::of(meta);
        let (linked, settles_in) = (meta.nlink() > 1, None);
        let file =
            FileMeta { name, key, path, executable, stamp, size_bytes, share, linked, settles_in };
        if mark.is_none() && size_bytes > 0 {
            refuse_mapped(&file)?;
        }
        match mark {
            Some(mark) if mark.clean && mark.visible_bytes == size_bytes => {
                self.feed.push(Event::Known(file, mark.content), 0)
            }
            Some(mark) => self.changed_file(file, mark),
            None if size_bytes <= SMALL_MAX_BYTES => self.feed.push(Work::Small(file), size_bytes),
            None => self.feed.big_draft_file(file, &(self.source.prehashed)(meta.ino())),
        }
    }

    /// Walks a file that has lower content and bytes of its own.
    fn changed_file(&mut self, file: FileMeta, mark: ContentXattr) -> Result<()> {
        let open = DraftFile::open(&file.path, mark)?;
        if open.size_bytes <= SMALL_MAX_BYTES {
            let mut buffer = vec![0; open.size_bytes as usize];
            let count = open.read(self.source.lower, 0, &mut buffer).at("read", &file.path)?;
            buffer.truncate(count);
            let cuts = cut_all(&buffer, 0, self.feed.cutter);
            return self.feed.whole(Event::File(file, cuts), buffer);
        }
        self.feed
            .push(Event::Begin(FileMeta { size_bytes: open.size_bytes, ..file.clone() }), 0)?;
        Recut { scan: self, open: &open, path: &file.path, at: 0, reused: Vec::new() }.run()?;
        self.feed.push(Event::End, 0)
    }
}

/// A new cut of a changed file. Chunks without a changed byte are reused, and behind a change the
/// cuts soon fall where they fell before.
struct Recut<'s, 'a> {
    scan: &'s mut DraftScan<'a>,
    open: &'s DraftFile,
    path: &'s Path,
    at: u64,
    reused: Vec<Piece>,
}

impl Recut<'_, '_> {
    fn run(mut self) -> Result<()> {
        let content = self.open.xattr.content;
        let (reader, mut start) = (self.scan.reader, 0);
        if content.is_external() {
            // No chunk of it is stored: the changed file is stored whole.
            return self.cut_to(self.open.size_bytes);
        }
        reader.each_piece(&content, &mut |piece| {
            let (begin, end) = (start, start + piece.size_bytes);
            start = end;
            self.cut_to(begin)?;
            // The end of the content cut the last chunk: only at the end of the file is it still a
            // chunk.
            let whole = end < content.size_bytes() || end == self.open.size_bytes;
            let same = self.at == begin
                && whole
                && self.open.is_transparent(begin, end).at("read", self.path)?;
            if !same {
                return Ok(());
            }
            self.reused.push(piece);
            self.at = end;
            if self.reused.len() >= REUSED_PIECES { self.flush() } else { Ok(()) }
        })?;
        self.cut_to(self.open.size_bytes)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let reused = std::mem::take(&mut self.reused);
        if reused.is_empty() { Ok(()) } else { self.scan.feed.push(Event::Reuse(reused), 0) }
    }

    /// Reads and cuts until a chunk ends at `stop` or behind it.
    fn cut_to(&mut self, stop: u64) -> Result<()> {
        while self.at < stop.min(self.open.size_bytes) {
            self.flush()?;
            let needed = stop - self.at + self.scan.feed.cutter.max_bytes() as u64;
            let left = self.open.size_bytes - self.at;
            let left = left.min(needed).min(SEGMENT_BYTES as u64) as usize;
            let mut buffer = vec![0; left];
            let count = self.open.read(self.scan.source.lower, self.at, &mut buffer);
            let count = count.at("read", self.path)?;
            if count < left {
                let what = format!("{} became shorter while it was read", self.path.display());
                return Err(Error::new(Kind::Conflict, what).hint("commit again"));
            }
            let at_end = self.at + count as u64 == self.open.size_bytes;
            let mut cuts = self.scan.feed.cut(&buffer, at_end);
            // Cuts behind `stop` are dropped: the bytes there may be unchanged.
            let enough = cuts.iter().position(|cut| self.at + cut.end as u64 >= stop);
            cuts.truncate(enough.map_or(cuts.len(), |index| index + 1));
            self.at += cuts.last().map_or(0, |cut| cut.end) as u64;
            self.scan.feed.whole(Work::Segment(cuts), buffer)?;
        }
        Ok(())
    }
}

/// Refuses a file that is mapped for writing. After passthrough it can stay mapped although no
/// process has it open, and stores would reach its pack.
fn refuse_mapped(file: &FileMeta) -> Result<()> {
    let deadline = Instant::now() + UNMAPPED_WAIT;
    let open = File::open(&file.path).at("read", &file.path)?;
    // The kernel releases a file a moment after it has reported the close.
    while Writers::of(&open) == Writers::Some {
        if Instant::now() >= deadline {
            let shown = String::from_utf8_lossy(&file.key).into_owned();
            let what =
                format!("the draft {BEING_WRITTEN}: {shown} is mapped into a process's memory");
            return Err(Error::new(Kind::Conflict, what)
                .hint("commit when the process has unmapped it or has ended"));
        }
        std::thread::sleep(UNMAPPED_POLL);
    }
    Ok(())
}

fn cannot_read(path: &Path, error: rustix::io::Errno) -> Error {
    Error::io(format!("cannot read {}", path.display()), error.into())
}
