//! The scratch directory: which drafts there are.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, RenameFlags, Stat, flock};

use super::base_xattr::TreeXattr;
use super::freeze::{Change, DraftKey, Freezes, Frozen};
use super::handle::Handles;
use super::lower::Lower;
use super::names_lock::NamesLocks;
use super::node::Nodes;
use super::overlay::{Seen, is_directory};
use super::posix::Caller;
use super::record::{DraftRecord, RECORD_FORMAT};
use super::trial::try_host;
use super::upper::UpperDirectory;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::name::{EntryName, ProjectName};
use crate::model::reference::ArtifactPath;
use crate::model::tree::Target;

/// No project has a name that begins with a dot.
const LOCK: &str = ".lock";
const TRASH: &str = ".trash";
/// What is being built: it appears elsewhere by rename.
pub(super) const WORK: &str = ".work";
const RECORD: &str = "draft.json";
const TREE: &str = "tree";

/// What a refusal says that ends when somebody closes a file.
pub const BEING_WRITTEN: &str = "is being written";

/// The drafts of a repository.
pub struct Drafts {
    pub(super) root: PathBuf,
    pub(super) upper: UpperDirectory,
    _lock: File,
    pub(super) names: NamesLocks,
    pub(super) nodes: Mutex<Nodes>,
    pub(super) handles: Handles,
    pub(super) gates: Arc<Freezes>,
    /// What drafts stand on.
    pub(super) lower: Arc<dyn Lower>,
    /// Why the host's file system cannot keep a draft that stands on a version, if so.
    unable: Option<String>,
    /// Blocks of the host's file system: its holes begin and end there.
    pub(super) block_bytes: u64,
    /// What this process takes from the mode of what it makes.
    pub(super) umask: u32,
    /// Owner and times of what is only in the base, by draft.
    pub(super) templates: Mutex<HashMap<DraftKey, Stat>>,
    pub(super) worked: AtomicU64,
    /// Inodes of the host whose mark may not be durable: 8 bytes for each file that stood on content
    /// and was changed and not synced since the drafts were opened.
    pub(super) marked: Mutex<HashSet<u64>>,
    trashed: AtomicU64,
}

/// A host's file system with smaller blocks has its holes filled as if it had these.
const BLOCK_MIN_BYTES: u64 = 4096;

impl Drafts {
    /// Opens the scratch directory, made if need be.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another process has it open.
    pub fn open(root: &Path, lower: Arc<dyn Lower>) -> Result<Self> {
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
            tracing::warn!("{}: drafts cannot stand on versions here: {why}", root.display());
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

    fn folder(&self, key: &ArtifactPath) -> PathBuf {
        self.root.join(key.project.as_str()).join(key.artifact.as_str())
    }

    /// Whether drafts can stand on versions here: what the host must do for that was tried.
    pub fn can_stand(&self) -> bool {
        self.unable.is_none()
    }

    /// Where the files of a draft are.
    pub fn tree_path(&self, key: &ArtifactPath) -> PathBuf {
        self.folder(key).join(TREE)
    }

    /// Whether there is such a draft.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn exists(&self, key: &ArtifactPath) -> Result<bool> {
        let tree = self.tree_path(key);
        match fs::symlink_metadata(&tree) {
            Ok(meta) => Ok(meta.is_dir()),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(false)
            }
            Err(e) => Err(Error::io(format!("cannot look at {}", tree.display()), e)),
        }
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
            let is_directory = entry.file_type().at("list", &self.root)?.is_dir();
            projects.extend(name.filter(|_| is_directory));
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
            drafts.extend(self.exists(&key)?.then_some(key));
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

    /// Makes a draft that stands on the tree `record.root`: nothing of it is read.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when there is one, [`Kind::Unsupported`] where the host's file system
    /// cannot keep it.
    pub fn begin(&self, key: &ArtifactPath, record: &DraftRecord, mode: u32) -> Result<()> {
        if let Some(why) = &self.unable {
            let what = format!("drafts in {} cannot stand on versions: {why}", self.root.display());
            return Err(Error::new(Kind::Unsupported, what).hint(
                "copy the version into a draft by `cp -r`, or keep the repository on ext4, xfs or btrfs",
            ));
        }
        let Some(tree) = record.root else {
            return Err(Error::new(Kind::Usage, "a draft that stands on nothing is made empty"));
        };
        let folder = self.folder(key);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.at("create", &folder)?;
        let part = self.root.join(self.work_path());
        let built = fs::DirBuilder::new().mode(0o700).create(&part).and_then(|()| {
            TreeXattr { tree, clean: true }.set(&part)?;
            if let (Some((uid, gid)), true) = (record.owner, rustix::process::geteuid().is_root()) {
                chown(&part, Some(uid), Some(gid))?;
            }
            fs::set_permissions(&part, fs::Permissions::from_mode(mode & 0o7777))
        });
        built.at("create", &part)?;
        self.set_record(key, record)?;
        let names = self.names.moving(key);
        let tree = folder.join(TREE);
        let cwd = rustix::fs::CWD;
        let placed = rustix::fs::renameat_with(cwd, &part, cwd, &tree, RenameFlags::NOREPLACE);
        drop(names);
        match placed {
            Err(rustix::io::Errno::EXIST) => {
                fs::remove_dir(&part).at("remove", &part)?;
                Err(Error::new(Kind::Conflict, format!("there is a draft {key} already"))
                    .hint(format!("commit it, or `artifactfs draft discard {key}`")))
            }
            placed => placed.at("create", &tree).and_then(|()| sync_directory(&folder)),
        }
    }

