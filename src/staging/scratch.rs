//! The scratch directory: which drafts there are.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rustix::fs::RenameFlags;

use super::base_xattr::TreeXattr;
use super::drafts::{Drafts, TRASH, TREE};
use super::freeze::{DraftKey, Frozen};
use super::overlay::Seen;
use super::posix::Caller;
use super::record::DraftRecord;
use super::records::sync_directory;
use crate::error::{DraftHint, Error, IoContext, Kind, Result};
use crate::model::name::ProjectName;
use crate::model::reference::ArtifactPath;

impl Drafts {
    /// Whether drafts can stand on versions here: what the host must do for that was tried.
    pub fn can_stand(&self) -> bool {
        self.unable.is_none()
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
                    .hint(DraftHint::CommitOrDiscard(key.to_string())))
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

    /// The draft stands on another tree, or has another owner: look anew.
    pub fn forget_template(&self, key: &ArtifactPath) {
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        templates.remove(&Arc::new(key.clone()));
    }
}
