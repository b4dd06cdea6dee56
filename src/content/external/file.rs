//! External files of this machine: read where they are, if they are what was recorded.

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use rustix::fs::fstatfs;
use rustix::io::Errno;

use super::changed::changed;
use super::place::{self, Readers, Requester};
use crate::error::{Error, Kind, Result};
use crate::model::digest::{DIGEST_BYTES, Digest};
use crate::model::external::External;
use crate::model::host::file_time;

/// The source of our mounts in `/proc/self/mountinfo`.
pub(crate) const MOUNT_SOURCE: &str = "artifactfs";
/// The type of every file system that a program serves (statfs(2)).
const FUSE_MAGIC: u64 = 0x6573_5546;
/// The number of reads of a file that changes meanwhile.
const ATTEMPTS: u32 = 3;
/// The number of files whose last comparison is remembered: some 10 MiB.
const JUDGED: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not zero");
/// The size up to which a file is hashed by its reader.
const HASHED_AT_ONCE_BYTES: u64 = 4 << 20;
/// The time after a change in which the next may get the same time: the clock of files ticks (two
/// ticks at 100 Hz).
const TICKS: Duration = Duration::from_millis(20);
/// The number of files hashed at a time.
const HASHED_AT_ONCE: usize = 2;
/// The bytes hashed at a time.
const HASH_STEP_BYTES: usize = 1 << 20;

/// The attributes that stay the same as long as a file does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size_bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    fn modified(&self) -> String {
        modified_text(self.modified)
    }

    /// Returns the time since the last change; `None` if that is in the future.
    fn since_change(&self) -> Option<Duration> {
        let now = file_time().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
        now.checked_sub(changed)
    }
}

/// Returns a time of change as descriptors hold it: nanoseconds since 1970.
pub(crate) fn modified_text((seconds, nanoseconds): (i64, i64)) -> String {
    (i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)).to_string()
}

/// Returns whether `file` is in one of our own mounts, by whatever name it was reached.
///
/// # Errors
/// The errors of the system.
pub(crate) fn is_ours(file: &File) -> io::Result<bool> {
    if fstatfs(file)?.f_type as u64 != FUSE_MAGIC {
        return Ok(false);
    }
    // A request for its attributes would go to this process itself.
    let (major, minor) = place::Known::of(file)?.device;
    let device = format!("{major}:{minor}");
    // proc_pid_mountinfo(5): the third field is the device, the second behind the dash the source.
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().any(|line| {
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        line.split(' ').nth(2) == Some(&device) && source == Some(MOUNT_SOURCE)
    }))
}

/// Returns the BLAKE3 of all of an open file.
///
/// # Errors
/// The errors of the system.
pub(crate) fn hash(file: &File) -> io::Result<[u8; DIGEST_BYTES]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_STEP_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The external files of this machine, and the results of their comparisons.
pub(crate) struct Files {
    /// The folders that may be referred to; `None` for all.
    folders: Option<Vec<PathBuf>>,
    judged: Arc<(Mutex<Judged>, Condvar)>,
    /// The time that a reader waits for a file to be hashed.
    patience: Duration,
}

struct Judged {
    /// The identity of a file when it was hashed, and whether it had the recorded bytes.
    known: LruCache<Digest, (Identity, bool)>,
    under_way: HashSet<Digest>,
}

