//! The room on the disk of a store.

use std::path::Path;

use rustix::fs::statvfs;

use crate::error::{IoContext, Result};

/// The room on the disk of a store.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// The bytes that this user may still write.
    pub free_bytes: u64,
    /// The bytes in all.
    pub total_bytes: u64,
}

/// Returns the room on the disk of `path`.
pub(super) fn room_of(path: &Path) -> Result<Space> {
    let stat = statvfs(path).at("stat", path)?;
    Ok(Space {
        free_bytes: stat.f_bavail * stat.f_frsize,
        total_bytes: stat.f_blocks * stat.f_frsize,
    })
}
