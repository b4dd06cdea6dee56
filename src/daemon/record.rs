//! The record of a daemon: a file in the repository through which `umount`, `status` and `run` find
//! it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{IoContext, Result};
use crate::files::replace;
use crate::mount::{OtherMount, SOURCE_NAME, find_other_mounts, mounts_of};
use crate::ops::process_id;
use crate::ops::repository::Layout;

/// A daemon's mounts and cache, as recorded in its file in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// The id of its process.
    pub pid: u32,
    /// The identity of its process, so that a reused id does not pass for it.
    pub holder: String,
    /// The mount point of the read-only mount.
    pub mount: PathBuf,
    /// The minor number of its device; 0 if the mount has ended, and in records of older releases.
    #[serde(default)]
    pub device: u32,
    /// The mount point of the staging mount.
    pub staging: Option<PathBuf>,
    /// The minor number of its device.
    #[serde(default)]
    pub staging_device: Option<u32>,
    /// True if the mounts are detached and the daemon waits only for their last users and for
    /// commits.
    #[serde(default)]
    pub left: bool,
    /// True if the daemon has detached its mounts and is still committing a draft.
    #[serde(default)]
    pub commits: bool,
    /// The cache directory; `None` in records of older releases.
    #[serde(default)]
    pub cache: Option<PathBuf>,
    /// The maximum size of the cache in bytes.
    #[serde(default)]
    pub cache_bytes: u64,
}

impl DaemonRecord {
    /// Returns the device numbers of the mounts that have not ended.
    pub fn devices(&self) -> Vec<u32> {
        std::iter::once(self.device)
            .filter(|device| *device != 0)
            .chain(self.staging_device)
            .collect()
    }

    /// Returns whether the read-only mount is still at its mount point in the daemon's own
    /// namespace.
    pub fn is_in_place(&self) -> bool {
        let here = |(device, source, point): &(u32, String, PathBuf)| {
            *device == self.device && source == SOURCE_NAME && *point == self.mount
        };
        let seen = || mounts_of(self.pid).is_none_or(|mounts| mounts.iter().any(here));
        !self.left && (self.device == 0 || seen())
    }

    /// Returns the bind mounts and namespaces through which the mounts are still reachable.
    pub fn elsewhere(&self) -> Vec<OtherMount> {
        let places: Vec<_> =
            std::iter::once(&self.mount).chain(&self.staging).map(PathBuf::as_path).collect();
        let mut found = find_other_mounts(&self.devices(), if self.left { &[] } else { &places });
        // Propagated mounts in other namespaces go when the mount does.
        found.retain(|place| self.left || !places.contains(&place.path.as_path()));
        found
    }
}

pub(super) fn record_path(layout: &Layout, pid: u32) -> PathBuf {
    layout.daemons().join(pid.to_string())
}

pub(super) fn write_record(layout: &Layout, record: &DaemonRecord) -> Result<()> {
    let folder = layout.daemons();
    fs::create_dir_all(&folder).at("create", &folder)?;
    let path = record_path(layout, record.pid);
    let text = serde_json::to_vec(record).expect("a record is plain text");
    replace(&path, &text)
}

/// Returns the running daemons of a repository.
///
/// # Errors
/// Fails if the folder cannot be read.
pub fn daemons(layout: &Layout) -> Result<Vec<DaemonRecord>> {
    Ok(Running::of(layout)?.records)
}

/// The running daemons of a repository, and the records that cannot be read.
#[derive(Default)]
pub struct Running {
    /// The records of the running daemons.
    pub records: Vec<DaemonRecord>,
    /// One line for `status` per unreadable record.
    pub unreadable: Vec<String>,
}

impl Running {
    /// Lists the running daemons, and removes the files of dead ones.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub fn of(layout: &Layout) -> Result<Self> {
        let folder = layout.daemons();
        let mut running = Self::default();
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(running),
            entries => entries.at("list", &folder)?,
        };
        for entry in entries {
            let path = entry.at("list", &folder)?.path();
            if !is_record(&path) {
                continue;
            }
            let record = match read_record(&path) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(what) => {
                    running.unreadable.push(what);
                    continue;
                }
            };
            if process_id::is_dead(&record.holder) {
                // Another command may have removed it at the same moment.
                let _ = fs::remove_file(&path);
                let _ = fs::remove_file(layout.daemon_socket(record.pid));
            } else {
                running.records.push(record);
            }
        }
        Ok(running)
    }
}

/// Reads a record. Returns `None` if it was removed meanwhile, and a line for `status` if it cannot
/// be read.
fn read_record(path: &Path) -> std::result::Result<Option<DaemonRecord>, String> {
    let found = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.and_then(|text| Ok(serde_json::from_slice(&text)?)),
    };
    found.map(Some).map_err(|e| {
        let path = path.display();
        format!(
            "{path} cannot be read ({e}): if the process of that number is a daemon of this repository, end it; \
             then remove the file"
        )
    })
}

/// Returns whether a file is a record: the same folder holds sockets and unfinished records.
fn is_record(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.bytes().all(|b| b.is_ascii_digit())
}
