//! The cache on the disk: sparse copies of parts of packs, of bounded size.
//!
//! ```text
//! CACHEDIR.TAG                      backup programs leave the folder out (bford.info/cachedir)
//! ledger                            bytes:u64le  files:u64le, under flock: the sums
//! using/<id>                        flying:u64le: the bytes that a process is about to write; the
//!                                   process keeps the file locked
//! packs/<2 digits>/<pack>-<n>       segment n of a pack: same bytes, holes for what is absent
//! pins/<name>                       lines of segments that stay
//! ```
//! The file system records which blocks are present (`SEEK_DATA`): there is no second record to
//! keep in step. A wrong answer does no harm, since no reader gets a byte of a segment before it
//! was verified. A process reserves room in `ledger` before it uses it, so several processes
//! keep one bound. Each eviction counts the files again. So room that was reserved and
//! never used becomes free soon.
//! Segments are removed whole, by `unlink`: a reader that has one open reads on.

mod evict;
mod quota;
mod segment;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::statvfs;

pub(crate) use evict::CachedSegment;
use quota::{Quota, Sums};
pub(crate) use segment::{
    BLOCK_BYTES, Blocks, SEGMENT_BLOCKS, SEGMENT_BYTES, SegmentKey, blocks_of, part_of,
};

use super::options::StoreOptions;
use crate::error::{Error, IoContext, Kind, Result};
use crate::files::replace;

/// The lowest bound: room for what one reader has under way.
pub(crate) const CACHE_BYTES_MIN: u64 = 64 << 20;
/// The maximum number of segments: listing them takes well under a second.
const FILES_MAX: u64 = 100_000;
/// The bytes that a segment takes beside its data: its inode, and the blocks that map its data.
const FILE_OVERHEAD_BYTES: u64 = 8 << 10;
/// The maximum bytes of the folders: 256 of them, of a block each and more.
const FOLDERS_BYTES: u64 = 2 << 20;
/// The percentage of the disk that is left free.
const FREE_PERCENT: u64 = 5;
/// The divisor of the bound: an eviction frees this part more than it needs, so that not each needs
/// a listing.
const EVICT_SHARE: u64 = 50;
/// The time between two warnings of a failing disk.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory holds data that artifactfs can fetch again (see bford.info/cachedir).\n";

/// A cache directory in use.
pub struct Cache {
    root: PathBuf,
    limit_bytes: u64,
    quota: Quota,
    started: Instant,
    complained: AtomicU64,
}

/// The space that a cache takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// The bytes of all segments.
    pub bytes: u64,
    /// The number of segments.
    pub files: u64,
    /// The bytes of pinned segments.
    pub pinned_bytes: u64,
    /// The bound.
    pub limit_bytes: u64,
}

impl Cache {
    /// Opens the cache that `options` name; `None` if there is none or it cannot be used.
    pub(crate) fn of(options: &StoreOptions) -> Option<Self> {
        let opened = Self::open(options.cache.as_ref()?, options.cache_bytes);
        // Without a cache every read goes to the store, which is slow but correct.
        opened.inspect_err(|e| tracing::warn!("reading without a cache: {e}")).ok()
    }

    /// Refuses a bound that is too low.
    ///
    /// # Errors
    /// [`Kind::Usage`] below [`CACHE_BYTES_MIN`].
    pub fn check_limit(limit_bytes: u64) -> Result<()> {
        if limit_bytes >= CACHE_BYTES_MIN {
            return Ok(());
        }
        let what = format!("a cache of {limit_bytes} bytes is too small");
        Err(Error::new(Kind::Usage, what)
            .hint(format!("give it {} MiB or more", CACHE_BYTES_MIN >> 20)))
    }

