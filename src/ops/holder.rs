//! Who holds a lease: so that what a killed process left is recognised at once.

use std::fs;
use std::sync::Arc;

use super::repository::Repository;
use crate::error::Result;
use crate::registry::{LeaseId, Registry};

/// `<boot id>/<pid>/<start time>`: never the same for two processes of one host.
pub fn this_process() -> String {
    let pid = std::process::id();
    format!("{}/{pid}/{}", boot_id(), start_time(pid).unwrap_or_default())
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// When a process started, in clock ticks: field 22 of `/proc/<pid>/stat` (proc(5)). `None` for one
/// that is no more, or only waits for its parent to hear of its end (state `Z` or `X`).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether `holder` certainly runs no more. A process of another host is never certainly dead.
pub fn is_dead(holder: &str) -> bool {
    let mut parts = holder.split('/');
    let (Some(boot), Some(pid), Some(started)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let (Ok(pid), Ok(started)) = (pid.parse::<u32>(), started.parse::<u64>()) else {
        return false;
    };
    boot == boot_id() && start_time(pid) != Some(started)
}

/// The lease that a dead process left for the same purpose: what it wrote need not be written again.
///
/// # Errors
/// When the registry fails.
pub fn orphan_for(registry: &dyn Registry, purpose: &str) -> Result<Option<LeaseId>> {
    let leases = registry.leases()?;
    let orphan = leases.iter().find(|lease| {
        lease.purpose == purpose && !lease.committed && !lease.expired && is_dead(&lease.holder)
    });
    Ok(orphan.map(|lease| lease.id))
}

/// Ends leases whose holder is dead or whose time is over, and frees what only they held.
/// Returns how many there were.
///
/// # Errors
/// When the registry or the store fails; the next call goes on.
pub fn release_orphans(repository: &Repository) -> Result<usize> {
    let registry = Arc::clone(&repository.registry);
    let mut released = 0;
    for lease in registry.leases()? {
        if lease.expired || is_dead(&lease.holder) {
            registry.release(lease.id)?;
            released += 1;
        }
    }
    super::delete::reap(repository)?;
    Ok(released)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_waits_to_be_reaped_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        let holder = format!("{}/{}/{started}", boot_id(), child.id());
        assert!(!is_dead(&holder));
        child.kill().unwrap();
        let start = std::time::Instant::now();
        while !is_dead(&holder) {
            assert!(start.elapsed().as_secs() < 30, "a zombie passes for living");
        }
        child.wait().unwrap();
    }

    #[test]
    fn this_process_lives_and_a_reused_pid_does_not_pass_for_it() {
        let me = this_process();
        assert!(!is_dead(&me));
        let (rest, started) = me.rsplit_once('/').unwrap();
        let earlier = started.parse::<u64>().unwrap() - 1;
        assert!(is_dead(&format!("{rest}/{earlier}")));
        assert!(!is_dead("another-boot/1/1"));
        assert!(!is_dead(""));
    }
}
