//! Prehashing: big files are cut and hashed while they are written, so that a commit only has to
//! confirm their chunks.
//!
//! One thread follows the files that are open for writing and have no lower. The kernel may write
//! to them without a request, so the thread polls their length. Its chunks are a guess: a commit
//! hashes each again, on all CPUs. If one is wrong, the commit builds again without them.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::content::chunk::Cutter;
use crate::content::pack::SOLO_MIN_BYTES;
use crate::model::digest::Digest;
use crate::model::object_kind::ObjectKind;
use crate::model::recipe::Piece;
use crate::staging::Drafts;

/// The interval between two polls while files are being written.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The time to wait for a writer before the thread checks whether the drafts are still open.
const IDLE: Duration = Duration::from_secs(1);
/// The number of bytes read at once.
const STEP_BYTES: usize = 8 << 20;
/// The maximum number of chunks remembered: 40 bytes each, of some 250 GiB.
const PIECES_MAX: usize = 1 << 20;
/// The nice value that is added to that of the thread (nice(2)).
const NICE: i32 = 5;

/// The chunks of files by their inode on the host.
#[derive(Default)]
pub(crate) struct Prehash(Mutex<Known>);

#[derive(Default)]
struct Known {
    files: HashMap<u64, Vec<Piece>>,
    order: VecDeque<u64>,
    pieces: usize,
}

impl Known {
    fn add(&mut self, upper: u64, pieces: &[Piece]) {
        if !self.files.contains_key(&upper) {
            self.order.push_back(upper);
        }
        self.files.entry(upper).or_default().extend_from_slice(pieces);
        self.pieces += pieces.len();
        while self.pieces > PIECES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.pieces -= self.files.remove(&oldest).map_or(0, |pieces| pieces.len());
        }
    }

    fn take(&mut self, upper: u64) -> Vec<Piece> {
        let pieces = self.files.remove(&upper).unwrap_or_default();
        self.pieces -= pieces.len();
        self.order.retain(|other| *other != upper);
        pieces
    }
}

/// A file that is followed.
struct Followed {
    file: File,
    upper: u64,
    /// The number of bytes cut so far.
    done: u64,
}

impl Prehash {
    /// Takes the chunks found at the head of a file.
    pub(crate) fn take(&self, upper: u64) -> Vec<Piece> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(upper)
    }

    /// Starts a thread that follows the files written to `drafts`, as long as these are open.
    pub(crate) fn start(self: &Arc<Self>, drafts: &Arc<Drafts>, cutter: Cutter) {
        let (ahead, drafts) = (Arc::clone(self), Arc::downgrade(drafts));
        let follows = std::thread::Builder::new().name("hash".to_owned());
        let spawned = follows.spawn(move || {
            if let Err(e) = rustix::process::nice(NICE) {
                tracing::debug!("cannot lower the priority of prehashing: {e}");
            }
            ahead.run(&drafts, &cutter);
        });
        if let Err(e) = spawned {
            tracing::warn!("cannot start the thread that prehashes drafts: {e}");
        }
    }

    fn run(&self, drafts: &Weak<Drafts>, cutter: &Cutter) {
        let mut following: Vec<Followed> = Vec::new();
        while let Some(drafts) = drafts.upgrade() {
            let written = drafts.written();
            if written.is_empty() {
                following.clear();
                drafts.wait_written(IDLE);
                continue;
            }
            drop(drafts);
            let mut open = Vec::new();
            for file in written {
                let Ok(meta) = file.metadata() else { continue };
                let known = following.iter().position(|f| f.upper == meta.ino());
                let known = known.map(|index| following.swap_remove(index));
                if meta.len() >= SOLO_MIN_BYTES {
                    open.push(known.unwrap_or(Followed { file, upper: meta.ino(), done: 0 }));
                }
            }
            following = open;
            let mut busy = false;
            for file in &mut following {
                busy |= self.step(file, cutter);
            }
            if !busy {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// Cuts and hashes the next [`STEP_BYTES`] of a file. Returns whether they were there.
    fn step(&self, followed: &mut Followed, cutter: &Cutter) -> bool {
        let size = followed.file.metadata().map_or(0, |meta| meta.len());
        if size < followed.done + STEP_BYTES as u64 {
            return false;
        }
        let mut buffer = vec![0; STEP_BYTES];
        if followed.file.read_exact_at(&mut buffer, followed.done).is_err() {
            return false;
        }
        let (mut pieces, mut start) = (Vec::new(), 0);
        while buffer.len() - start >= cutter.max_bytes() {
            let length = cutter.cut(&buffer[start..start + cutter.max_bytes()]);
            let digest = Digest::of(ObjectKind::Chunk, &buffer[start..start + length]);
            pieces.push(Piece { size_bytes: length as u64, digest });
            start += length;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.done == 0 {
            // The chunks of an earlier time that it was written are void.
            known.take(followed.upper);
        }
        known.add(followed.upper, &pieces);
        followed.done += start as u64;
        true
    }
}