    /// Opens or creates the cache in `root`, bounded to `limit_bytes`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a bound below [`CACHE_BYTES_MIN`]; errors of the disk.
    pub fn open(root: &Path, limit_bytes: u64) -> Result<Self> {
        Self::check_limit(limit_bytes)?;
        let root = std::path::absolute(root).at("find", root)?;
        make_folder(&root.join("packs")).at("create", &root)?;
        make_folder(&root.join("pins")).at("create", &root)?;
        let using = root.join("using");
        make_folder(&using).at("create", &root)?;
        let tag = root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, TAG).at("write", &tag)?;
        }
        let quota = Quota::open(&root.join("ledger"), using).at("open", &root)?;
        let (started, complained) = (Instant::now(), AtomicU64::new(0));
        let cache = Self { root, limit_bytes, quota, started, complained };
        cache.quota.change(|sums| cache.recount(sums)).at("count", &cache.root)?;
        Ok(cache)
    }

    /// Returns the bytes and segments that are entered: those present and those about to be
    /// written.
    pub(crate) fn entered(&self) -> (u64, u64) {
        self.quota.change(|sums| Ok((sums.bytes, sums.files))).unwrap_or_default()
    }

    /// Returns the bound.
    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Returns the folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, key: SegmentKey) -> PathBuf {
        let name = key.to_string();
        self.root.join("packs").join(&name[..2]).join(name)
    }

    /// Opens the file of a segment for reading and writing; `None` if it cannot be opened.
    pub(crate) fn segment(&self, key: SegmentKey) -> Option<File> {
        File::options().read(true).write(true).open(self.path(key)).ok()
    }

    /// Opens or creates the file of a segment; `None` if the disk fails or is full.
    pub(crate) fn make_segment(&self, key: SegmentKey) -> Option<File> {
        if let Some(file) = self.segment(key) {
            return Some(file);
        }
        let path = self.path(key);
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let make = || {
            make_folder(path.parent().expect("a segment lies in a folder"))?;
            match options.open(&path) {
                // Another process made it at the same moment, and entered it.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    Ok((self.segment(key), false))
                }
                file => Ok((Some(file?), true)),
            }
        };
        let made = make().and_then(|(file, new)| {
            if new {
                self.quota.change(|sums| {
                    sums.bytes += FILE_OVERHEAD_BYTES;
                    sums.files += 1;
                    Ok(())
                })?;
            }
            Ok(file)
        });
        made.unwrap_or_else(|e| {
            self.complain(&e);
            None
        })
    }

    /// Takes room for `bytes`, and calls `evicted` with each segment that is evicted for it.
    /// Returns `None` if there is no room: the bytes must not be written.
    pub(crate) fn reserve(
        &self,
        bytes: u64,
        evicted: &mut dyn FnMut(SegmentKey),
    ) -> Option<Room<'_>> {
        let limit = self.limit_bytes - FOLDERS_BYTES;
        let fits = |sums: &Sums, lacking| {
            lacking == 0 && sums.bytes + bytes <= limit && sums.files < FILES_MAX
        };
        let mut enter = |sums: &mut Sums| -> io::Result<bool> {
            let mut lacking = self.lacking_on_disk(bytes)?;
            if !fits(sums, lacking) {
                let held = self.recount(sums)?;
                let over = (sums.bytes + bytes).saturating_sub(limit).max(lacking);
                if !fits(sums, lacking) {
                    let wanted = over + self.limit_bytes / EVICT_SHARE;
                    self.evict(sums, held, wanted, evicted)?;
                    lacking = self.lacking_on_disk(bytes)?;
                }
            }
            let fits = fits(sums, lacking);
            if fits {
                sums.bytes += bytes;
                sums.flying += bytes;
            }
            Ok(fits)
        };
        match self.quota.change(&mut enter) {
            Ok(fits) => fits.then(|| Room { cache: self, bytes, used: false }),
            Err(e) => {
                self.complain(&e);
                None
            }
        }
    }

    /// Returns how many bytes the disk lacks for `bytes` and the share that is left free.
    fn lacking_on_disk(&self, bytes: u64) -> io::Result<u64> {
        let disk = statvfs(&self.root)?;
        let free = disk.f_bavail * disk.f_frsize;
        let keep = disk.f_blocks * disk.f_frsize / 100 * FREE_PERCENT;
        Ok((keep + bytes).saturating_sub(free))
    }

    /// Warns that the disk fails, at most once a minute.
    pub(crate) fn complain(&self, error: &io::Error) {
        let now = self.started.elapsed().as_secs() + 1;
        let last = self.complained.load(Ordering::Relaxed);
        if last == 0 || now - last >= COMPLAIN_EVERY.as_secs() {
            self.complained.store(now, Ordering::Relaxed);
            tracing::warn!("the cache {} cannot be used: {error}", self.root.display());
        }
    }

    /// Returns all segments, in no order.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub(crate) fn segments(&self) -> io::Result<Vec<CachedSegment>> {
        let mut held = Vec::new();
        for folder in fs::read_dir(self.root.join("packs"))? {
            for file in fs::read_dir(folder?.path())? {
                let file = file?;
                let name = file.file_name();
                let Some(key) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
                // A segment that was removed meanwhile is left out.
                let Ok(meta) = file.metadata() else { continue };
                held.push(CachedSegment {
                    key,
                    bytes: meta.blocks() * 512,
                    used: meta.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        }
        Ok(held)
    }

    /// Sets the sums to the bytes that are present and those about to be written. Returns all
    /// segments.
    fn recount(&self, sums: &mut Sums) -> io::Result<Vec<CachedSegment>> {
        let held = self.segments()?;
        let there: u64 = held.iter().map(|segment| segment.bytes + FILE_OVERHEAD_BYTES).sum();
        // For a moment, bytes that are being written count twice.
        sums.bytes = there + sums.flying + self.quota.reserved_by_others()?;
        sums.files = held.len() as u64;
        Ok(held)
    }

    fn evict(
        &self,
        sums: &mut Sums,
        held: Vec<CachedSegment>,
        bytes: u64,
        evicted: &mut dyn FnMut(SegmentKey),
    ) -> io::Result<u64> {
        let mut freed = 0;
        for victim in evict::choose(held, &self.pinned(), bytes) {
            freed += self.unlink(sums, victim.key)?;
            evicted(victim.key);
        }
        Ok(freed)
    }

    fn unlink(&self, sums: &mut Sums, key: SegmentKey) -> io::Result<u64> {
        let path = self.path(key);
        let bytes = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            meta => meta?.blocks() * 512 + FILE_OVERHEAD_BYTES,
        };
        fs::remove_file(&path)?;
        sums.bytes = sums.bytes.saturating_sub(bytes);
        sums.files = sums.files.saturating_sub(1);
        Ok(bytes)
    }

    /// Removes a segment and returns the bytes that it took.
    ///
    /// # Errors
    /// If it exists and cannot be removed.
    pub(crate) fn remove(&self, key: SegmentKey) -> io::Result<u64> {
        self.quota.change(|sums| self.unlink(sums, key))
    }

    /// Removes segments, least recently used first, until no more than `bytes` are left. Returns
    /// the bytes removed.
    ///
    /// # Errors
    /// If the folder cannot be listed or a segment cannot be removed.
    pub fn shrink_to(&self, bytes: u64) -> Result<u64> {
        let shrink = |sums: &mut Sums| {
            let held = self.recount(sums)?;
            let there: u64 = held.iter().map(|segment| segment.bytes).sum();
            if there <= bytes { Ok(0) } else { self.evict(sums, held, there - bytes, &mut |_| {}) }
        };
        self.quota.change(shrink).at("empty", &self.root)
    }

    /// Returns the space that the segments take.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn usage(&self) -> Result<CacheUse> {
        let pinned = self.pinned();
        let mut found = CacheUse { limit_bytes: self.limit_bytes, ..CacheUse::default() };
        for segment in self.segments().at("list", &self.root)? {
            found.files += 1;
            found.bytes += segment.bytes;
            if pinned.contains(&segment.key) {
                found.pinned_bytes += segment.bytes;
            }
        }
        Ok(found)
    }

    fn pinned(&self) -> HashSet<SegmentKey> {
        let files = fs::read_dir(self.root.join("pins")).into_iter().flatten().flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts
            .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Pins the segments in `keys` under `name`, in place of those that `name` pinned before. They
    /// stay until `name` is unpinned.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub(crate) fn pin(&self, name: &str, keys: &HashSet<SegmentKey>) -> Result<()> {
        let path = self.root.join("pins").join(name);
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        replace(&path, text.as_bytes())
    }

    /// Unpins `name`. Returns whether it was pinned.
    ///
    /// # Errors
    /// If the list cannot be removed.
    pub fn unpin(&self, name: &str) -> Result<bool> {
        let path = self.root.join("pins").join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.at("remove", &path).map(|()| true),
        }
    }

    /// Returns the names that are pinned, sorted.
    pub fn pins(&self) -> Vec<String> {
        let files = fs::read_dir(self.root.join("pins")).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            files.filter_map(|file| file.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }
}

