//! Passthrough: files of drafts that the kernel reads and writes by itself.
//!
//! Only what is wholly on the host can be passed through. While a file is open one way, the kernel
//! refuses to open it the other way (EIO), so the first to open it decides for all; and all use one
//! backing. Who decides knows of a close later than the kernel, never earlier.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::BackingId;

/// Set in the handles of files of versions; the other bits are the thread that opened it.
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
    /// Nodes that the kernel wrote by itself: what it has in its cache of them may be old.
    passed: HashSet<u64>,
    /// Threads that have files of versions open, and how many.
    readers: HashMap<u32, usize>,
    refused: bool,
}

/// Which files are passed through.
pub struct Backings {
    wanted: bool,
    inner: Mutex<Inner>,
}

/// How a file is opened.
pub enum Way {
    /// The kernel asks us; `true` when what it has in its cache is still good.
    Cached(bool),
    /// The kernel uses this.
    Through(Arc<BackingId>),
}

impl Backings {
    /// Nothing is passed through unless it is `wanted`.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, inner: Mutex::default() }
    }

    /// Whether passing through is wanted.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How `handle` of `node` is opened by thread `reader`; `plain` is the host's file if that is
    /// all there is.
    pub fn open(
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
        // Who has a file of a version open is about to copy it: that needs no bytes, unless the
        // kernel writes them by itself.
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

    /// Whether a handle is passed through.
    pub fn is_through(&self, handle: u64) -> bool {
        let inner = self.lock();
        let used = inner.nodes.get(&handle).and_then(|node| inner.used.get(node));
        matches!(used, Some(Use::Through(..)))
    }

    /// A handle was closed.
    pub fn close(&self, handle: u64) {
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

    /// The kernel forgets a node.
    pub fn forget(&self, node: u64) {
        if self.wanted {
            self.lock().passed.remove(&node);
        }
    }

    /// A handle for a file of a version, opened by thread `reader`.
    pub fn version_handle(&self, reader: u32) -> u64 {
        if self.wanted {
            *self.lock().readers.entry(reader).or_default() += 1;
        }
        VERSION_BIT | u64::from(reader)
    }
}
