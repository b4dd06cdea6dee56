//! Open files and directories.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Result;
use super::base_xattr::ContentXattr;
use super::freeze::DraftKey;
use super::open_directory::DirectoryHandle;
use crate::model::tree::Content;

/// The descriptors left for everything else: packs, sockets, the registry.
const DESCRIPTORS_RESERVED: u64 = 512;

/// The purpose of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// Reading only.
    Read,
    /// Execution by execve(2).
    Run,
    /// Writing, or reading and writing.
    Write,
}

/// The flag that the kernel adds to those of open(2) for execve(2): `__FMODE_EXEC` of `linux/fs.h`.
const RUN: OFlags = OFlags::from_bits_retain(0x20);

impl OpenMode {
    /// Returns the purpose that the kernel's `flags` state.
    pub(crate) fn of(flags: OFlags) -> Self {
        match flags {
            _ if flags.intersects(OFlags::WRONLY | OFlags::RDWR) => Self::Write,
            _ if flags.contains(RUN) => Self::Run,
            _ => Self::Read,
        }
    }
}

/// The state that all handles of one file share.
#[derive(Default)]
pub(crate) struct Inode {
    /// The base xattr of the file.
    pub(crate) xattr: Option<ContentXattr>,
    /// The upper file, for handles that were opened before there was one.
    pub(crate) came_up: Option<Arc<File>>,
}

/// A file that is open, or whose length is being changed.
#[derive(Default)]
pub(crate) struct OpenInode(RwLock<Inode>);

