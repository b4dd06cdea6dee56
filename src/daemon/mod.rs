//! One process of artifactfs: it opens the registry or reaches who has it open, serves mounts and drafts, and keeps
//! order in the background.
//!
//! Knows locks, sockets, signals and records of processes. Must not know the command line. Invariant: whatever ends
//! this process, the next one can go on.

pub mod connection;
mod drafts;
pub mod process;
mod record;
mod schedule;
mod serve;
pub mod watchdog;

pub use drafts::{drafts, read_drafts};
pub use record::{DaemonRecord, Running, daemons};
pub use serve::{Daemon, MountRequest};
