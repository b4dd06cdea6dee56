//! One check of counts and packs, with or without corrections.

use super::counting::Counting;
use super::report::FsckReport;
use super::table::{LiveTable, Table, is_damage};
use crate::error::Result;
use crate::model::counted::counted;
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId, Presence};
use crate::ops::maintenance::Held;
use crate::ops::repository::Repository;
use crate::registry::Fix;

/// The number of corrections made in one transaction.
pub(super) const FIX_BATCH: usize = 4_096;
/// The maximum number of counts that wait to be lowered until every node was read. The next repair
/// finds more.
const LOWERED_MAX: usize = 1_000_000;

/// Runs a check. Returns the report, and whether every object that is needed could be read or
/// found.
pub(super) fn check(
    repository: &Repository,
    held: Option<&Held<'_>>,
) -> Result<(FsckReport, bool)> {
    let report = FsckReport::default();
    let (fixes, lowered, miscounted) = (Vec::new(), Vec::new(), Vec::new());
    let mut check = Check { repository, held, report, fixes, lowered, miscounted };
    if held.is_some() {
        check.recover()?;
        check.revive()?;
    }
    check.packs()?;
    let whole = check.counts()?;
    check.flush()?;
    Ok((check.report, whole))
}

pub(super) struct Check<'a> {
    pub(super) repository: &'a Repository,
    /// The maintenance under which corrections are made; without it, none are.
    pub(super) held: Option<&'a Held<'a>>,
    pub(super) report: FsckReport,
    pub(super) fixes: Vec<Fix>,
    /// Counts that are too high.
    pub(super) lowered: Vec<Fix>,
    /// Packs whose counts were wrong: they may have dead bytes that no mark records.
    pub(super) miscounted: Vec<PackId>,
}

impl Check<'_> {
    pub(super) fn repairs(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn fix(&mut self, fix: Fix) -> Result<()> {
        if !self.repairs() {
            return Ok(());
        }
        self.fixes.push(fix);
        if self.fixes.len() >= FIX_BATCH { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let fixes = std::mem::take(&mut self.fixes);
        if let (false, Some(held)) = (fixes.is_empty(), self.held) {
            self.report.repaired += self.repository.registry.repair(held.holder.clone(), fixes)?;
        }
        Ok(())
    }

    pub(super) fn each_object(
        &self,
        each: &mut dyn FnMut(Digest, Located) -> Result<()>,
    ) -> Result<()> {
        LiveTable(self.repository).each(each)
    }

    /// Marks absent objects present if their bytes are good after all: a disk is back, or a pack
    /// was put back by hand. Those whose children were never counted wait for [`Self::revive`].
    fn recover(&mut self) -> Result<()> {
        if self.repository.registry.absent()? == 0 {
            return Ok(());
        }
        let mut found = Vec::new();
        self.each_object(&mut |digest, located| {
            if located.presence == Presence::Absent && located.extent.pack != PackId::NONE {
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

    /// Checks that reference counts match the nodes, and that everything is there that they point
    /// at. Returns whether everything could be read or found.
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
        // Bytes that are good after all are no problem; a repair records that they are.
        let good = || match self.repository.reader.check_at(digest, &seen) {
            Err(e) if is_damage(&e) => Ok(false),
            read => read.map(|_| true),
        };
        let lost = seen.is_absent() && !good()?;
        if lost {
            self.report.missing_objects += 1;
            let needed = counted(found, "reference");
            self.report.finding(format!(
                "{kind} {digest} is damaged or lost and has {needed}: put a good copy of the file again"
            ));
        }
        let miscounted =
            || format!("{kind} {digest} counts {}, not {refs}", counted(found, "reference"));
        let fix = Fix::Object { digest, seen: Some(seen), now: Located { refs, ..seen } };
        if refs > found {
            self.report.finding(miscounted());
            return self.fix(fix);
        }
        if refs < found && !lost {
            self.report.finding(miscounted());
        }
        if self.repairs() && self.lowered.len() < LOWERED_MAX {
            self.lowered.push(fix);
        }
        Ok(())
    }

    /// Records an object that is needed and not in the table as absent, so that a good copy of it
    /// is taken.
    fn lost(&mut self, digest: Digest, refs: u64) -> Result<()> {
        self.report.missing_objects += 1;
        self.report.finding(format!("object {digest} is needed and not in the repository"));
        let now = Located::lost(refs);
        self.fix(Fix::Object { digest, seen: None, now })
    }

    /// Lowers counts and frees what nothing refers to, unless something could not be read: what an
    /// unreadable node points at is not known.
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
