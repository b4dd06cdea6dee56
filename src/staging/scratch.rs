//! The scratch directory: creating, listing and removing drafts.

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
use crate::error::{DraftHint, Error, IoContext, Kind, Result};
use crate::files::sync_directory;
use crate::model::name::ProjectName;
use crate::model::reference::ArtifactPath;

impl Drafts {
    /// Returns whether drafts can be based on versions here, as found by a trial when they were
    /// opened.
    pub(crate) fn can_stand(&self) -> bool {
        self.unable.is_none()
    }

    /// Returns whether there is such a draft.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn exists(&self, key: &ArtifactPath) -> Result<bool> {
        let tree = self.tree_path(key);
        match fs::symlink_metadata(&tree) {
            Ok(meta) => Ok(meta.is_dir()),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(false)
            }
            Err(e) => Err(Error::io(format!("cannot stat {}", tree.display()), e)),
        }
    }

    /// Returns the projects that have a folder here, sorted.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn projects(&self) -> Result<Vec<ProjectName>> {
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

    /// Returns the drafts of a project, sorted.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn drafts_of(&self, project: &ProjectName) -> Result<Vec<ArtifactPath>> {
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

    /// Returns all drafts.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn list(&self) -> Result<Vec<ArtifactPath>> {
        let projects = self.projects()?;
        let drafts = projects.iter().map(|project| self.drafts_of(project));
        Ok(drafts.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Creates the folder of a project.
    ///
    /// # Errors
    /// EEXIST if it exists, and any error of the upper file system.
    pub(crate) fn create_project(&self, project: &ProjectName) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(self.root.join(project.as_str()))
    }

    /// Removes the folder of a project that has no drafts.
    ///
    /// # Errors
    /// ENOENT if it does not exist, ENOTEMPTY if it is not empty, and any error of the upper file
    /// system.
    pub(crate) fn remove_project(&self, project: &ProjectName) -> io::Result<()> {
        fs::remove_dir(self.root.join(project.as_str()))
    }

    /// Creates an empty draft that belongs to `caller`.
    ///
    /// # Errors
    /// EEXIST if it exists, and any error of the upper file system.
    pub(crate) fn create(&self, key: &ArtifactPath, caller: Caller, mode: u32) -> io::Result<()> {
        let folder = self.folder(key);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let tree = folder.join(TREE);
        fs::DirBuilder::new().mode(0o700).create(&tree)?;
        if rustix::process::geteuid().is_root() {
            chown(&tree, Some(caller.uid), Some(caller.gid))?;
        }
        fs::set_permissions(&tree, fs::Permissions::from_mode(mode & 0o7777))
    }

    /// Creates a draft with the lower tree `record.root`, without reading that.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if the draft exists, [`Kind::Unsupported`] if the upper file system
    /// cannot keep it, [`Kind::Usage`] without a root.
    pub(crate) fn begin(&self, key: &ArtifactPath, record: &DraftRecord, mode: u32) -> Result<()> {
        if let Some(why) = &self.unable {
            let what =
                format!("drafts in {} cannot be based on versions: {why}", self.root.display());
            return Err(Error::new(Kind::Unsupported, what).hint(
                "copy the version into a draft by `cp -r`, or keep the repository on ext4, xfs or btrfs",
            ));
        }
        let Some(tree) = record.root else {
            return Err(Error::new(Kind::Usage, "the record of a draft to begin has no root tree"));
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

    /// Returns whether a draft shows no entry.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn is_empty(&self, key: &ArtifactPath) -> super::Result<bool> {
        let _names = self.names.still(key);
        let path: PathBuf = [key.project.as_str(), key.artifact.as_str(), TREE].iter().collect();
        let stat = self.stat(&path)?;
        self.shows_nothing(&Seen::Upper(stat), &path)
    }

    /// Discards a draft: it is out of sight at once, then deleted.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such draft, and any error of the upper file system.
    #[expect(clippy::disallowed_methods, reason = "a power loss may bring the draft back, whole")]
    pub(crate) fn remove(&self, key: &ArtifactPath, frozen: Frozen) -> Result<()> {
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

    /// Returns the draft of a node.
    ///
    /// # Errors
    /// ESTALE for an unknown number.
    pub(crate) fn draft_of(&self, id: u64) -> super::Result<DraftKey> {
        self.lock_nodes().draft(id)
    }

    /// Returns whether an operation on the draft of a node may read a lower tree.
    pub(crate) fn stands_on_version(&self, id: u64) -> bool {
        self.lock_nodes().has_lower(id)
    }

    /// Returns the draft whose root the node is.
    pub(crate) fn draft_of_root(&self, id: u64) -> Option<ArtifactPath> {
        let nodes = self.lock_nodes();
        let root = nodes.is_root(id);
        root.then(|| nodes.draft(id).ok()).flatten().map(|key| (*key).clone())
    }

    /// Forgets owner and times of nodes that are only in the lower tree, after these changed.
    pub(crate) fn forget_template(&self, key: &ArtifactPath) {
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        templates.remove(&Arc::new(key.clone()));
    }
}
