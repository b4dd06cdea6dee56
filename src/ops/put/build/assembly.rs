//! The assembly of units, in path order, to packs and trees.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::upload::{Lane, Uploader};
use crate::content::pack::SOLO_MIN_BYTES;
use crate::error::{Error, Kind, PutHint, Result};
use crate::model::digest::Digest;
use crate::model::merkle::{Builder, Node};
use crate::model::name::EntryName;
use crate::model::object_kind::ObjectKind;
use crate::model::recipe::Piece;
use crate::model::tree::{Child, Content, Entry, Target, TreeItem, TreeNode};
use crate::model::version::{DESCRIPTION_FILE, Totals};
use crate::model::zone::Zone;
use crate::ops::put::outcome::Outcomes;
use crate::ops::put::report::{Progress, PutReport, WARNINGS_MAX};
use crate::ops::put::walk::draft::DraftSource;
use crate::ops::put::walk::event::{Cut, Event, FileMeta, Unit};
use crate::ops::repository::Repository;
use crate::ops::totals::Difference;

/// The number of waiting nodes, and of their bytes, from which they are stored.
const NODES_WAITING: usize = 1_024;
const NODES_WAITING_BYTES: usize = 4 << 20;

/// The result of a build: everything is stored and registered; only the version is missing.
pub(crate) struct Built {
    /// The report, without the version.
    pub(crate) report: PutReport,
    /// The outcome of each file.
    pub(crate) outcomes: Outcomes,
}

/// A directory being built.
struct OpenDirectory {
    name: Option<EntryName>,
    builder: Builder<TreeItem>,
    entries: u64,
}

/// A big file being built.
struct BigFile {
    meta: FileMeta,
    builder: Builder<Piece>,
    size_bytes: u64,
    pieces: u64,
    lane: Option<Lane>,
}

