//! FACE 1, the kernel.
//!
//! `fs` is a file system without FUSE; `adapter` passes the kernel's requests to it; `session`
//! mounts, watches names move, and unmounts. Must not know the server. Invariants:
//! - A version's tree never changes while its inode lives.
//! - An inode number is never used twice in one mount.
//! - A reader gets no byte that was not verified.

mod attr;
mod errno;
mod guard;
mod inode;
mod kernel;
mod mounts;
mod read_only;
mod recent_timeouts;
mod session;
mod staging;
mod workers;

pub use mounts::{OtherMount, SOURCE_NAME, find_other_mounts, mounts_of, mounts_with_devices};
pub use session::{
    MountOptions, Mounted, Watcher, mount_read_only, mount_staging, mounts, unmount_if_idle,
};
