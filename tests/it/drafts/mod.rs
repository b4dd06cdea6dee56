//! Drafts and puts, with changes that show nowhere, hard links, unreadable records, and different
//! hosts.

mod commits;
mod dead_store;
mod hosts;
mod links;
mod mapped;
mod records;
mod room;

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, until};

/// Kills the daemon and detaches its mounts, as a crash would.
pub fn crash(world: &World) {
    let daemon = Pid::from_raw(world.daemon()).unwrap();
    kill_process(daemon, Signal::KILL).unwrap();
    for name in ["mnt", "staging"] {
        let _ = Command::new("umount").arg("-l").arg(world.path(name)).output();
    }
    until("the daemon is gone", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.as_raw_pid()));
        status.map_or(true, |text| text.contains("State:\tZ"))
    });
}

/// Returns the content of a path in a version, once the mount shows the version.
pub fn committed(read: &Path, version: &str, path: &str) -> String {
    let root = read.join(version);
    until("the version is there", || root.exists());
    String::from_utf8_lossy(&std::fs::read(root.join(path)).unwrap()).into_owned()
}
