//! Prefetch: caching a version, or some of its files, before anybody reads them.
//!
//! A mount prefetches by itself if many small files of one version are missed. It walks the version
//! in path order, as far ahead as reads show to be worthwhile.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::put::{Progress, Silent};
use super::repository::Repository;
use crate::content::cache::{SegmentKey, part_of};
use crate::error::{Error, GetHint, Kind, Result};
use crate::model::digest::Digest;
use crate::model::reference::Reference;
use crate::model::tree::{Content, Target, TreeNode};
use crate::model::version::VersionInfo;

/// The bytes fetched in one step, by many requests at a time.
const STEP_BYTES: u64 = 32 << 20;
/// The number of objects looked up in one step.
const STEP_OBJECTS: usize = 8_192;
/// The number of missed small files of a version after which it is prefetched.
const MISSES: u64 = 16;
/// The time within which misses of a version are counted together.
const MISSES_WITHIN: Duration = Duration::from_secs(30);
/// The bytes worth prefetching for each read: what arrives in the time of a round trip, with
/// several readers at work.
const BYTES_PER_READ: u64 = 128 << 10;
/// The time without a read after which prefetching stops.
const IDLE: Duration = Duration::from_secs(5);
/// The interval between checks for new reads.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The maximum number of versions remembered.
const VERSIONS: usize = 256;

/// The result of a prefetch.
#[derive(Debug, Default)]
pub struct Prefetched {
    /// Files that are cached now.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The segments they are in.
    pub(crate) segments: HashSet<SegmentKey>,
}

/// Caches the files of a version for which `takes` returns true. `progress` gets the bytes of the
/// whole version. Returns the version and what was cached.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such version, and as [`prefetch`].
pub fn version<P: Progress>(
    repository: &Repository,
    reference: Reference,
    takes: &dyn Fn(&Path) -> bool,
    progress: impl FnOnce(u64) -> P,
) -> Result<(VersionInfo, Prefetched)> {
    let info = repository.registry.lookup(reference)?;
    let progress = progress(info.totals.size_bytes);
    let fetched = prefetch(repository, info.root, takes, &mut |_| true, &progress)?;
    Ok((info, fetched))
}

/// Caches a version and keeps it, whatever else is read. Returns the version and what was cached.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such version, [`Kind::Full`] if it needs more than 90 % of the
/// cache, [`Kind::Unsupported`] or [`Kind::Unavailable`] if there is no cache.
pub fn pin<P: Progress>(
    repository: &Repository,
    reference: Reference,
    progress: impl FnOnce(u64) -> P,
) -> Result<(VersionInfo, Prefetched)> {
    let info = repository.registry.lookup(reference)?;
    let fetcher = repository.store.fetcher().ok_or_else(|| {
        Error::new(Kind::Unsupported, "the store is a local directory: there is nothing to cache")
    })?;
    let cache = fetcher.cache().ok_or_else(|| {
        Error::new(Kind::Unavailable, "the cache cannot be used").hint(GetHint::CacheDirectory)
    })?;
    if info.totals.size_bytes > cache.limit_bytes() / 10 * 9 {
        let what = format!("{} does not fit into the cache", info.reference());
        return Err(Error::new(Kind::Full, what).hint(GetHint::EnlargeCache));
    }
    let progress = progress(info.totals.size_bytes);
    let bring = |progress: &dyn Progress| {
        prefetch(repository, info.root, &|_| true, &mut |_| true, progress)
    };
    // Only a fetch tells which segments to pin. Those evicted before the pin are fetched again.
    let fetched = bring(&progress)?;
    cache.pin(&pin_name(&info.reference()), &fetched.segments)?;
    bring(&Silent)?;
    drop(progress);
    Ok((info, fetched))
}

/// Returns the name under which a cache keeps a version.
pub fn pin_name(reference: &Reference) -> String {
    reference.to_string().replace('/', "!")
}