    /// Whether a draft shows nothing.
    ///
    /// # Errors
    /// What the host says.
    pub fn is_empty(&self, key: &ArtifactPath) -> super::Result<bool> {
        let _names = self.names.still(key);
        let path: PathBuf = [key.project.as_str(), key.artifact.as_str(), TREE].iter().collect();
        let stat = self.stat(&path)?;
        self.shows_nothing(&Seen::Upper(stat), &path)
    }

    /// Throws a draft away: out of sight at once, then deleted.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Conflict`] when files of it are open for writing.
    pub fn remove(&self, key: &ArtifactPath, frozen: Frozen) -> Result<()> {
        let number = self.trashed.fetch_add(1, Ordering::Relaxed);
        let trashed = self.root.join(TRASH).join(format!("{}-{number}", std::process::id()));
        {
            let _names = self.names.moving(key);
            let folder = self.folder(key);
            fs::rename(&folder, &trashed).at("remove", &folder)?;
            let key = Arc::new(key.clone());
            self.lock_nodes().remove_draft(&key);
            self.gates.forget(&key);
            self.templates.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
        drop(frozen);
        fs::remove_dir_all(&trashed).at("remove", &trashed)
    }

    /// What is kept about a draft. Without a record it stands on nothing.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a record of a shape that this release does not know, and for one that
    /// is missing though the draft stands on a version; what the host says.
    pub fn record(&self, key: &ArtifactPath) -> Result<DraftRecord> {
        let path = self.folder(key).join(RECORD);
        let unread = |what: String| {
            Error::new(
                Kind::Corrupt,
                format!("the record of draft {key} {what}: {}", path.display()),
            )
            .hint(
                "put the record back, or mount with the release that wrote it; \
                       `artifactfs draft discard` throws the draft away",
            )
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return match TreeXattr::of(&self.tree_path(key)) {
                    Ok(Some(_)) => Err(unread("is missing".to_owned())),
                    Ok(None) | Err(rustix::io::Errno::NOENT) => Ok(DraftRecord::default()),
                    Err(e) => {
                        Err(Error::io(format!("cannot read the mark of draft {key}"), e.into()))
                    }
                };
            }
            Err(e) => return Err(Error::io(format!("cannot read {}", path.display()), e)),
        };
        let record: DraftRecord =
            serde_json::from_slice(&text).map_err(|e| unread(format!("cannot be read ({e})")))?;
        if record.format > RECORD_FORMAT {
            let newer =
                format!("has format {}, and this release knows {RECORD_FORMAT}", record.format);
            return Err(unread(newer));
        }
        Ok(record)
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_record(&self, key: &ArtifactPath, record: &DraftRecord) -> Result<()> {
        let folder = self.folder(key);
        let record = DraftRecord { format: RECORD_FORMAT, ..record.clone() };
        let text = serde_json::to_vec(&record).expect("a record is plain text");
        let part = folder.join("draft.json.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&part, folder.join(RECORD))
        };
        write().at("write", &folder.join(RECORD))?;
        sync_directory(&folder)
    }

    /// The draft that a node belongs to.
    ///
    /// # Errors
    /// ESTALE for a number that is not known.
    pub fn draft_of(&self, id: u64) -> super::Result<DraftKey> {
        self.lock_nodes().draft(id)
    }

    /// Whether the draft that a node belongs to may ask for what it stands on.
    pub fn stands_on_version(&self, id: u64) -> bool {
        self.lock_nodes().has_lower(id)
    }

    /// The draft of which a node is the root.
    pub fn draft_of_root(&self, id: u64) -> Option<ArtifactPath> {
        let nodes = self.lock_nodes();
        let root = nodes.is_root(id);
        root.then(|| nodes.draft(id).ok()).flatten().map(|key| (*key).clone())
    }

    /// Where what is being built lies; it is emptied when the drafts are opened.
    pub fn work_folder(&self) -> PathBuf {
        self.root.join(WORK)
    }

    /// Returns whether any draft is frozen.
    pub fn any_frozen(&self) -> bool {
        self.gates.any_frozen()
    }

    /// Whether what changes this node has to wait.
    pub fn is_frozen(&self, id: u64) -> bool {
        self.any_frozen() && self.draft_of(id).is_ok_and(|draft| self.gates.is_frozen(&draft))
    }

    /// Begins a change of a draft.
    ///
    /// # Errors
    /// [`Kind::Conflict`] while it is being committed.
    pub fn begin_change(&self, key: &ArtifactPath) -> Result<Change<'_>> {
        self.gates.change(&Arc::new(key.clone())).map_err(|e| match e {
            rustix::io::Errno::IO => {
                Error::new(Kind::Corrupt, format!("draft {key} cannot be changed")).hint(
                    "`artifactfs status` says why; it can be changed again after that is mended \
                     and mounted anew",
                )
            }
            _ => Error::new(Kind::Conflict, format!("draft {key} is being committed"))
                .hint("try again when that is done"),
        })
    }

