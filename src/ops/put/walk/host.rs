//! The walk of a source: one thread goes in path order, and reads and cuts big files.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::event::{Event, FileMeta, SMALL_MAX_BYTES, Work};
use super::feed::Feed;
use super::referred::Referred;
use crate::error::{Error, IoContext, Kind, PutHint, Result};
use crate::model::name::EntryName;
use crate::model::tree::SYMLINK_MAX_BYTES;
use crate::ops::put::file::SETTLED;
use crate::ops::put::index::OldIndex;
use crate::ops::put::source::{IgnoreStack, Link, Source, index_key};
use crate::ops::put::stamp::Stamp;

/// The walk of a source.
pub(crate) struct Scan<'a> {
    source: Option<&'a Source>,
    pub(super) referred: Option<Referred>,
    pub(super) old: OldIndex,
    ignores: IgnoreStack,
    /// The directories from the root to the current one, by device and inode: a symlink to one is a
    /// loop.
    above: HashSet<(u64, u64)>,
    pub(super) feed: Feed<'a>,
}

impl<'a> Scan<'a> {
    /// Returns a walk of `source` and of external files that feeds `feed`.
    pub(crate) fn new(
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
    /// [`Kind::Conflict`] for a symlink that is refused or loops, for a path that is named twice,
    /// and for a file that keeps changing.
    pub(crate) fn run(mut self) -> Result<()> {
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

    /// Walks the directory at `relative`.
    fn directory(&mut self, source: &Source, relative: &Path) -> Result<()> {
        let full = source.root().join(relative);
        let meta = fs::metadata(&full).at("read", &full)?;
        let identity = (meta.dev(), meta.ino());
        if !self.above.insert(identity) {
            let what = format!("symlink {} leads back to a directory above it", full.display());
            return Err(Error::new(Kind::Conflict, what).hint(PutHint::ExcludeOrKeepSymlink));
        }
        self.ignores.enter(&full)?;
        for name in sorted_names(&full)? {
            self.referred_before(relative, Some(&name))?;
            let path = relative.join(name.as_os_str());
            let walked = self.entry(source, name.clone(), &path)?;
            self.referred_after(&path, name, walked)?;
        }
        self.referred_before(relative, None)?;
        self.ignores.leave();
        self.above.remove(&identity);
        Ok(())
    }

    /// Walks an entry. Returns `false` if it is left out.
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
            // The index holds only files that settled by this rule; for others the read decides.
            settles_in: Some(SETTLED),
        };
        match known {
            Some(content) => self.feed.push(Event::Known(file, content), 0),
            None if size_bytes <= SMALL_MAX_BYTES => self.feed.push(Work::Small(file), size_bytes),
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