pub(crate) struct Assembly<'a> {
    repository: &'a Repository,
    /// The zone of all objects.
    zone: Zone,
    uploader: Option<Uploader>,
    outcomes: Outcomes,
    pub(crate) draft: Option<&'a DraftSource<'a>>,
    /// An existing tree that is the result as a whole.
    whole: Option<Digest>,
    /// The totals of the tree beside the entries that were counted one by one.
    difference: Difference,
    progress: Arc<dyn Progress>,
    pub(crate) drop_empty: bool,
    directories: Vec<OpenDirectory>,
    big: Option<BigFile>,
    /// Complete nodes that are not stored yet, children before parents.
    nodes: Vec<Node>,
    report: PutReport,
    /// The objects that a dry run has counted already.
    counted: HashSet<Digest>,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(
        repository: &'a Repository,
        zone: Zone,
        uploader: Option<Uploader>,
        outcomes: Outcomes,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let root = OpenDirectory { name: None, builder: Builder::new(zone), entries: 0 };
        let report = PutReport {
            committed: None,
            part: None,
            root: Digest::from_bytes([0; 32]),
            totals: Totals::default(),
            stored_bytes: 0,
            files_read: 0,
            followed: 0,
            warnings: Vec::new(),
        };
        Self {
            repository,
            zone,
            uploader,
            outcomes,
            draft: None,
            whole: None,
            difference: Difference::default(),
            progress,
            drop_empty: false,
            directories: vec![root],
            big: None,
            nodes: Vec::new(),
            report,
            counted: HashSet::new(),
        }
    }

    /// Assembles consecutive units, and calls `each` after each. One call looks up the objects of
    /// all units, because a registry may be far away.
    pub(crate) fn units(
        &mut self,
        mut units: Vec<Unit<Event>>,
        each: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        for event in units.iter_mut().flat_map(|unit| &mut unit.steps) {
            event.enter(self.zone)?;
        }
        let digests = units.iter().flat_map(|unit| unit.steps.iter().flat_map(digests_of));
        let mut missing = self.missing(digests.collect())?;
        for unit in units {
            for event in unit.steps {
                self.event(event, &unit.buffer, &mut missing)?;
            }
            if self.has_many_nodes() {
                self.flush_nodes()?;
            }
            each()?;
        }
        Ok(())
    }

    /// Returns whether the nodes that wait are to be stored now.
    fn has_many_nodes(&self) -> bool {
        let bytes: usize = self.nodes.iter().map(|node| node.body.len()).sum();
        self.nodes.len() >= NODES_WAITING || bytes >= NODES_WAITING_BYTES
    }

    /// Returns those of `digests` that are to be stored.
    fn missing(&mut self, mut digests: Vec<Digest>) -> Result<HashSet<Digest>> {
        match &mut self.uploader {
            _ if digests.is_empty() => Ok(Default::default()),
            Some(uploader) => uploader.missing(digests),
            None => {
                digests.sort_unstable();
                digests.dedup();
                let found = self.repository.registry.locate(digests.clone())?;
                let gone = digests.into_iter().zip(found).filter(|(_, at)| at.is_none());
                Ok(gone.map(|(digest, _)| digest).collect())
            }
        }
    }

    fn event(&mut self, event: Event, buffer: &[u8], missing: &mut HashSet<Digest>) -> Result<()> {
        match event {
            Event::Enter(name) => self.directories.push(OpenDirectory {
                name: Some(name),
                builder: Builder::new(self.zone),
                entries: 0,
            }),
            Event::Leave => self.leave()?,
            Event::Symlink(name, target) => {
                self.report.totals.symlinks += 1;
                self.new_entry(name, Target::Symlink(target))?;
            }
            Event::Known(file, content) => {
                self.progress.advance(1, content.size_bytes());
                self.file(file, content, false, None)?;
            }
            Event::File(file, cuts) => {
                self.report.files_read += 1;
                let content = self.store_small(&file, &cuts, buffer, missing)?;
                self.progress.advance(1, content.size_bytes());
                self.file(file, content, true, None)?;
                self.between_files()?;
            }
            Event::Referred(file, content, body) => {
                let digest = content.digest().filter(|digest| missing.remove(digest));
                if let Some(digest) = digest {
                    self.chunk(Lane::Shared, digest, &body)?;
                }
                self.progress.advance(1, content.size_bytes());
                self.file(file, content, true, None)?;
                self.between_files()?;
            }
            Event::Begin(meta) => self.begin(meta),
            Event::Pieces(cuts) => self.pieces(&cuts, buffer, missing)?,
            Event::Zeros(chunks) => self.zeros(chunks)?,
            Event::Reuse(pieces) => {
                self.lane_for_next_piece(false);
                pieces.into_iter().for_each(|piece| self.piece(piece));
            }
            Event::Unchanged(entry) => self.entry(entry.name, entry.target),
            Event::Run(child) => self.run_of_entries(child)?,
            Event::Whole(tree) => self.whole = Some(tree),
            Event::Adjust(by) => self.difference += by,
            Event::End => self.end()?,
            Event::Abort => {
                self.big = None;
                self.end_solo(None)?;
            }
            Event::Followed => self.report.followed += 1,
            Event::Warning(text) => {
                if self.report.warnings.len() < WARNINGS_MAX {
                    self.report.warnings.push(text);
                }
            }
        }
        Ok(())
    }

    /// Adds an entry that no version had before. It must not have a name that mounts reserve.
    fn new_entry(&mut self, name: EntryName, target: Target) -> Result<()> {
        if self.directories.len() == 1 && name.as_bytes() == DESCRIPTION_FILE.as_bytes() {
            let what =
                format!("{DESCRIPTION_FILE} in the root of a version is reserved for mounts");
            return Err(Error::new(Kind::BadName, what)
                .hint(PutHint::ExcludeOrRename(DESCRIPTION_FILE.to_owned())));
        }
        self.entry(name, target);
        Ok(())
    }

    fn entry(&mut self, name: EntryName, target: Target) {
        let nodes = &mut self.nodes;
        let here = self.directories.last_mut().expect("the root is left at the end");
        here.entries += 1;
        here.builder.push(TreeItem::Entry(Entry { name, target }), &mut |node| nodes.push(node));
    }

    /// Adds a whole leaf of an existing tree, or its entries one by one if the leaf cannot stay as
    /// it is.
    fn run_of_entries(&mut self, child: Child) -> Result<()> {
        let nodes = &mut self.nodes;
        let here = self.directories.last_mut().expect("the root is left at the end");
        let (digest, count) = (child.digest, child.count);
        let item = TreeItem::Child(Some(child.first), count, digest);
        if here.builder.push_run(item, &mut |node| nodes.push(node)) {
            here.entries += count;
            return Ok(());
        }
        let node = self.repository.reader.tree(digest)?;
        let TreeNode::Leaf(entries) = &*node else {
            return Err(Error::new(Kind::Corrupt, format!("tree {digest} is no leaf")));
        };
        entries.iter().for_each(|entry| self.entry(entry.name.clone(), entry.target.clone()));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let path = self.path_here();
        let done = self.directories.pop().expect("every directory that is left was entered");
        let name = done.name.expect("only the root has no name, and it is not left");
        if self.drop_empty && done.entries == 0 {
            return Ok(());
        }
        let nodes = &mut self.nodes;
        let root = done.builder.finish(&mut |node| nodes.push(node)).node_digest();
        let root = root.expect("a directory ends in a node");
        self.report.totals.directories += 1;
        self.outcomes.directory(path, root)?;
        self.new_entry(name, Target::Directory(root))
    }

    /// Returns the path of the open directory from the root, with slashes.
    fn path_here(&self) -> Vec<u8> {
        let names = self.directories.iter().filter_map(|open| open.name.as_ref());
        names.map(EntryName::as_bytes).collect::<Vec<_>>().join(&b'/')
    }

    fn file(
        &mut self,
        file: FileMeta,
        content: Content,
        read: bool,
        shared: Option<PathBuf>,
    ) -> Result<()> {
        self.outcomes.file(&file, content, read, shared)?;
        let FileMeta { name, executable, .. } = file;
        self.report.totals.external += u64::from(content.is_external());
        self.report.totals.files += 1;
        self.report.totals.size_bytes += content.size_bytes();
        self.new_entry(name, Target::File { content, executable })
    }

    fn store_small(
        &mut self,
        file: &FileMeta,
        cuts: &[Cut],
        buffer: &[u8],
        missing: &mut HashSet<Digest>,
    ) -> Result<Content> {
        for cut in cuts {
            if missing.remove(&cut.digest) {
                self.chunk(Lane::Shared, cut.digest, &buffer[cut.range.clone()])?;
            }
        }
        Ok(match cuts {
            [] => Content::Empty,
            [only] => Content::Chunk { digest: only.digest, size_bytes: file.size_bytes },
            many => {
                let mut builder = Builder::new(self.zone);
                let nodes = &mut self.nodes;
                let mut emit = |node| nodes.push(node);
                for cut in many {
                    let size_bytes = cut.range.len() as u64;
                    builder.push(Piece { size_bytes, digest: cut.digest }, &mut emit);
                }
                let Piece { size_bytes, digest } = builder.finish(&mut emit);
                Content::Recipe { digest, size_bytes }
            }
        })
    }

    fn chunk(&mut self, lane: Lane, digest: Digest, body: &[u8]) -> Result<()> {
        match &mut self.uploader {
            Some(uploader) => uploader.chunk(lane, digest, body),
            None => {
                self.count(digest, body.len());
                Ok(())
            }
        }
    }

    fn begin(&mut self, meta: FileMeta) {
        let builder = Builder::new(self.zone);
        self.big = Some(BigFile { meta, builder, size_bytes: 0, pieces: 0, lane: None });
    }

    fn pieces(&mut self, cuts: &[Cut], buffer: &[u8], missing: &mut HashSet<Digest>) -> Result<()> {
        for cut in cuts {
            let new = missing.remove(&cut.digest);
            let lane = self.lane_for_next_piece(new);
            if new && !self.shared_chunk(cut)? {
                self.chunk(lane, cut.digest, &buffer[cut.range.clone()])?;
            }
            self.piece(Piece { size_bytes: cut.range.len() as u64, digest: cut.digest });
        }
        self.uploader.as_mut().map_or(Ok(()), Uploader::between_segments)
    }

    /// Adds a chunk where it lies in its file, if that becomes a pack. Returns `false` if it does
    /// not.
    fn shared_chunk(&mut self, cut: &Cut) -> Result<bool> {
        let big = self.big.as_mut().expect("pieces come between a begin and an end");
        let (Some(uploader), Some(draft), true) = (&mut self.uploader, self.draft, big.meta.share)
        else {
            return Ok(false);
        };
        if !uploader.is_sharing() {
            use std::os::unix::ffi::OsStrExt;
            let relative = Path::new(std::ffi::OsStr::from_bytes(&big.meta.key));
            let size = big.meta.size_bytes;
            let announce = || (draft.sharing)(relative);
            if !uploader.share(&big.meta.path, size, &announce)? {
                // All of its bytes are copied.
                big.meta.share = false;
                return Ok(false);
            }
        }
        uploader.shared_chunk(cut.digest, cut.range.len(), big.size_bytes)?;
        Ok(true)
    }

    /// Returns the lane of the big file, which its first piece decides. It has a pack of its own if
    /// it begins with a new chunk. A file that is mostly known would only leave a small pack
    /// behind.
    fn lane_for_next_piece(&mut self, new: bool) -> Lane {
        let big = self.big.as_mut().expect("pieces come between a begin and an end");
        let solo = new && big.meta.size_bytes >= SOLO_MIN_BYTES;
        *big.lane.get_or_insert(if solo { Lane::Solo } else { Lane::Shared })
    }

    fn piece(&mut self, piece: Piece) {
        let nodes = &mut self.nodes;
        let big = self.big.as_mut().expect("pieces come between a begin and an end");
        self.progress.advance(0, piece.size_bytes);
        big.size_bytes += piece.size_bytes;
        big.pieces += 1;
        big.builder.push(piece, &mut |node| nodes.push(node));
    }

    fn zeros(&mut self, chunks: u64) -> Result<()> {
        let window = vec![0; self.repository.cutter.max_bytes()];
        let body = &window[..self.repository.cutter.cut(&window)];
        let digest = Digest::of(ObjectKind::Chunk, body).in_zone(self.zone);
        if self.missing(vec![digest])?.contains(&digest) {
            self.chunk(Lane::Shared, digest, body)?;
        }
        for _ in 0..chunks {
            self.piece(Piece { size_bytes: body.len() as u64, digest });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let big = self.big.take().expect("an end comes after a begin");
        let mut shared = None;
        self.end_solo(Some(&mut shared))?;
        let nodes = &mut self.nodes;
        let root = big.builder.finish(&mut |node| nodes.push(node));
        let size_bytes = big.size_bytes;
        let content = match big.pieces {
            0 => Content::Empty,
            // One piece is possible if the file shrank since the walk: then this is a recipe of one
            // chunk.
            _ => Content::Recipe { digest: root.digest, size_bytes },
        };
        self.report.files_read += 1;
        self.progress.advance(1, 0);
        self.file(big.meta, content, true, shared)?;
        self.between_files()
    }

    /// Seals the pack of a big file. Sets `shared` to its path, if it is the same inode as the
    /// file.
    fn end_solo(&mut self, shared: Option<&mut Option<PathBuf>>) -> Result<()> {
        let Some(uploader) = &mut self.uploader else { return Ok(()) };
        if let Some(shared) = shared {
            *shared = uploader.shared_path();
        }
        uploader.end_solo()
    }

    fn between_files(&mut self) -> Result<()> {
        match &mut self.uploader {
            Some(uploader) if self.big.is_none() => uploader.between_files(),
            _ => Ok(()),
        }
    }

    /// Stores the nodes that became complete, children before parents.
    fn flush_nodes(&mut self) -> Result<()> {
        let nodes = std::mem::take(&mut self.nodes);
        let uploader = self.uploader.as_ref();
        let mut missing = uploader.map_or_else(HashSet::new, |uploader| uploader.new_nodes(&nodes));
        let unknown = nodes.iter().map(|node| node.digest).filter(|node| !missing.contains(node));
        missing.extend(self.missing(unknown.collect())?);
        for node in nodes.into_iter().filter(|node| missing.contains(&node.digest)) {
            match &mut self.uploader {
                Some(uploader) => uploader.node(node)?,
                None => self.count(node.digest, node.body.len()),
            }
        }
        Ok(())
    }

    /// Counts an object that a dry run would store.
    fn count(&mut self, digest: Digest, bytes: usize) {
        if self.counted.insert(digest) {
            self.report.stored_bytes += bytes as u64;
        }
    }

    pub(crate) fn finish(mut self) -> Result<Built> {
        let root = self.directories.pop().expect("the root is left at the end");
        self.report.root = match self.whole {
            Some(tree) => tree,
            None => {
                let nodes = &mut self.nodes;
                let root = root.builder.finish(&mut |node| nodes.push(node)).node_digest();
                let root = root.expect("a directory ends in a node");
                self.outcomes.directory(Vec::new(), root)?;
                root
            }
        };
        self.difference.apply(&mut self.report.totals);
        if let Some(uploader) = &mut self.uploader {
            uploader.end_chunks();
        }
        self.flush_nodes()?;
        if let Some(uploader) = self.uploader.take() {
            self.report.stored_bytes = uploader.finish()?;
        }
        Ok(Built { report: self.report, outcomes: self.outcomes })
    }
}

/// Returns the objects that an event brings. Content from the index is not looked up: an existing
/// directory keeps its files, and registering a new one reports what is missing.
fn digests_of(event: &Event) -> Vec<Digest> {
    match event {
        Event::File(_, cuts) | Event::Pieces(cuts) => cuts.iter().map(|cut| cut.digest).collect(),
        Event::Referred(_, content, _) => content.digest().into_iter().collect(),
        _ => Vec::new(),
    }
}
