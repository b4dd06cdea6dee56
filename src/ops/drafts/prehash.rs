//! Hashing ahead: big files are cut and hashed while they are written, so that a commit only has to
//! see that nothing of it changed.
//!
//! One thread follows the files that are open for writing and stand on nothing. The kernel may write
//! them by itself, so it looks how long they are. What it finds is a guess: a commit hashes each
//! chunk again, on all processors, and cuts anew what is different.

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

/// How often it looks while files are being written.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it waits for somebody to write before it looks whether it is still wanted.
const IDLE: Duration = Duration::from_secs(1);
/// Read at once.
const STEP_BYTES: usize = 8 << 20;
/// Chunks remembered in all: 40 bytes each, of some 250 GiB.
const PIECES_MAX: usize = 1 << 20;
/// How much less than others this thread is in a hurry (nice(2)).
const NICE: i32 = 5;

/// What is known of files by their inode on the host.
#[derive(Default)]
pub struct Prehash(Mutex<Known>);

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
    /// Cut so far.
    done: u64,
}

impl Prehash {
    /// The chunks at the head of a file, as far as they were seen; each is told once.
    pub fn take(&self, upper: u64) -> Vec<Piece> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(upper)
    }

    /// Follows what is written to `drafts`, in a thread of its own, as long as they are open.
    pub fn start(self: &Arc<Self>, drafts: &Arc<Drafts>, cutter: Cutter) {
        let (ahead, drafts) = (Arc::clone(self), Arc::downgrade(drafts));
        let follows = std::thread::Builder::new().name("hash".to_owned());
        let spawned = follows.spawn(move || {
            if let Err(e) = rustix::process::nice(NICE) {
                tracing::debug!("hashing ahead is in as much of a hurry as others: {e}");
            }
            ahead.run(&drafts, &cutter);
        });
        if let Err(e) = spawned {
            tracing::warn!("nothing is hashed while it is written: {e}");
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

    /// Cuts and hashes what is there; whether there was enough.
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
            // It was written before: what was known of it then counts no more.
            known.take(followed.upper);
        }
        known.add(followed.upper, &pieces);
        followed.done += start as u64;
        true
    }
}
