//! FACE 1, the kernel.
//!
//! `fs` is a file system that knows no FUSE; `adapter` brings the kernel's requests to it;
//! `session` mounts, watches names move, and unmounts. Must not know the server. Invariants: a
//! version's tree never changes while its inode lives; an inode number is never used twice in
//! one mount; no byte is answered that was not verified.

mod adapter;
mod attr;
mod backing;
mod convert;
mod description;
mod drafts;
mod errno;
mod fs;
mod guard;
mod inode;
mod list;
mod moves;
mod other_mounts;
mod publish;
mod recent_timeouts;
mod session;
mod staging_adapter;
mod staging_files;
mod staging_list;
mod table;
mod workers;
mod xattr;

pub use other_mounts::{OtherMount, find_other_mounts, mounts_of, mounts_with_devices};
pub use session::{
    MountOptions, Mounted, SOURCE_NAME, Watcher, mount_read_only, mount_staging, mounts,
    unmount_if_idle,
};