/// Caches the files below `root` for which `takes` returns true, and all metadata. `goes_on` gets
/// the bytes so far before each step; the prefetch stops if it returns false.
///
/// # Errors
/// [`Kind::Unsupported`] if the store is a directory: there is nothing to prefetch.
pub(crate) fn prefetch(
    repository: &Repository,
    root: Digest,
    takes: &dyn Fn(&Path) -> bool,
    goes_on: &mut dyn FnMut(u64) -> bool,
    progress: &dyn Progress,
) -> Result<Prefetched> {
    if !repository.store.is_remote() {
        return Err(Error::new(
            Kind::Unsupported,
            "the store is a local directory: there is nothing to prefetch",
        ));
    }
    let mut walk = Walk {
        repository,
        takes,
        goes_on,
        progress,
        wanted: Vec::new(),
        step: (0, 0),
        done: Prefetched::default(),
        stopped: false,
    };
    walk.directory(root, Path::new(""))?;
    walk.flush()?;
    Ok(walk.done)
}

struct Walk<'a> {
    repository: &'a Repository,
    takes: &'a dyn Fn(&Path) -> bool,
    goes_on: &'a mut dyn FnMut(u64) -> bool,
    progress: &'a dyn Progress,
    wanted: Vec<Digest>,
    /// Files and bytes of `wanted`.
    step: (u64, u64),
    done: Prefetched,
    stopped: bool,
}

impl Walk<'_> {
    /// Walks a directory in path order, like the packs. Subdirectories come after the files beside
    /// them.
    fn directory(&mut self, tree: Digest, path: &Path) -> Result<()> {
        let mut below = Vec::new();
        self.run(tree, path, &mut below)?;
        below.into_iter().try_for_each(|(tree, path)| self.directory(tree, &path))
    }

    /// Walks a node of a directory and those below it. Subdirectories go to `below`.
    fn run(&mut self, node: Digest, path: &Path, below: &mut Vec<(Digest, PathBuf)>) -> Result<()> {
        self.want(node, 0)?;
        match &*self.repository.reader.tree(node)? {
            TreeNode::Inner(children) => {
                children.iter().try_for_each(|child| self.run(child.digest, path, below))
            }
            TreeNode::Leaf(entries) => entries.iter().try_for_each(|entry| {
                let path = path.join(entry.name.as_os_str());
                match &entry.target {
                    Target::File { content, .. } if (self.takes)(&path) => self.file(content),
                    Target::Directory(tree) => {
                        below.push((*tree, path));
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }),
        }
    }

    fn file(&mut self, content: &Content) -> Result<()> {
        self.step.0 += 1;
        match *content {
            Content::Empty => Ok(()),
            Content::Chunk { digest, size_bytes } => self.want(digest, size_bytes),
            Content::Recipe { digest, .. } => self.recipe(digest),
            Content::External { digest, size_bytes } => self.external(digest, size_bytes),
        }
    }

    /// Caches an external file, one step after the other.
    fn external(&mut self, digest: Digest, size_bytes: u64) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        self.want(digest, 0)?;
        self.flush()?;
        let external = self.repository.reader.external(digest)?;
        for start in (0..size_bytes).step_by(STEP_BYTES as usize) {
            self.stopped = self.stopped || !(self.goes_on)(self.done.bytes);
            if self.stopped {
                return Ok(());
            }
            let range = start..size_bytes.min(start + STEP_BYTES);
            let bytes = range.end - range.start;
            self.repository.store.externals().prefetch(digest, &external, &range)?;
            self.done.bytes += bytes;
            self.progress.advance(0, bytes);
        }
        Ok(())
    }

    fn recipe(&mut self, node: Digest) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        self.want(node, 0)?;
        let node = self.repository.reader.recipe(node)?;
        node.pieces.iter().try_for_each(|piece| match node.level {
            0 => self.want(piece.digest, piece.size_bytes),
            _ => self.recipe(piece.digest),
        })
    }

    fn want(&mut self, digest: Digest, bytes: u64) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        self.wanted.push(digest);
        self.step.1 += bytes;
        let full = self.step.1 >= STEP_BYTES || self.wanted.len() >= STEP_OBJECTS;
        if full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let (files, bytes) = std::mem::take(&mut self.step);
        self.stopped = self.stopped || !(self.goes_on)(self.done.bytes);
        let Some(fetcher) = self.repository.store.fetcher().filter(|_| !self.stopped) else {
            return Ok(());
        };
        let ranges = self.repository.reader.extents(&wanted)?;
        for (pack, range) in &ranges {
            let parts = part_of(range.clone());
            let keys = parts.map(|(number, _)| SegmentKey { pack: *pack, number });
            self.done.segments.extend(keys);
        }
        fetcher.prefetch_all(ranges)?;
        self.done.files += files;
        self.done.bytes += bytes;
        self.progress.advance(files, bytes);
        Ok(())
    }
}

