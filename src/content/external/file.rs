//! External files of this machine: read where they are, if they are what was recorded.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use rustix::fs::{OFlags, fstatfs, major, minor};

use super::super::store::changed;
use crate::error::{Error, Kind, Result};
use crate::model::digest::{DIGEST_BYTES, Digest};
use crate::model::external::External;

/// What `/proc/self/mountinfo` calls our mounts.
pub const MOUNT_SOURCE: &str = "artifactfs";
/// The kind of every file system that a program serves (statfs(2)).
const FUSE_MAGIC: u64 = 0x6573_5546;
/// How often a file is read again that changes meanwhile.
const ATTEMPTS: u32 = 3;
/// Files of which is remembered what hashing them said.
const JUDGED: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");
/// Files that are hashed at a time.
const HASHED_AT_ONCE: usize = 2;
/// Bytes hashed at a time.
const HASH_STEP_BYTES: usize = 1 << 20;

/// What a file is as long as nobody changes it.
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
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
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
}

/// A time of change as descriptors have it.
pub fn modified_text((seconds, nanoseconds): (i64, i64)) -> String {
    (i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)).to_string()
}

/// Whether `file` is in one of our own mounts, by whatever name it was reached.
///
/// # Errors
/// What the host says.
pub fn is_ours(file: &File) -> io::Result<bool> {
    if fstatfs(file)?.f_type as u64 != FUSE_MAGIC {
        return Ok(false);
    }
    let device = file.metadata()?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    // proc_pid_mountinfo(5): the third field is the device, the second behind the dash the source.
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().any(|line| {
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        line.split(' ').nth(2) == Some(&device) && source == Some(MOUNT_SOURCE)
    }))
}

/// Opens what may be a file, without waiting for a FIFO's other end.
///
/// # Errors
/// What the host says.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY).bits();
    File::options().read(true).custom_flags(flags.cast_signed()).open(path)
}

/// The BLAKE3 of all of an open file.
///
/// # Errors
/// What the host says.
pub fn hash(file: &File) -> io::Result<[u8; DIGEST_BYTES]> {
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

/// What is known of files whose time of change is not the recorded one.
pub struct Files {
    judged: Arc<(Mutex<Judged>, Condvar)>,
    /// How long a reader waits for a file to be hashed.
    patience: Duration,
}

struct Judged {
    /// What a file was when it was hashed, and whether it had the recorded bytes.
    known: LruCache<Digest, (Identity, bool)>,
    under_way: HashSet<Digest>,
}

fn lock(judged: &(Mutex<Judged>, Condvar)) -> MutexGuard<'_, Judged> {
    judged.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// Nothing is known; who has to wait for a file to be hashed does so for `patience`.
    pub fn new(patience: Duration) -> Self {
        let judged = Judged { known: LruCache::new(JUDGED), under_way: HashSet::new() };
        Self { judged: Arc::new((Mutex::new(judged), Condvar::new())), patience }
    }

    /// Fills `buffer` from byte `offset` on of the file that `external`, an object named `digest`, describes.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when it is not what was recorded; [`Kind::Unavailable`] when it cannot be read;
    /// [`Kind::TimedOut`] when it takes too long to find out.
    pub fn read(
        &self,
        digest: Digest,
        external: &Arc<External>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let failed = |e| told(external, e);
        for _ in 0..ATTEMPTS {
            let (file, before) = self.opened(external)?;
            if !self.is_recorded(digest, external, &file, before)? {
                let found = before.modified();
                let how = format!("changed at {found} ns since 1970, and its bytes are others");
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

    /// Reads all of the file and compares it with what was recorded.
    ///
    /// # Errors
    /// As [`Files::read`].
    pub fn verify(&self, external: &External) -> Result<()> {
        let failed = |e| told(external, e);
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

    /// The file, if it has the recorded length.
    fn opened(&self, external: &External) -> Result<(File, Identity)> {
        let failed = |e| told(external, e);
        let path = external.url.path().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("{} is no file here", external.url))
        })?;
        let file = open(&path).map_err(failed)?;
        let identity = Identity::of(&file).map_err(failed)?;
        if is_ours(&file).map_err(failed)? {
            return Err(changed(&external.url, "it leads into a mount of artifactfs"));
        }
        if identity.size_bytes != external.size_bytes {
            let (recorded, found) = (external.size_bytes, identity.size_bytes);
            let how = format!("size {recorded} was recorded, and {found} is found");
            return Err(changed(&external.url, &how));
        }
        Ok((file, identity))
    }

    /// Whether an open file is the recorded one: by its time of change, else by its bytes.
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
        if external.modified == now.modified() {
            return Ok(true);
        }
        let deadline = Instant::now() + self.patience;
        let mut judged = lock(&self.judged);
        loop {
            match judged.known.get(&digest) {
                Some((seen, good)) if *seen == now => return Ok(*good),
                _ => {}
            }
            if judged.under_way.len() < HASHED_AT_ONCE && judged.under_way.insert(digest) {
                let file = file.try_clone().map_err(|e| told(external, e))?;
                let shared = Arc::clone(&self.judged);
                // It goes on when this reader has given up: the next will know.
                std::thread::spawn(move || judge(&shared, digest, checksum, &file, now));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("{} takes long to be compared with its checksum", external.url);
                return Err(Error::new(Kind::TimedOut, what).hint("try again"));
            }
            let waited = self.judged.1.wait_timeout(judged, left);
            judged = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Hashes a file; what came of it counts only if nobody changed it meanwhile.
fn judge(
    judged: &(Mutex<Judged>, Condvar),
    digest: Digest,
    checksum: [u8; DIGEST_BYTES],
    file: &File,
    before: Identity,
) {
    let good = hash(file).is_ok_and(|found| found == checksum);
    let same = Identity::of(file).is_ok_and(|after| after == before);
    let mut known = lock(judged);
    known.under_way.remove(&digest);
    known.known.put(digest, (before, good && same));
    drop(known);
    judged.1.notify_all();
}

/// What a reader is told whom a host's error met.
fn told(external: &External, error: io::Error) -> Error {
    let url = &external.url;
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
    changed(&external.url, "its bytes are others")
}

/// The error of what leads into one of our own mounts.
pub fn loops(shown: &str) -> Error {
    let what = format!("{shown} leads into a mount of artifactfs");
    Error::new(Kind::Conflict, what)
        .hint("what is in a version needs no reference: copy it, or start a draft from it")
}
