//! Checking that counts, index and store agree, and making them agree.
//!
//! The truth about names is in the registry; about bytes, in the store. Reference counts follow
//! from the nodes: `refs` is the number of nodes, versions and parts of
//! open groups that point at an object.
//!
//! Nothing here destroys: everything is read and checked before anything is changed; what is lost or damaged is marked
//! absent and keeps its counts; while a node cannot be read, no count is lowered; packs that nobody knows stay where they
//! are until somebody names them.

mod counting;
mod indexes;
mod packs;
mod rebuild;
mod unknown;

use std::collections::HashSet;

use super::garbage::collect_garbage;
use super::maintenance::{self, Held};
use super::orphans::release_orphans;
use super::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, PackId, Presence};
use crate::model::object_kind::ObjectKind;
use crate::registry::{Fix, LeaseInfo, MaintenanceMode};
use counting::{Counting, LiveTable, Table};
pub use unknown::{UNKNOWN_AGE_MILLISECONDS, UnknownPack, remove_unknown};

/// Objects looked at in one step.
const PAGE: u32 = 8_192;
/// Corrections made in one transaction.
const FIX_BATCH: usize = 4_096;
/// Findings that are told; more are only counted.
const FINDINGS_MAX: usize = 1_000;
/// Counts that are too high and wait until it is known that every node could be read; more are found by the next repair.
const LOWERED_MAX: usize = 1_000_000;
/// The number of checks that are made, when each finds something else.
const CHECKS_MAX: usize = 3;

/// What to do about what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only tell.
    Check,
    /// Put right what follows from the nodes and the store.
    Repair,
    /// Make the object table again from the store's indexes.
    Rebuild,
}

/// What a check found.
#[derive(Debug, Default, Clone)]
pub struct FsckReport {
    /// Objects in the table.
    pub objects: u64,
    /// Packs in the table.
    pub packs: u64,
    /// Versions.
    pub versions: u64,
    /// What is wrong, a line each, at most a thousand.
    pub findings: Vec<String>,
    /// How much is wrong in all.
    pub problems: u64,
    /// How much of it was put right.
    pub repaired: u64,
    /// Objects that a node or version needs and nobody has: only another copy brings them back.
    pub missing_objects: u64,
    /// Packs in the store that the registry does not know.
    pub unknown_packs: u64,
}

impl FsckReport {
    fn finding(&mut self, text: String) {
        self.problems += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text);
        }
    }

    /// Keeps what an earlier report has too, and what neither has told.
    fn found_before(mut self, earlier: &Self) -> Self {
        let told = self.findings.len();
        let earlier: HashSet<&String> = earlier.findings.iter().collect();
        self.findings.retain(|finding| earlier.contains(finding));
        self.problems -= (told - self.findings.len()) as u64;
        self
    }
}

/// Checks the repository.
///
/// # Errors
/// What keeps it from going on; [`Kind::Conflict`] while somebody writes.
pub fn fsck(repository: &Repository, mode: Mode) -> Result<FsckReport> {
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

/// While a node cannot be read, what it points at may seem to be needed by nobody.
fn collect_if(repository: &Repository, whole: bool) -> Result<()> {
    if whole { collect_garbage(repository).map(drop) } else { Ok(()) }
}

/// Reports what two checks in a row find: what others change in the middle of one looks like damage, once.
fn check_at_rest(repository: &Repository) -> Result<FsckReport> {
    refuse_writers(repository)?;
    let lasting = lasting_report(|| Ok(check(repository, None)?.0))?;
    refuse_writers(repository)?;
    if let Some(report) = lasting {
        return Ok(report);
    }
    let what = "what looks wrong is something else at each look: others delete or put meanwhile";
    Err(Error::new(Kind::Conflict, what).hint("check when they have finished"))
}

/// Makes a check until one finds nothing, or two in a row find the same; `None` when neither comes soon.
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

/// What is being written would look wrong.
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

/// The report, and whether every object that is needed could be read or found.
fn check(repository: &Repository, held: Option<&Held<'_>>) -> Result<(FsckReport, bool)> {
    let report = FsckReport::default();
    let (fixes, lowered, miscounted) = (Vec::new(), Vec::new(), Vec::new());
    let mut check = Check { repository, held, report, fixes, lowered, miscounted };
    if held.is_some() {
        check.recover()?;
    }
    check.packs()?;
    let whole = check.counts()?;
    check.flush()?;
    Ok((check.report, whole))
}

struct Check<'a> {
    repository: &'a Repository,
    /// The maintenance under which corrections are made; without it, none are.
    held: Option<&'a Held<'a>>,
    report: FsckReport,
    fixes: Vec<Fix>,
    /// Counts that are too high.
    lowered: Vec<Fix>,
    /// Packs whose counts were wrong: they may hold dead bytes that nobody remembers.
    miscounted: Vec<PackId>,
}

