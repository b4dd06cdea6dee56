//! Passthrough: files of drafts that the kernel reads and writes by itself.
//!
//! Only a file whose bytes are all in the upper can be passed through. While a file is open one
//! way, the kernel refuses to open it the other way (EIO). So the first open decides for all, and
//! all use one backing. This table notices a close later than the kernel, never earlier.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::BackingId;

/// The bit that is set in handles of files of versions; the low bits are the thread that opened it.
const VERSION_BIT: u64 = 1 << 63;

enum Use {
    Cached(usize),
    Through(Arc<BackingId>, usize),
}

#[derive(Default)]
struct Inner {
    used: HashMap<u64, Use>,
    /// The node of each handle.
    nodes: HashMap<u64, u64>,
    /// The nodes that the kernel wrote by itself: its cached pages of them may be old.
    passed: HashSet<u64>,
    /// The number of open files of versions, by thread.
    readers: HashMap<u32, usize>,
    refused: bool,
}

/// The files that are passed through, and those that are not.
pub(crate) struct Backings {
    wanted: bool,
    inner: Mutex<Inner>,
}

/// The way in which a file is opened.
pub(crate) enum Way {
    /// With requests to us; `true` if the kernel's cached pages are still valid.
    Cached(bool),
    /// By the kernel itself, with this backing.
    Through(Arc<BackingId>),
}

impl Backings {
    /// Creates an empty table; passes nothing through unless `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, inner: Mutex::default() }
    }

    /// Returns whether passing through is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides how `handle` of `node` is opened by thread `reader`; `plain` is the upper file if
    /// that holds all bytes.
    pub(crate) fn open(
        &self,
        node: u64,
        handle: u64,
        plain: Option<&File>,
        reader: u32,
        back: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Way {
        if !self.wanted {
            return Way::Cached(true);
        }
        let mut inner = self.lock();
        inner.nodes.insert(handle, node);
        let fresh = !inner.passed.contains(&node);
        match inner.used.get_mut(&node) {
            Some(Use::Cached(count)) => {
                *count += 1;
                return Way::Cached(fresh);
            }
            Some(Use::Through(backing, count)) => {
                *count += 1;
                return Way::Through(Arc::clone(backing));
            }
            None => {}
        }
        // A thread that has a file of a version open is about to copy it. That needs no bytes,
        // unless the kernel writes them by itself.
        let copies = inner.readers.contains_key(&reader);
        if let (Some(file), false, false) = (plain, inner.refused, copies) {
            match back(file) {
                Ok(backing) => {
                    let backing = Arc::new(backing);
                    inner.used.insert(node, Use::Through(Arc::clone(&backing), 1));
                    inner.passed.insert(node);
                    return Way::Through(backing);
                }
                Err(e) => {
                    tracing::info!("files are not passed through: {e}");
                    inner.refused = true;
                }
            }
        }
        inner.used.insert(node, Use::Cached(1));
        Way::Cached(fresh)
    }

    /// Returns whether a handle is passed through.
    pub(crate) fn is_through(&self, handle: u64) -> bool {
        let inner = self.lock();
        let used = inner.nodes.get(&handle).and_then(|node| inner.used.get(node));
        matches!(used, Some(Use::Through(..)))
    }

    /// Forgets a handle that was closed.
    pub(crate) fn close(&self, handle: u64) {
        if !self.wanted {
            return;
        }
        let mut inner = self.lock();
        if handle & VERSION_BIT != 0 {
            let reader = handle as u32;
            if let Some(count) = inner.readers.get_mut(&reader) {
                *count -= 1;
                if *count == 0 {
                    inner.readers.remove(&reader);
                }
            }
            return;
        }
        let Some(node) = inner.nodes.remove(&handle) else { return };
        let left = match inner.used.get_mut(&node) {
            Some(Use::Cached(count) | Use::Through(_, count)) => {
                *count -= 1;
                *count
            }
            None => return,
        };
        if left == 0 {
            inner.used.remove(&node);
        }
    }

    /// Forgets a node that the kernel forgets.
    pub(crate) fn forget(&self, node: u64) {
        if self.wanted {
            self.lock().passed.remove(&node);
        }
    }

    /// Returns a handle for a file of a version, opened by thread `reader`.
    pub(crate) fn version_handle(&self, reader: u32) -> u64 {
        if self.wanted {
            *self.lock().readers.entry(reader).or_default() += 1;
        }
        VERSION_BIT | u64::from(reader)
    }
}