impl OpenInode {
    /// Locks the state shared: held while bytes are read, or written without lower content.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inode> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state shared like [`OpenInode::read`], or returns `None` if that would wait.
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, Inode>> {
        match self.0.try_read() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Locks the state exclusively: held while the base xattr may change.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Inode> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file.
pub(crate) struct Handle {
    /// The upper file; `None` if there was none when it was opened.
    pub(crate) file: Option<Arc<File>>,
    /// The state shared with the other handles of the file.
    pub(crate) inode: Arc<OpenInode>,
    /// The node.
    pub(crate) node: u64,
    /// The draft.
    pub(crate) draft: DraftKey,
    /// The purpose.
    pub(crate) mode: OpenMode,
    /// The thread that opened it, as the kernel reports it.
    pub(crate) pid: u32,
}

impl Handle {
    /// Returns the upper file, which exists if the handle is open for writing.
    ///
    /// # Errors
    /// EBADF if there is none.
    pub(crate) fn upper_file(&self) -> Result<&Arc<File>> {
        self.file.as_ref().ok_or(Errno::BADF)
    }
}

#[derive(Clone)]
enum Open {
    File(Arc<Handle>),
    Directory(Arc<DirectoryHandle>),
}

#[derive(Default)]
struct Inner {
    open: HashMap<u64, Open>,
    /// The shared state of each node, and the number of its users.
    inodes: HashMap<u64, (Arc<OpenInode>, usize)>,
    counted: u64,
}

/// Everything that is open.
pub(crate) struct Handles {
    inner: Mutex<Inner>,
    most: usize,
}

impl Handles {
    /// Raises the soft limit of descriptors to the hard one, and allows as many handles, less
    /// `DESCRIPTORS_RESERVED`.
    pub(crate) fn new() -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(e) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!("cannot raise the limit on open files: {e}");
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

    /// Returns the shared state of a node, to be released by [`Handles::give_back`]. `first` reads
    /// the base xattr if the node has no user yet.
    pub(crate) fn share(
        &self,
        node: u64,
        first: impl FnOnce() -> Result<Option<ContentXattr>>,
    ) -> Result<Arc<OpenInode>> {
        let mut inner = self.lock();
        if let Some((inode, users)) = inner.inodes.get_mut(&node) {
            *users += 1;
            return Ok(Arc::clone(inode));
        }
        let inode = Arc::new(OpenInode(RwLock::new(Inode { xattr: first()?, came_up: None })));
        inner.inodes.insert(node, (Arc::clone(&inode), 1));
        Ok(inode)
    }

    /// Releases the shared state of a node.
    pub(crate) fn give_back(&self, node: u64) {
        let mut inner = self.lock();
        if let Some((_, users)) = inner.inodes.get_mut(&node) {
            *users -= 1;
            if *users == 0 {
                inner.inodes.remove(&node);
            }
        }
    }

    /// Gives the handles of a node that was copied up its upper file.
    pub(crate) fn copied_up(&self, node: u64, open: impl FnOnce() -> Result<File>) -> Result<()> {
        let shared = self.lock().inodes.get(&node).map(|(inode, _)| Arc::clone(inode));
        if let Some(inode) = shared {
            inode.write().came_up = Some(Arc::new(open()?));
        }
        Ok(())
    }

    /// Returns whether the node is open.
    pub(crate) fn is_open(&self, node: u64) -> bool {
        self.lock().inodes.contains_key(&node)
    }

    /// Returns whether the node is a program that runs.
    pub(crate) fn runs(&self, node: u64) -> bool {
        let is_run = |open: &Open| matches!(open, Open::File(h) if h.node == node && h.mode == OpenMode::Run);
        self.lock().open.values().any(is_run)
    }

    /// Returns the shared state of a node, if it is open.
    pub(crate) fn shared(&self, node: u64) -> Option<Arc<OpenInode>> {
        self.lock().inodes.get(&node).map(|(inode, _)| Arc::clone(inode))
    }

    /// Keeps an open file, and returns its number.
    pub(crate) fn add_file(&self, handle: Handle) -> Result<u64> {
        let node = handle.node;
        let added = self.add(Open::File(Arc::new(handle)));
        if added.is_err() {
            self.give_back(node);
        }
        added
    }

    /// Keeps an open directory, and returns its number.
    pub(crate) fn add_directory(&self, handle: DirectoryHandle) -> Result<u64> {
        self.add(Open::Directory(Arc::new(handle)))
    }

    /// Returns the file with a number.
    pub(crate) fn file(&self, number: u64) -> Result<Arc<Handle>> {
        match self.lock().open.get(&number) {
            Some(Open::File(handle)) => Ok(Arc::clone(handle)),
            _ => Err(Errno::BADF),
        }
    }

    /// Returns the directory with a number.
    pub(crate) fn directory(&self, number: u64) -> Result<Arc<DirectoryHandle>> {
        match self.lock().open.get(&number) {
            Some(Open::Directory(handle)) => Ok(Arc::clone(handle)),
            _ => Err(Errno::BADF),
        }
    }

    /// Returns any open file of a node, to reach a file without a name; one open for writing is
    /// preferred.
    pub(crate) fn any_of(&self, node: u64) -> Result<Arc<Handle>> {
        let inner = self.lock();
        let files = inner.open.values().filter_map(|open| match open {
            Open::File(handle) if handle.node == node => Some(handle),
            _ => None,
        });
        files.max_by_key(|handle| handle.mode == OpenMode::Write).cloned().ok_or(Errno::NOENT)
    }

    /// Closes a handle, and returns the file if it was one.
    pub(crate) fn close(&self, number: u64) -> Option<Arc<Handle>> {
        let closed = self.lock().open.remove(&number);
        match closed {
            Some(Open::File(handle)) => {
                self.give_back(handle.node);
                Some(handle)
            }
            _ => None,
        }
    }

    /// Returns the files without lower content that are open for writing, each once.
    pub(crate) fn written(&self) -> Vec<Arc<File>> {
        // A writer may hold the lock of an inode while it reads from a remote store. So the table is
        // not locked while inodes are.
        let open: Vec<_> = {
            let inner = self.lock();
            let files = inner.open.values().filter_map(|open| match open {
                Open::File(handle) if handle.mode == OpenMode::Write => Some(Arc::clone(handle)),
                _ => None,
            });
            files.collect()
        };
        let mut nodes = std::collections::HashSet::new();
        let plain = open.iter().filter(|handle| handle.inode.read().xattr.is_none());
        plain.filter(|handle| nodes.insert(handle.node)).filter_map(|h| h.file.clone()).collect()
    }

    /// Lists a draft's open files with lower content, each as its node and that content.
    pub(crate) fn with_lower(&self, draft: &DraftKey) -> Vec<(u64, Content)> {
        let open: Vec<_> = {
            let inner = self.lock();
            let files = inner.open.values().filter_map(|open| match open {
                Open::File(handle) if handle.draft == *draft => Some(Arc::clone(handle)),
                _ => None,
            });
            files.collect()
        };
        let standing = open.iter().filter_map(|handle| {
            let xattr = handle.inode.read().xattr?;
            Some((handle.node, xattr.content))
        });
        standing.collect()
    }

    /// Returns process and node of every file of a draft that is open for writing.
    pub(crate) fn writers(&self, draft: &DraftKey) -> Vec<(u32, u64)> {
        let inner = self.lock();
        let files = inner.open.values().filter_map(|open| match open {
            Open::File(handle) => Some(handle),
            Open::Directory(_) => None,
        });
        let mine = files.filter(|h| h.mode == OpenMode::Write && h.draft == *draft);
        mine.map(|handle| (handle.pid, handle.node)).collect()
    }
}
