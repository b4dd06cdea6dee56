//! The drafts of a repository, open in this process. The other files of this room add the
//! operations, a subject each; this file needs none of them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use rustix::fs::{FlockOperation, Stat, flock};

use super::freeze::{DraftKey, Freezes};
use super::handle::Handles;
use super::lower::Lower;
use super::names_lock::NamesLocks;
use super::node::Nodes;
use super::trial::try_host;
use super::upper::UpperDirectory;
use crate::error::{DraftHint, Error, IoContext, Kind, Result};
use crate::model::reference::ArtifactPath;

/// The name of the lock file. No project has a name that begins with a dot.
const LOCK: &str = ".lock";
pub(super) const TRASH: &str = ".trash";
/// The directory of entries being built: they get their place by rename.
pub(super) const WORK: &str = ".work";
pub(super) const TREE: &str = "tree";

/// The drafts of a repository.
pub struct Drafts {
    pub(super) root: PathBuf,
    pub(super) upper: UpperDirectory,
    _lock: File,
    pub(super) names: NamesLocks,
    pub(super) nodes: Mutex<Nodes>,
    pub(super) handles: Handles,
    pub(super) gates: Arc<Freezes>,
    /// The trees and content that drafts are based on.
    pub(super) lower: Arc<dyn Lower>,
    /// The reason why the upper file system cannot keep a draft that is based on a version, if so.
    pub(super) unable: Option<String>,
    /// The block size of the upper file system: its holes begin and end at blocks.
    pub(super) block_bytes: u64,
    /// The umask of this process.
    pub(super) umask: u32,
    /// Owner and times of nodes that are only in the lower tree, by draft.
    pub(super) templates: Mutex<HashMap<DraftKey, Stat>>,
    pub(super) worked: AtomicU64,
    /// The upper inodes whose base xattr may not be durable. It takes 8 bytes for each file with
    /// lower content that was changed and not yet synced.
    pub(super) marked: Mutex<HashSet<u64>>,
    pub(super) trashed: AtomicU64,
}

/// The least block size used to fill holes, also if the file system has smaller blocks.
const BLOCK_MIN_BYTES: u64 = 4096;

impl Drafts {
    /// Opens the scratch directory, and creates it if need be.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another process has it open; any error of the upper file system.
    pub(crate) fn open(root: &Path, lower: Arc<dyn Lower>) -> Result<Self> {
        let (trash, work) = (root.join(TRASH), root.join(WORK));
        for folder in [&trash, &work] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .at("create", folder)?;
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).at("protect", root)?;
        let lock = lock_drafts(root)?;
        empty(&trash)?;
        empty(&work)?;
        let upper = UpperDirectory::open(root).at("open", root)?;
        let space = rustix::fs::statvfs(root).at("stat", root)?;
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(umask);
        let block_bytes = space.f_bsize.max(BLOCK_MIN_BYTES);
        let unable = try_host(&work, block_bytes).err().map(|e| e.to_string());
        if let Some(why) = &unable {
            tracing::warn!("{}: drafts cannot be based on versions here: {why}", root.display());
        }
        Ok(Self {
            root: root.to_owned(),
            upper,
            _lock: lock,
            names: NamesLocks::default(),
            nodes: Mutex::default(),
            handles: Handles::new(),
            gates: Arc::default(),
            lower,
            unable,
            block_bytes,
            umask: umask.as_raw_mode(),
            templates: Mutex::default(),
            worked: AtomicU64::new(0),
            marked: Mutex::default(),
            trashed: AtomicU64::new(0),
        })
    }

    pub(super) fn folder(&self, key: &ArtifactPath) -> PathBuf {
        self.root.join(key.project.as_str()).join(key.artifact.as_str())
    }

    /// Returns the directory of a draft's files.
    pub(crate) fn tree_path(&self, key: &ArtifactPath) -> PathBuf {
        self.folder(key).join(TREE)
    }

    /// Returns the work directory, which is emptied when the drafts are opened.
    pub(crate) fn work_folder(&self) -> PathBuf {
        self.root.join(WORK)
    }
}

fn lock_drafts(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.at("open", &path)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        rustix::io::Errno::WOULDBLOCK => {
            Error::new(Kind::Conflict, "another process has the drafts open")
                .hint(DraftHint::FindMount)
        }
        e => Error::io(format!("cannot lock {}", path.display()), e.into()),
    })?;
    Ok(lock)
}

fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).at("list", folder)? {
        let path = entry.at("list", folder)?.path();
        let meta = fs::symlink_metadata(&path).at("stat", &path)?;
        let gone = if meta.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.at("remove", &path)?;
    }
    Ok(())
}
