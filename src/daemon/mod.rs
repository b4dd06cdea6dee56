//! One process of artifactfs: it opens the registry or connects to the process that has it open,
//! serves mounts and drafts, and runs background tasks.
//!
//! It holds locks, sockets, signals and records of processes. It does not depend on the command
//! line. Invariant: another process can take over, however this one ends.

pub mod connection;
mod drafts;
pub mod process;
mod record;
mod schedule;
mod serve;
mod serving;
pub mod watchdog;

pub use drafts::{drafts, read_drafts};
pub use record::{DaemonRecord, Running, daemons};
pub use serve::{Daemon, MountRequest};
pub use serving::{HttpOptions, ServeRequest, Serving, TlsFiles};