/// The versions that a mount prefetches by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No version: only what is read is fetched.
    None,
    /// A version of which many small files are missed.
    Auto,
    /// Every version that is looked up.
    All,
}

/// A policy that decides when a mount prefetches a version.
pub(crate) struct Prefetcher {
    repository: Arc<Repository>,
    mode: Mode,
    /// The number of reads so far: prefetching goes on while it grows.
    reads: AtomicU64,
    versions: Mutex<HashMap<Digest, Watched>>,
}

struct Watched {
    misses: u64,
    since: Instant,
    started: bool,
}

impl Prefetcher {
    /// Makes a prefetcher for the versions of `repository`.
    pub(crate) fn new(repository: Arc<Repository>, mode: Mode) -> Self {
        let mode = if repository.store.is_remote() { mode } else { Mode::None };
        Self { repository, mode, reads: AtomicU64::new(0), versions: Mutex::default() }
    }

    /// Records a read.
    pub(crate) fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the version with tree `root` was looked up.
    pub(crate) fn seen(self: &Arc<Self>, root: Digest) {
        if self.mode == Mode::All {
            self.count(root, MISSES);
        }
    }

    /// Records that a small file of the version with tree `root` was not cached.
    pub(crate) fn missed(self: &Arc<Self>, root: Digest) {
        if self.mode != Mode::None {
            self.count(root, 1);
        }
    }

    fn count(self: &Arc<Self>, root: Digest, misses: u64) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if versions.len() >= VERSIONS && !versions.contains_key(&root) {
            // Forgetting a version costs only a second walk over what is cached by then.
            versions.retain(|_, watched| watched.since.elapsed() < MISSES_WITHIN);
            if versions.len() >= VERSIONS {
                return;
            }
        }
        let new = || Watched { misses: 0, since: Instant::now(), started: false };
        let watched = versions.entry(root).or_insert_with(new);
        if watched.since.elapsed() > MISSES_WITHIN && !watched.started {
            *watched = new();
        }
        watched.misses += misses;
        if watched.misses < MISSES || watched.started {
            return;
        }
        watched.started = true;
        drop(versions);
        let this = Arc::clone(self);
        let goes = std::thread::Builder::new().name("prefetch".to_owned());
        if let Err(e) = goes.spawn(move || this.go_through(root)) {
            tracing::warn!("a prefetch could not be started: {e}");
        }
    }

    fn go_through(&self, root: Digest) {
        let fetcher = self.repository.store.fetcher();
        // The other half of the cache is for what else is read.
        let most =
            fetcher.and_then(|fetcher| fetcher.cache()).map_or(0, |cache| cache.limit_bytes() / 2);
        let begun = self.reads.load(Ordering::Relaxed);
        let mut goes_on = |fetched: u64| {
            fetched < most && (self.mode == Mode::All || self.is_worth(fetched, begun))
        };
        let done = prefetch(&self.repository, root, &|_| true, &mut goes_on, &super::put::Silent);
        match done {
            Ok(done) => tracing::debug!(%root, files = done.files, "prefetched"),
            Err(e) => tracing::info!(%root, "the prefetch failed: {e}"),
        }
        // Evicted files may be missed again; then the version is prefetched again.
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.remove(&root);
    }

    /// Waits until reads have shown that more is worth fetching. Returns `false` if reads have
    /// stopped.
    fn is_worth(&self, fetched: u64, begun: u64) -> bool {
        let mut last = (self.reads.load(Ordering::Relaxed), Instant::now());
        loop {
            let reads = self.reads.load(Ordering::Relaxed);
            if (MISSES + reads - begun) * BYTES_PER_READ >= fetched {
                return true;
            }
            if reads != last.0 {
                last = (reads, Instant::now());
            }
            if last.1.elapsed() > IDLE {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
