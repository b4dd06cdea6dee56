//! The stamp that shows whether a file is still the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The metadata that show whether a file is still the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    device: u64,
    inode: u64,
}

impl Stamp {
    /// Returns the stamp of a file.
    pub(crate) fn of(meta: &fs::Metadata) -> Self {
        Self {
            size_bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            device: meta.dev(),
            inode: meta.ino(),
        }
    }

    /// Returns the mtime: seconds since 1970, and nanoseconds.
    pub(crate) fn modified(&self) -> (i64, i64) {
        self.modified
    }

    /// Returns the time from the mtime to `now`; `None` if the mtime is later, or before 1970.
    pub(crate) fn since_change(&self, now: SystemTime) -> Option<Duration> {
        let (seconds, nanoseconds) = self.modified;
        let at = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        now.duration_since(UNIX_EPOCH + at).ok()
    }

    /// Returns whether mtime and ctime lie more than `age` before `now`.
    pub(crate) fn is_older(&self, age: Duration, now: SystemTime) -> bool {
        let nanoseconds = |(s, ns): (i64, i64)| i128::from(s) * 1_000_000_000 + i128::from(ns);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        let newest = nanoseconds(self.modified).max(nanoseconds(self.changed));
        now - newest > age.as_nanos() as i128
    }
}