impl Check<'_> {
    fn repairs(&self) -> bool {
        self.held.is_some()
    }

    fn fix(&mut self, fix: Fix) -> Result<()> {
        if !self.repairs() {
            return Ok(());
        }
        self.fixes.push(fix);
        if self.fixes.len() >= FIX_BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let fixes = std::mem::take(&mut self.fixes);
        if let (false, Some(held)) = (fixes.is_empty(), self.held) {
            self.report.repaired += self.repository.registry.repair(held.holder.clone(), fixes)?;
        }
        Ok(())
    }

    fn each_object(&self, each: &mut dyn FnMut(Digest, Located) -> Result<()>) -> Result<()> {
        LiveTable(self.repository).each(each)
    }

    /// Absent objects whose bytes are good after all: a disk that is back, a pack that was put back by hand.
    fn recover(&mut self) -> Result<()> {
        if self.repository.registry.absent()? == 0 {
            return Ok(());
        }
        let mut found = Vec::new();
        self.each_object(&mut |digest, located| {
            if located.is_absent() && located.extent.pack != PackId::NONE {
                match self.repository.reader.check_at(digest, &located) {
                    Ok(_) => found.push((digest, located)),
                    Err(e) if is_damage(&e) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })?;
        for (digest, seen) in found {
            self.report.finding(format!("{} {digest} is good again", seen.kind));
            let now = Located { presence: Presence::Present, ..seen };
            self.fix(Fix::Object { digest, seen: Some(seen), now })?;
        }
        self.flush()
    }

    /// Are the reference counts what the nodes say, and is everything there that they point at? Whether all could be
    /// read or found.
    fn counts(&mut self) -> Result<bool> {
        let table = LiveTable(self.repository);
        let mut counting = Counting::new(self.repository, &table, self.report.objects);
        let mut whole = true;
        while let Some(mut pass) = counting.next_pass()? {
            let mut wrong = Vec::new();
            table.each(&mut |digest, located| {
                if pass.mine(&digest) {
                    let refs = pass.counts.remove(&digest).unwrap_or_default();
                    if refs != located.refs || refs == 0 || located.is_absent() {
                        wrong.push((digest, located, refs));
                    }
                }
                Ok(())
            })?;
            for (digest, located, refs) in wrong {
                whole &= !located.is_absent() || refs == 0;
                self.count(digest, located, refs)?;
            }
            for (digest, refs) in pass.counts {
                whole = false;
                self.lost(digest, refs)?;
            }
        }
        self.report.versions = counting.versions;
        let unreadable = std::mem::take(&mut counting.unreadable);
        whole &= unreadable.is_empty();
        for (_, error) in unreadable {
            self.report.finding(error);
        }
        self.lower(whole)?;
        Ok(whole)
    }

    fn count(&mut self, digest: Digest, seen: Located, refs: u64) -> Result<()> {
        let Located { kind, refs: found, .. } = seen;
        // Bytes that are good after all are no problem; a repair notes that they are.
        let good = || match self.repository.reader.check_at(digest, &seen) {
            Err(e) if is_damage(&e) => Ok(false),
            read => read.map(|_| true),
        };
        if seen.is_absent() && !good()? {
            self.report.missing_objects += 1;
            self.report.finding(format!(
                "{kind} {digest} is damaged or lost, and {found} need it: put a good copy of the file again"
            ));
        }
        let fix = Fix::Object { digest, seen: Some(seen), now: Located { refs, ..seen } };
        if refs > found {
            self.report.finding(format!("{kind} {digest} counts {found} references, not {refs}"));
            return self.fix(fix);
        }
        if refs < found && !seen.is_absent() {
            self.report.finding(format!("{kind} {digest} counts {found} references, not {refs}"));
        }
        if self.repairs() && self.lowered.len() < LOWERED_MAX {
            self.lowered.push(fix);
        }
        Ok(())
    }

    /// An object that is needed and not in the table: it is absent, so that a good copy of it is taken.
    fn lost(&mut self, digest: Digest, refs: u64) -> Result<()> {
        self.report.missing_objects += 1;
        self.report.finding(format!("object {digest} is needed and not in the repository"));
        let now = lost_object(refs);
        self.fix(Fix::Object { digest, seen: None, now })
    }

    /// Lowers counts and frees what nothing refers to, unless something could not be read: what that points at is not
    /// known.
    fn lower(&mut self, whole: bool) -> Result<()> {
        let lowered = std::mem::take(&mut self.lowered);
        if !whole && self.repairs() && !lowered.is_empty() {
            tracing::info!(
                counts = lowered.len(),
                "not lowered, since objects that point at others cannot be read"
            );
            return Ok(());
        }
        lowered.into_iter().try_for_each(|fix| self.fix(fix))?;
        let packs = std::mem::take(&mut self.miscounted);
        packs.into_iter().try_for_each(|id| self.fix(Fix::Free(id)))
    }
}

/// The record of an object of which only the digest is known: it points at nothing that was counted.
fn lost_object(refs: u64) -> Located {
    let extent = Extent { pack: PackId::NONE, offset: 0, stored_bytes: 0 };
    let presence = Presence::AbsentUncounted;
    Located { kind: ObjectKind::Chunk, codec: 0, body_bytes: 0, extent, refs, presence }
}

/// Whether an error says that bytes are wrong or gone, rather than that they cannot be read now.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::Stale | Kind::NotFound)
}