    /// When a draft was last changed, as far as this process saw.
    pub fn touched(&self, key: &ArtifactPath) -> Option<Instant> {
        self.gates.touched(key)
    }

    /// Refuses every change of a draft until it is put right.
    pub fn seal(&self, key: &ArtifactPath) {
        self.gates.seal(&Arc::new(key.clone()));
    }

    /// The draft is put right.
    pub fn unseal(&self, key: &ArtifactPath) {
        self.gates.unseal(&Arc::new(key.clone()));
    }

    /// The draft is taken for changed now.
    pub fn touch(&self, key: &ArtifactPath) {
        self.gates.touch(&Arc::new(key.clone()));
    }

    /// Whether somebody has files of the draft open for writing.
    pub fn has_writers(&self, key: &ArtifactPath) -> bool {
        !self.handles.writers(&Arc::new(key.clone())).is_empty()
    }

    /// Puts what stands for `target` at `path`, in place of what the draft has there.
    ///
    /// # Errors
    /// ENOENT when a directory above it is not there, EBUSY while the draft is being committed.
    pub fn restore(
        &self,
        key: &ArtifactPath,
        path: &[EntryName],
        target: &Target,
    ) -> super::Result<()> {
        let Some((name, above)) = path.split_last() else {
            return Err(rustix::io::Errno::INVAL);
        };
        let mut held = vec![self.root_of(key)?.id];
        let done = (|| {
            let _change = self.change(held[0])?;
            for name in above {
                let parent = *held.last().expect("it begins with the root");
                let found = self.lookup(parent, name.as_os_str())?;
                held.push(found.id);
                if !is_directory(&found.stat) {
                    return Err(rustix::io::Errno::NOTDIR);
                }
            }
            let parent = *held.last().expect("it begins with the root");
            self.restore_entry(parent, name.as_os_str(), target)
        })();
        held.into_iter().for_each(|id| self.forget(id, 1));
        done
    }

    /// The draft stands on another tree, or has another owner: look anew.
    pub fn forget_template(&self, key: &ArtifactPath) {
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        templates.remove(&Arc::new(key.clone()));
    }

    /// Freezes a draft, after waiting up to `wait` for its writers to close their files.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without such a draft; [`Kind::Conflict`] that names the processes.
    pub fn freeze(&self, key: &ArtifactPath, wait: Duration) -> Result<Frozen> {
        if !self.exists(key)? {
            return Err(Error::new(Kind::NotFound, format!("no draft {key}"))
                .hint("`artifactfs draft ls` lists the drafts"));
        }
        let key: DraftKey = Arc::new(key.clone());
        self.gates.wait_quiet(&key, wait);
        self.gates.freeze(&key).map_err(|_| {
            let writers = self.writers(&key);
            let what = match writers.as_slice() {
                [] => format!("draft {key} is being committed"),
                some => format!("draft {key} {BEING_WRITTEN}: {}", some.join(", ")),
            };
            Error::new(Kind::Conflict, what).hint("try again when that is done")
        })
    }

    /// `process 17 (python3) has a/b open`, for each file open for writing.
    fn writers(&self, key: &DraftKey) -> Vec<String> {
        let skip = [key.project.as_str(), key.artifact.as_str(), TREE].iter().collect::<PathBuf>();
        let writers = self.handles.writers(key).into_iter().map(|(pid, node)| {
            let path = match self.lock_nodes().path(node) {
                Ok(path) => path.strip_prefix(&skip).unwrap_or(&path).display().to_string(),
                Err(_) => "a file that was removed".to_owned(),
            };
            let (pid, name) = process_of(pid);
            format!("process {pid} ({name}) has {path} open")
        });
        writers.collect()
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

fn lock_drafts(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.at("open", &path)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        rustix::io::Errno::WOULDBLOCK => {
            Error::new(Kind::Conflict, "another process has the drafts open")
                .hint("a repository has one staging mount; `artifactfs status` shows it")
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

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).at("sync", path)
}
