//! The scratch directory: which drafts there are.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::gate::{DraftKey, Frozen, Gates};
use super::handle::Handles;
use super::node::Nodes;
use super::posix::Caller;
use super::record::DraftRecord;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::name::ProjectName;
use crate::model::reference::ArtifactPath;

/// No project has a name that begins with a dot.
const LOCK: &str = ".lock";
const TRASH: &str = ".trash";
const RECORD: &str = "draft.json";
const TREE: &str = "tree";

/// The drafts of a repository.
pub struct Drafts {
    pub(super) root: PathBuf,
    pub(super) directory: OwnedFd,
    _lock: File,
    /// Held exclusively while names move, shared while a path is used.
    pub(super) tree: RwLock<()>,
    pub(super) nodes: Mutex<Nodes>,
    pub(super) handles: Handles,
    pub(super) gates: Arc<Gates>,
    trashed: AtomicU64,
}

/// A draft in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Regular files.
    pub files: u64,
    /// Bytes of these.
    pub size_bytes: u64,
}

impl Drafts {
    /// Opens the scratch directory, made if need be.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another process has it open.
    pub fn open(root: &Path) -> Result<Self> {
        let trash = root.join(TRASH);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&trash).at("create", &trash)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).at("protect", root)?;
        let lock_path = root.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.at("open", &lock_path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => {
                Error::new(Kind::Conflict, "another process has the drafts open")
                    .hint("a repository has one staging mount; `artifactfs status` shows it")
            }
            e => Error::io(format!("cannot lock {}", lock_path.display()), e.into()),
        })?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let directory = rustix::fs::open(root, flags, Mode::empty()).at("open", root)?;
        let drafts = Self {
            root: root.to_owned(),
            directory,
            _lock: lock,
            tree: RwLock::default(),
            nodes: Mutex::default(),
            handles: Handles::new(),
            gates: Arc::default(),
            trashed: AtomicU64::new(0),
        };
        drafts.empty_trash()?;
        Ok(drafts)
    }

    fn empty_trash(&self) -> Result<()> {
        let trash = self.root.join(TRASH);
        for entry in fs::read_dir(&trash).at("list", &trash)? {
            let path = entry.at("list", &trash)?.path();
            fs::remove_dir_all(&path).at("remove", &path)?;
        }
        Ok(())
    }

    fn folder(&self, key: &ArtifactPath) -> PathBuf {
        self.root.join(key.project.as_str()).join(key.artifact.as_str())
    }

    /// Where the files of a draft are.
    pub fn tree_path(&self, key: &ArtifactPath) -> PathBuf {
        self.folder(key).join(TREE)
    }

    /// Whether there is such a draft.
    pub fn exists(&self, key: &ArtifactPath) -> bool {
        self.tree_path(key).is_dir()
    }

    /// Projects that have a folder here.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn projects(&self) -> Result<Vec<ProjectName>> {
        let entries = fs::read_dir(&self.root).at("list", &self.root)?;
        let mut projects = Vec::new();
        for entry in entries {
            let entry = entry.at("list", &self.root)?;
            let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
            projects.extend(name.filter(|_| entry.path().is_dir()));
        }
        projects.sort_unstable();
        Ok(projects)
    }

    /// The drafts of a project.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn drafts_of(&self, project: &ProjectName) -> Result<Vec<ArtifactPath>> {
        let folder = self.root.join(project.as_str());
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("list", &folder)?,
        };
        let mut drafts = Vec::new();
        for entry in entries {
            let name = entry.at("list", &folder)?.file_name();
            let Some(artifact) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let key = ArtifactPath { project: project.clone(), artifact };
            drafts.extend(self.exists(&key).then_some(key));
        }
        drafts.sort_unstable();
        Ok(drafts)
    }

    /// All drafts.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list(&self) -> Result<Vec<ArtifactPath>> {
        let projects = self.projects()?;
        let drafts = projects.iter().map(|project| self.drafts_of(project));
        Ok(drafts.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Makes the folder of a project.
    ///
    /// # Errors
    /// When it cannot be made, or is there.
    pub fn create_project(&self, project: &ProjectName) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(self.root.join(project.as_str()))
    }

    /// Removes the folder of a project that has no drafts.
    ///
    /// # Errors
    /// When it is not there or not empty.
    pub fn remove_project(&self, project: &ProjectName) -> io::Result<()> {
        fs::remove_dir(self.root.join(project.as_str()))
    }

    /// Makes an empty draft that belongs to `caller`.
    ///
    /// # Errors
    /// EEXIST when there is one, and what the host says.
    pub fn create(&self, key: &ArtifactPath, caller: Caller, mode: u32) -> io::Result<()> {
        let folder = self.folder(key);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let tree = folder.join(TREE);
        fs::DirBuilder::new().mode(0o700).create(&tree)?;
        if rustix::process::geteuid().is_root() {
            chown(&tree, Some(caller.uid), Some(caller.gid))?;
        }
        fs::set_permissions(&tree, fs::Permissions::from_mode(mode & 0o7777))
    }

    /// Throws a draft away: out of sight at once, then deleted.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Conflict`] when files of it are open for writing.
    pub fn remove(&self, key: &ArtifactPath, frozen: Frozen) -> Result<()> {
        let number = self.trashed.fetch_add(1, Ordering::Relaxed);
        let trashed = self.root.join(TRASH).join(format!("{}-{number}", std::process::id()));
        {
            let _names = self.exclusive();
            let folder = self.folder(key);
            fs::rename(&folder, &trashed).at("remove", &folder)?;
            self.lock_nodes().remove_draft(&Arc::new(key.clone()));
        }
        drop(frozen);
        fs::remove_dir_all(&trashed).at("remove", &trashed)
    }

    /// What is kept about a draft.
    pub fn record(&self, key: &ArtifactPath) -> DraftRecord {
        let text = fs::read(self.folder(key).join(RECORD)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_record(&self, key: &ArtifactPath, record: &DraftRecord) -> Result<()> {
        let folder = self.folder(key);
        let text = serde_json::to_vec(record).expect("a record is plain text");
        let part = folder.join("draft.json.new");
        let written = fs::write(&part, text).and_then(|()| fs::rename(&part, folder.join(RECORD)));
        written.at("write", &folder.join(RECORD))
    }

    /// Freezes a draft, after waiting up to `wait` for its writers to close their files.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without such a draft; [`Kind::Conflict`] that names the processes.
    pub fn freeze(&self, key: &ArtifactPath, wait: Duration) -> Result<Frozen> {
        if !self.exists(key) {
            return Err(Error::new(Kind::NotFound, format!("no draft {key}"))
                .hint("`artifactfs draft ls` lists the drafts"));
        }
        let key: DraftKey = Arc::new(key.clone());
        self.gates.wait_quiet(&key, wait);
        self.gates.freeze(&key).map_err(|_| {
            let writers = self.writers(&key);
            let what = match writers.as_slice() {
                [] => format!("draft {key} is being committed"),
                some => format!("draft {key} is being written: {}", some.join(", ")),
            };
            Error::new(Kind::Conflict, what).hint("try again when that is done")
        })
    }

    /// `process 17 (python3) has a/b open`, for each file open for writing.
    fn writers(&self, key: &DraftKey) -> Vec<String> {
        let skip = [key.project.as_str(), key.artifact.as_str(), TREE].iter().collect::<PathBuf>();
        let writers = self.handles.writers(key).into_iter().map(|(pid, node)| {
            let path = self.lock_nodes().path(node).unwrap_or_default();
            let path = path.strip_prefix(&skip).unwrap_or(&path).display().to_string();
            let (pid, name) = process_of(pid);
            format!("process {pid} ({name}) has {path} open")
        });
        writers.collect()
    }

    /// Counts what is in a draft.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn stats(&self, key: &ArtifactPath) -> Result<Stats> {
        let mut stats = Stats::default();
        let mut open = vec![self.tree_path(key)];
        while let Some(folder) = open.pop() {
            let entries = match fs::read_dir(&folder) {
                // Removed while it was counted.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.at("list", &folder)?,
            };
            for entry in entries {
                let Ok(meta) = entry.at("list", &folder)?.path().symlink_metadata() else {
                    continue;
                };
                if meta.is_file() {
                    stats.files += 1;
                    stats.size_bytes += meta.size();
                }
            }
            let below = fs::read_dir(&folder).at("list", &folder)?.filter_map(|entry| {
                let entry = entry.ok()?;
                entry.file_type().ok()?.is_dir().then(|| entry.path())
            });
            open.extend(below);
        }
        Ok(stats)
    }
}

/// Process and name of a thread: the kernel tells threads (proc_pid_status(5)).
fn process_of(thread: u32) -> (u32, String) {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let process = field("Tgid:").and_then(|text| text.parse().ok()).unwrap_or(thread);
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    (process, name.trim().to_owned())
}