/// Room that was taken. Dropping it gives the room back, unless it was used.
pub(crate) struct Room<'a> {
    cache: &'a Cache,
    bytes: u64,
    used: bool,
}

impl Room<'_> {
    /// Keeps the room, since the bytes are written.
    pub(crate) fn used(mut self) {
        self.used = true;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let land = |sums: &mut Sums| {
            sums.flying = sums.flying.saturating_sub(self.bytes);
            if !self.used {
                sums.bytes = sums.bytes.saturating_sub(self.bytes);
            }
            Ok(())
        };
        if let Err(e) = self.cache.quota.change(land) {
            self.cache.complain(&e);
        }
    }
}

/// Creates a folder that only its owner may open, since the cache checks no rights.
fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object::PackId;
    use rustix::fs::{FallocateFlags, fallocate};

    const LIMIT: u64 = CACHE_BYTES_MIN;

    /// Returns the bytes that are present, while no process can take room.
    fn there(cache: &Cache) -> u64 {
        let count = |_: &mut Sums| {
            Ok(cache.segments()?.iter().map(|held| held.bytes + FILE_OVERHEAD_BYTES).sum())
        };
        cache.quota.change(count).unwrap()
    }

    /// Takes room and uses it at random. If `killed`, it may end with some room taken.
    fn use_at_random(root: &Path, seed: u64, killed: bool) {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
        let cache = Cache::open(root, LIMIT).unwrap();
        for _ in 0..600 {
            let key = SegmentKey { pack: PackId([random.random_range(0..9); 16]), number: 0 };
            let file = cache.make_segment(key).unwrap();
            let (start, bytes) =
                (random.random_range(0..28u64) << 20, 1 << random.random_range(12..23));
            // All of the bytes count as absent: at worst too much is entered.
            let Some(room) = cache.reserve(bytes, &mut |_| {}) else { continue };
            match random.random_range(0..20) {
                0 => drop(room),
                1 if killed => return std::mem::forget(room),
                2 => assert!(cache.remove(key).is_ok()),
                _ => {
                    fallocate(&file, FallocateFlags::empty(), start, bytes).unwrap();
                    room.used();
                }
            }
            assert!(there(&cache) <= LIMIT);
        }
    }

    #[test]
    fn several_processes_keep_one_bound_and_use_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let most = std::thread::scope(|scope| {
            let users: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn(move || {
                        for life in 0..8 {
                            use_at_random(root, n * 100 + life, n % 2 == 0);
                        }
                    })
                })
                .collect();
            let cache = Cache::open(root, LIMIT).unwrap();
            let mut most = 0;
            while !users.iter().all(|user| user.is_finished()) {
                most = most.max(there(&cache));
                std::thread::sleep(Duration::from_millis(1));
            }
            users.into_iter().for_each(|user| user.join().unwrap());
            most
        });
        assert!(most > LIMIT * 3 / 4, "{most} bytes used of {LIMIT}");
        let cache = Cache::open(root, LIMIT).unwrap();
        assert_eq!(cache.entered().0, there(&cache), "what the killed had taken is free again");
    }
}