fn lock(judged: &(Mutex<Judged>, Condvar)) -> MutexGuard<'_, Judged> {
    judged.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// Returns a value that has compared no files yet. A reader that has to wait for a file to be
    /// hashed does so for `patience`.
    pub(crate) fn new(patience: Duration, folders: Option<Vec<PathBuf>>) -> Self {
        let judged = Judged { known: LruCache::new(JUDGED), under_way: HashSet::new() };
        Self { folders, judged: Arc::new((Mutex::new(judged), Condvar::new())), patience }
    }

    /// Fills `buffer` from byte `offset` on of the file that `external`, an object named `digest`,
    /// describes.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is not what was recorded; [`Kind::Unavailable`] if it cannot be
    /// read; [`Kind::Denied`] if `requester` may not read it there; [`Kind::TimedOut`] if the
    /// comparison takes too long.
    pub(crate) fn read(
        &self,
        digest: Digest,
        external: &Arc<External>,
        offset: u64,
        buffer: &mut [u8],
        requester: Option<Requester>,
    ) -> Result<()> {
        let failed = |e| reader_error(external, e);
        for _ in 0..ATTEMPTS {
            let (file, before) = self.opened(external)?;
            if let Some(requester) = requester {
                refuse_stranger(&requester, external, &file)?;
            }
            if !self.is_recorded(digest, external, &file, before)? {
                let found = before.modified();
                let how = format!("it changed at {found} ns since 1970, and its bytes differ");
                return Err(changed(&external.url, &how));
            }
            match file.read_exact_at(buffer, offset) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
                read => read.map_err(failed)?,
            }
            if Identity::of(&file).map_err(failed)? == before {
                return Ok(());
            }
        }
        Err(changed(&external.url, "it is being changed"))
    }

    /// Checks that the requester may read the file at its place, even if its content has changed.
    ///
    /// # Errors
    /// As [`Files::read`], except that a changed file is no error.
    pub(crate) fn permit(&self, external: &External, requester: &Requester) -> Result<()> {
        refuse_stranger(requester, external, &self.found(external)?)
    }

    /// Returns the users that may read the file at its place, even if its content has changed. If
    /// that cannot be determined, only this process may.
    pub(crate) fn readers(&self, external: &External) -> Readers {
        match self.found(external) {
            Ok(file) => Readers::of(&file),
            Err(e) => {
                tracing::debug!("the readers of an external file are not known: {e}");
                Readers::ourselves()
            }
        }
    }

    /// Reads all of the file and compares it with what was recorded.
    ///
    /// # Errors
    /// As [`Files::read`].
    pub(crate) fn verify(&self, external: &External) -> Result<()> {
        let failed = |e| reader_error(external, e);
        for _ in 0..ATTEMPTS {
            let (file, before) = self.opened(external)?;
            let Some(recorded) = external.checksum else { return Ok(()) };
            let found = hash(&file).map_err(failed)?;
            if Identity::of(&file).map_err(failed)? == before {
                return if found == recorded { Ok(()) } else { Err(other_bytes(external)) };
            }
        }
        Err(changed(&external.url, "it is being changed"))
    }

    /// Refuses a file or folder that is in none of the folders that may be referred to.
    ///
    /// # Errors
    /// [`Kind::Denied`] for such a file or folder, and the errors of the system.
    pub(crate) fn refuse_outside(&self, file: &File, shown: &dyn Display) -> Result<()> {
        let Some(folders) = &self.folders else { return Ok(()) };
        if place::is_below(file, folders)
            .map_err(|e| Error::io(format!("cannot find {shown}"), e))?
        {
            return Ok(());
        }
        Err(Error::new(Kind::Denied, format!("{shown} is in no folder that may be referred to"))
            .hint(
                "the setting external-dirs lists these folders, and $ARTIFACTFS_EXTERNAL_DIRS does",
            ))
    }

    /// Opens the file and checks that it has the recorded length.
    fn opened(&self, external: &External) -> Result<(File, Identity)> {
        let failed = |e| reader_error(external, e);
        let file = place::open_found(&self.found(external)?).map_err(failed)?;
        let identity = Identity::of(&file).map_err(failed)?;
        if identity.size_bytes != external.size_bytes {
            let (recorded, found) = (external.size_bytes, identity.size_bytes);
            let how = format!("size {recorded} was recorded, and {found} is found");
            return Err(changed(&external.url, &how));
        }
        Ok((file, identity))
    }

    /// Locates the recorded file without opening it, and checks that it may be referred to.
    fn found(&self, external: &External) -> Result<File> {
        let failed = |e| reader_error(external, e);
        let path = external.url.path().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("{} is not a file of this machine", external.url))
        })?;
        let file = match external.depth {
            // A file that an earlier release recorded may be a symlink: the bytes decide whether it
            // is right.
            0 if external.checksum.is_some() => place::find(&path),
            depth => place::find_below(&path, depth.max(1)),
        };
        let file = file.map_err(failed)?;
        self.refuse_outside(&file, &external.url)?;
        if is_ours(&file).map_err(failed)? {
            return Err(changed(&external.url, "it leads into a mount of artifactfs"));
        }
        Ok(file)
    }

    /// Returns whether an open file is the recorded one: by its bytes, if their checksum is known.
    /// Times and inodes prove nothing: a user that may write the file may set or reuse them.
    fn is_recorded(
        &self,
        digest: Digest,
        external: &Arc<External>,
        file: &File,
        now: Identity,
    ) -> Result<bool> {
        let Some(checksum) = external.checksum else {
            return Ok(external.modified.is_empty() || external.modified == now.modified());
        };
        let deadline = Instant::now() + self.patience;
        let mut judged = lock(&self.judged);
        loop {
            match judged.known.get(&digest) {
                Some((seen, good)) if *seen == now => return Ok(*good),
                _ => {}
            }
            if now.size_bytes <= HASHED_AT_ONCE_BYTES {
                drop(judged);
                return Ok(judge(&self.judged, digest, checksum, file, now));
            }
            if judged.under_way.len() < HASHED_AT_ONCE && judged.under_way.insert(digest) {
                let file = file.try_clone().map_err(|e| reader_error(external, e))?;
                let shared = Arc::clone(&self.judged);
                // The thread goes on after this reader has given up, for the readers to come.
                let judges = std::thread::Builder::new().name("judge".to_owned());
                let judged_by = judges.spawn(move || judge(&shared, digest, checksum, &file, now));
                if let Err(e) = judged_by {
                    judged.under_way.remove(&digest);
                    return Err(Error::io("cannot start a thread to hash an external file", e));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("{} was not compared with its checksum in time", external.url);
                return Err(Error::new(Kind::TimedOut, what).hint("try again"));
            }
            let waited = self.judged.1.wait_timeout(judged, left);
            judged = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn refuse_stranger(requester: &Requester, external: &External, file: &File) -> Result<()> {
    if place::may_read(requester, file) {
        return Ok(());
    }
    let what = format!("{} may not be read there by this user", external.url);
    Err(Error::new(Kind::Denied, what)
        .hint("whoever owns it grants that, or puts a copy of the file itself"))
}

/// Hashes a file, and returns whether it is the recorded one and did not change meanwhile.
fn judge(
    judged: &(Mutex<Judged>, Condvar),
    digest: Digest,
    checksum: [u8; DIGEST_BYTES],
    file: &File,
    before: Identity,
) -> bool {
    // From then on every change moves the ctime.
    if let Some(left) = before.since_change().and_then(|since| TICKS.checked_sub(since)) {
        std::thread::sleep(left);
    }
    let good = hash(file).is_ok_and(|found| found == checksum);
    let same = Identity::of(file).is_ok_and(|after| after == before);
    let mut known = lock(judged);
    known.under_way.remove(&digest);
    known.known.put(digest, (before, good && same));
    drop(known);
    judged.1.notify_all();
    good && same
}

/// Maps an I/O error to the kind a reader sees.
fn reader_error(external: &External, error: io::Error) -> Error {
    let url = &external.url;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => return changed(url, "a symlink stands in its place"),
        Some(Errno::XDEV) => {
            return changed(url, "a symlink leads out of the folder that was recorded");
        }
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            changed(url, "it is not there any more")
        }
        io::ErrorKind::PermissionDenied => {
            Error::new(Kind::Unavailable, format!("{url} may not be read")).because(error)
        }
        io::ErrorKind::InvalidInput => changed(url, &error.to_string()),
        _ => Error::new(Kind::Unavailable, format!("cannot read {url}")).because(error),
    }
}

fn other_bytes(external: &External) -> Error {
    changed(&external.url, "its bytes differ")
}

/// Returns the error for a path that leads into one of our own mounts.
pub(crate) fn loops(shown: &str) -> Error {
    let what = format!("{shown} leads into a mount of artifactfs");
    Error::new(Kind::Conflict, what)
        .hint("what is in a version needs no reference: copy it, or start a draft from it")
}
