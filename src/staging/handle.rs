//! Open files and directories.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::Result;
use super::gate::DraftKey;

/// Descriptors left for everything else: packs, sockets, the registry.
const DESCRIPTORS_RESERVED: u64 = 512;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only.
    Read,
    /// Writing, or both.
    Write,
}

/// An open file.
pub struct Handle {
    /// The host's file.
    pub file: File,
    /// The node.
    pub node: u64,
    /// Its draft.
    pub draft: DraftKey,
    /// What for.
    pub mode: OpenMode,
    /// Who opened it.
    pub pid: u32,
}

/// An open directory; reading moves its position.
pub struct DirectoryHandle(pub Mutex<OwnedFd>);

#[derive(Clone)]
enum Open {
    File(Arc<Handle>),
    Directory(Arc<DirectoryHandle>),
}

#[derive(Default)]
struct Inner {
    open: HashMap<u64, Open>,
    counted: u64,
}

/// Everything that is open.
pub struct Handles {
    inner: Mutex<Inner>,
    most: usize,
}

impl Handles {
    /// As many as this process may have descriptors for: the soft limit is raised to the hard one.
    pub fn new() -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(e) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!("the limit on open files stays: {e}");
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        let most = limit.saturating_sub(DESCRIPTORS_RESERVED).max(64);
        Self { inner: Mutex::default(), most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, open: Open) -> Result<u64> {
        let mut inner = self.lock();
        if inner.open.len() >= self.most {
            return Err(Errno::NFILE);
        }
        inner.counted += 1;
        let number = inner.counted;
        inner.open.insert(number, open);
        Ok(number)
    }

    /// Keeps an open file; its number.
    pub fn add_file(&self, handle: Handle) -> Result<u64> {
        self.add(Open::File(Arc::new(handle)))
    }

    /// Keeps an open directory; its number.
    pub fn add_directory(&self, handle: DirectoryHandle) -> Result<u64> {
        self.add(Open::Directory(Arc::new(handle)))
    }

    /// The file with a number.
    pub fn file(&self, number: u64) -> Result<Arc<Handle>> {
        match self.lock().open.get(&number) {
            Some(Open::File(handle)) => Ok(Arc::clone(handle)),
            _ => Err(Errno::BADF),
        }
    }

    /// The directory with a number.
    pub fn directory(&self, number: u64) -> Result<Arc<DirectoryHandle>> {
        match self.lock().open.get(&number) {
            Some(Open::Directory(handle)) => Ok(Arc::clone(handle)),
            _ => Err(Errno::BADF),
        }
    }

    /// Any open file of a node: how a file without a name is reached. One open for writing first.
    pub fn any_of(&self, node: u64) -> Result<Arc<Handle>> {
        let inner = self.lock();
        let files = inner.open.values().filter_map(|open| match open {
            Open::File(handle) if handle.node == node => Some(handle),
            _ => None,
        });
        files.max_by_key(|handle| handle.mode == OpenMode::Write).cloned().ok_or(Errno::NOENT)
    }

    /// Closes; the file, if it was one.
    pub fn close(&self, number: u64) -> Option<Arc<Handle>> {
        match self.lock().open.remove(&number) {
            Some(Open::File(handle)) => Some(handle),
            _ => None,
        }
    }

    /// Process and node of every file of a draft that is open for writing.
    pub fn writers(&self, draft: &DraftKey) -> Vec<(u32, u64)> {
        let inner = self.lock();
        let files = inner.open.values().filter_map(|open| match open {
            Open::File(handle) => Some(handle),
            Open::Directory(_) => None,
        });
        let mine = files.filter(|h| h.mode == OpenMode::Write && h.draft == *draft);
        mine.map(|handle| (handle.pid, handle.node)).collect()
    }
}
