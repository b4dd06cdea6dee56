//! Checks that counts, indexes and store agree, and repairs that make them agree.
//!
//! The registry is the truth about names; the store, about bytes. Reference counts follow from the
//! nodes: `refs` is the number of nodes, versions and parts of open groups that point at an object.
//!
//! Nothing here destroys. Everything is read and checked before anything is changed. What is lost
//! or damaged is marked absent and keeps its counts. While a node cannot be read, no count is
//! lowered. Unknown packs stay until a user has them removed.

mod check;
mod counting;
mod indexes;
mod packs;
mod rebuild;
mod report;
mod revive;
mod table;
mod unknown;

use super::garbage::collect_garbage;
use super::maintenance;
use super::orphans::release_orphans;
use super::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::registry::{LeaseInfo, MaintenanceMode};
use check::check;
pub use report::FsckReport;
pub use unknown::{UNKNOWN_AGE_MILLISECONDS, UnknownPack, remove_unknown};

/// The maximum number of checks, if each finds something else.
const CHECKS_MAX: usize = 3;

/// The action on what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A report, and no change.
    Check,
    /// A repair of what follows from the nodes and the store.
    Repair,
    /// A new object table, made from the store's indexes.
    Rebuild,
}

/// Checks the repository, and repairs it as `mode` says.
///
/// # Errors
/// [`Kind::Conflict`] while a writer is active.
pub fn fsck(repository: &Repository, mode: Mode) -> Result<FsckReport> {
    repository.refuse_served()?;
    maintenance::finish_interrupted(repository)?;
    release_orphans(repository)?;
    match mode {
        Mode::Check => check_at_rest(repository),
        Mode::Repair => {
            let held = maintenance::begin(repository, MaintenanceMode::Repair)?;
            let (report, whole) = check(repository, Some(&held))?;
            held.end()?;
            collect_if(repository, whole)?;
            Ok(report)
        }
        Mode::Rebuild => {
            let held = maintenance::begin(repository, MaintenanceMode::Rebuild)?;
            let whole = rebuild::rebuild(repository, &held)?;
            let (report, _) = check(repository, None)?;
            held.end()?;
            collect_if(repository, whole)?;
            Ok(report)
        }
    }
}

/// Collects garbage if everything was read: what an unreadable node points at may seem unneeded.
fn collect_if(repository: &Repository, whole: bool) -> Result<()> {
    if whole { collect_garbage(repository).map(drop) } else { Ok(()) }
}

/// Reports the findings of two checks in a row. A change in the middle of a check looks like
/// damage, but only once.
fn check_at_rest(repository: &Repository) -> Result<FsckReport> {
    refuse_writers(repository)?;
    let lasting = lasting_report(|| Ok(check(repository, None)?.0))?;
    refuse_writers(repository)?;
    if let Some(report) = lasting {
        return Ok(report);
    }
    let what = "each check found something else: other processes put or delete meanwhile";
    Err(Error::new(Kind::Conflict, what).hint("check when they have finished"))
}

/// Repeats a check until it finds nothing, or two in a row find the same. Returns `None` if
/// [`CHECKS_MAX`] checks do neither.
fn lasting_report(mut check: impl FnMut() -> Result<FsckReport>) -> Result<Option<FsckReport>> {
    let mut report = check()?;
    for _ in 1..CHECKS_MAX {
        if report.problems == 0 {
            break;
        }
        let again = check()?;
        if again.problems > 0 {
            let lasting = again.clone().found_before(&report);
            if lasting.problems > 0 {
                return Ok(Some(lasting));
            }
        }
        report = again;
    }
    Ok((report.problems == 0).then_some(report))
}

/// Refuses to check while a writer is active: unfinished work would look like damage.
fn refuse_writers(repository: &Repository) -> Result<()> {
    let idle = super::judgement::idle_leases(&*repository.registry)?;
    let leases = repository.registry.leases()?.into_iter().filter(LeaseInfo::writes);
    let alive = leases.filter(|lease| !idle.contains(&lease.id));
    let writers: Vec<_> = alive.map(|lease| lease.purpose).collect();
    if writers.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, format!("somebody is writing: {}", writers.join(", ")))
        .hint("check when they have finished"))
}
