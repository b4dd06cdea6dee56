//! The walk of a tree that gets one more file: it reads and rewrites only the nodes around that.

use std::path::PathBuf;

use super::event::{Event, FileMeta, cut_all};
use super::feed::Feed;
use crate::content::cursor::{Cursor, Step};
use crate::content::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::Target;
use crate::model::version::Totals;
use crate::ops::put::stamp::Stamp;
use crate::ops::totals::Difference;

/// A tree, and a file that is added to it or replaces another file.
pub struct Insert<'a> {
    /// The root of the tree.
    pub(crate) root: Digest,
    /// The totals of the tree.
    pub(crate) totals: Totals,
    /// The path of the file, of at least one name. Missing directories are made.
    pub(crate) path: &'a [EntryName],
    /// The content of the file: short, since it is held in memory.
    pub(crate) bytes: &'a [u8],
}

/// Returns a path with slashes, for display.
pub(crate) fn display_path(path: &[EntryName]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
}

/// The walk of an [`Insert`].
pub(crate) struct InsertWalk<'a> {
    insert: &'a Insert<'a>,
    reader: &'a Reader,
    feed: Feed<'a>,
}

/// A path still to be inserted into a directory: its first name, and the rest.
type Coming<'p> = Option<(&'p EntryName, &'p [EntryName])>;

impl<'a> InsertWalk<'a> {
    /// Returns a walk of `insert` that feeds `feed`.
    pub(crate) fn new(insert: &'a Insert<'a>, reader: &'a Reader, feed: Feed<'a>) -> Self {
        Self { insert, reader, feed }
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// As [`insert`](fn@crate::ops::put::insert).
    pub(crate) fn run(mut self) -> Result<()> {
        self.feed.push(Event::Adjust(self.insert.totals.into()), 0)?;
        self.directory(Some(self.insert.root), self.insert.path)?;
        self.feed.flush()
    }

    fn directory(&mut self, tree: Option<Digest>, path: &[EntryName]) -> Result<()> {
        let mut coming = path.split_first();
        if let Some(tree) = tree {
            let mut cursor = Cursor::new(self.reader, tree)?;
            while let Some(name) = cursor.name() {
                if coming.is_some_and(|(coming, _)| coming < name) {
                    self.come(&mut coming, None)?;
                }
                match cursor.step(self.reader, coming.map(|(name, _)| name))? {
                    Some(Step::Run(child)) => self.feed.push(Event::Run(child), 0)?,
                    Some(Step::Entry(entry))
                        if coming.is_some_and(|(name, _)| *name == entry.name) =>
                    {
                        self.come(&mut coming, Some(&entry.target))?;
                    }
                    Some(Step::Entry(entry)) => self.feed.push(Event::Unchanged(entry), 0)?,
                    None => {}
                }
            }
        }
        self.come(&mut coming, None)
    }

    /// Inserts `coming` in the place of `old`, unless it was inserted before.
    fn come(&mut self, coming: &mut Coming<'_>, old: Option<&Target>) -> Result<()> {
        let Some((name, below)) = coming.take() else { return Ok(()) };
        let in_the_way = |what: &str| {
            let what = format!("{what} {name} is in the way of {}", display_path(self.insert.path));
            Err(Error::new(Kind::Conflict, what).hint("choose another name"))
        };
        match old {
            Some(Target::Directory(_)) if below.is_empty() => in_the_way("the directory"),
            Some(Target::Directory(tree)) => {
                // `Event::Leave` counts it again.
                self.feed.push(Event::Adjust(Difference::DIRECTORY.negated()), 0)?;
                self.below(name, Some(*tree), below)
            }
            Some(_) if !below.is_empty() => in_the_way("the file"),
            None if !below.is_empty() => self.below(name, None, below),
            Some(old) => {
                let lost = Difference::of(self.reader, old)?.negated();
                self.feed.push(Event::Adjust(lost), 0)?;
                self.file(name)
            }
            None => self.file(name),
        }
    }

    fn below(&mut self, name: &EntryName, tree: Option<Digest>, path: &[EntryName]) -> Result<()> {
        self.feed.push(Event::Enter(name.clone()), 0)?;
        self.directory(tree, path)?;
        self.feed.push(Event::Leave, 0)
    }

    fn file(&mut self, name: &EntryName) -> Result<()> {
        let buffer = self.insert.bytes.to_vec();
        let cuts = cut_all(&buffer, 0, self.feed.cutter);
        let file = FileMeta {
            name: name.clone(),
            key: Vec::new(),
            path: PathBuf::new(),
            executable: false,
            stamp: Stamp::default(),
            size_bytes: buffer.len() as u64,
            share: false,
            linked: false,
            settles_in: None,
        };
        self.feed.whole(Event::File(file, cuts), buffer)
    }
}
