//! Checking that counts, index and store agree, and making them agree.
//!
//! The truth about names is in the registry; about bytes, in the store. Reference counts follow
//! from the nodes: `refs` is the number of nodes, versions and parts of
//! open groups that point at an object.

use std::collections::{BTreeMap, HashMap};

use super::delete::{reap, unknown_packs};
use super::groups::each_part;
use super::holder::release_orphans;
use super::listing::each_version;
use super::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, ObjectKind, PackId};
use crate::registry::{Fix, LeaseInfo, PackInfo};

/// Objects looked at in one step.
const PAGE: u32 = 8_192;
/// Corrections made in one transaction.
const FIX_BATCH: usize = 4_096;
/// Objects counted at once: bounds memory to some 200 MiB; more objects take more passes.
const COUNTED_AT_ONCE: u64 = 2_000_000;
/// Findings that are told; more are only counted.
const FINDINGS_MAX: usize = 1_000;

/// What to do about what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only tell.
    Check,
    /// Put right what follows from the nodes and the store.
    Repair,
    /// Forget the object table and make it again from the store's indexes.
    Rebuild,
}

/// What a check found.
#[derive(Debug, Default)]
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
}

impl FsckReport {
    fn finding(&mut self, text: String) {
        self.problems += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(text);
        }
    }
}

/// Checks the repository.
///
/// # Errors
/// What keeps it from going on; [`Kind::Conflict`] while somebody writes.
pub fn fsck(repository: &Repository, mode: Mode) -> Result<FsckReport> {
    release_orphans(repository)?;
    refuse_writers(repository)?;
    if mode == Mode::Rebuild {
        rebuild(repository)?;
    }
    let mut check = Check { repository, mode, report: FsckReport::default(), fixes: Vec::new() };
    check.packs()?;
    check.counts()?;
    check.flush()?;
    let report = check.report;
    if mode != Mode::Check {
        reap(repository)?;
    }
    Ok(report)
}

/// What is being written would look wrong.
fn refuse_writers(repository: &Repository) -> Result<()> {
    let leases = repository.registry.leases()?.into_iter().filter(LeaseInfo::writes);
    let writers: Vec<_> = leases.map(|lease| lease.purpose).collect();
    if writers.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, format!("somebody is writing: {}", writers.join(", ")))
        .hint("check when they have finished"))
}

/// Makes the object table again: every object of every index, referred to by nobody yet.
fn rebuild(repository: &Repository) -> Result<()> {
    repository.registry.forget_objects()?;
    for id in repository.store.list()? {
        let entries = match repository.store.read_index(id) {
            // A pack without an index was never finished: no version can need it.
            Err(e) if matches!(e.kind(), Kind::NotFound) => continue,
            entries => entries?,
        };
        let length_bytes = repository.store.pack_length(id)?;
        for batch in entries.chunks(FIX_BATCH) {
            let digests = batch.iter().map(|entry| entry.digest).collect();
            let known = repository.registry.locate(digests)?;
            let new = batch.iter().zip(known).filter(|(_, known)| known.is_none());
            let fixes = new.map(|(entry, _)| {
                let stored_bytes = entry.stored_bytes;
                let extent = Extent { pack: id, offset: entry.offset, stored_bytes };
                // One reference keeps it from being taken for dead until the nodes are counted.
                let located = Located {
                    kind: entry.kind,
                    codec: entry.codec,
                    body_bytes: entry.body_bytes,
                    extent,
                    refs: 1,
                };
                Fix::Put(entry.digest, located)
            });
            repository.registry.repair(fixes.collect())?;
        }
        tracing::debug!(pack = %id, length_bytes, "index read");
    }
    Ok(())
}

struct Check<'a> {
    repository: &'a Repository,
    mode: Mode,
    report: FsckReport,
    fixes: Vec<Fix>,
}

impl Check<'_> {
    fn fix(&mut self, fix: Fix) -> Result<()> {
        if self.mode == Mode::Check {
            return Ok(());
        }
        self.report.repaired += 1;
        self.fixes.push(fix);
        if self.fixes.len() >= FIX_BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let fixes = std::mem::take(&mut self.fixes);
        if fixes.is_empty() { Ok(()) } else { self.repository.registry.repair(fixes) }
    }

    fn each_object(&self, each: &mut dyn FnMut(Digest, Located) -> Result<()>) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.repository.registry.scan_objects(after, PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            page.into_iter().try_for_each(|(digest, located)| each(digest, located))?;
        }
    }

    /// Do the packs hold what the table says, and the table what the packs hold?
    fn packs(&mut self) -> Result<()> {
        let mut sums: BTreeMap<PackId, (u64, u64)> = BTreeMap::new();
        let mut objects = 0;
        self.each_object(&mut |_, located| {
            let sum = sums.entry(located.extent.pack).or_default();
            sum.0 += 1;
            sum.1 += u64::from(located.extent.stored_bytes);
            objects += 1;
            Ok(())
        })?;
        self.report.objects = objects;
        let mut after = None;
        loop {
            let page = self.repository.registry.scan_packs(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for pack in page {
                let sum = sums.remove(&pack.id).unwrap_or_default();
                self.pack(&pack, sum)?;
            }
        }
        for (id, (live_objects, live_bytes)) in sums {
            self.report.finding(format!("pack {id} has objects and no record"));
            let length_bytes = self.repository.store.pack_length(id).unwrap_or_default();
            let leased = false;
            self.fix(Fix::Pack(PackInfo { id, leased, live_objects, live_bytes, length_bytes }))?;
        }
        for id in unknown_packs(self.repository)? {
            self.report.finding(format!("pack {id} is in the store and nobody knows it"));
            if self.mode != Mode::Check {
                self.repository.store.remove(id)?;
                self.report.repaired += 1;
            }
        }
        self.flush()
    }

    fn pack(&mut self, pack: &PackInfo, (live_objects, live_bytes): (u64, u64)) -> Result<()> {
        self.report.packs += 1;
        let on_disk = match self.repository.store.pack_length(pack.id) {
            Err(e) if e.kind() == Kind::NotFound => None,
            length => Some(length?),
        };
        let counted = (pack.live_objects, pack.live_bytes) == (live_objects, live_bytes);
        let present = on_disk.is_some() || live_objects == 0;
        if !present {
            self.report.finding(format!("pack {} is missing with {live_objects} objects", pack.id));
        }
        let length_known = self.mode == Mode::Check || pack.length_bytes > 0 || live_objects == 0;
        if !counted {
            let what = format!(
                "pack {} counts {} objects of {} bytes and has {live_objects} of {live_bytes}",
                pack.id, pack.live_objects, pack.live_bytes
            );
            self.report.finding(what);
        }
        if (!counted || !length_known) && !pack.leased {
            let length_bytes = on_disk.unwrap_or(live_bytes);
            let info = PackInfo { live_objects, live_bytes, length_bytes, ..pack.clone() };
            self.fix(Fix::Pack(info))?;
        }
        Ok(())
    }

    /// Are the reference counts what the nodes say, and is everything there that they point at?
    fn counts(&mut self) -> Result<()> {
        let passes = self.report.objects / COUNTED_AT_ONCE + 1;
        for pass in 0..passes {
            let mine = |digest: &Digest| digest.spread() % passes == pass;
            let mut counts: HashMap<Digest, u64> = HashMap::new();
            self.count_roots(pass == 0, &mine, &mut counts)?;
            self.count_children(pass == 0, &mine, &mut counts)?;
            self.compare(&mine, counts)?;
        }
        Ok(())
    }

    fn count_roots(
        &mut self,
        first: bool,
        mine: &dyn Fn(&Digest) -> bool,
        counts: &mut HashMap<Digest, u64>,
    ) -> Result<()> {
        let mut versions = 0;
        each_version(&*self.repository.registry, &mut |version| {
            versions += 1;
            if mine(&version.root) {
                *counts.entry(version.root).or_default() += 1;
            }
            Ok(())
        })?;
        each_part(&*self.repository.registry, &mut |part| {
            if mine(&part.root) {
                *counts.entry(part.root).or_default() += 1;
            }
            Ok(())
        })?;
        if first {
            self.report.versions = versions;
        }
        Ok(())
    }

    fn count_children(
        &mut self,
        first: bool,
        mine: &dyn Fn(&Digest) -> bool,
        counts: &mut HashMap<Digest, u64>,
    ) -> Result<()> {
        let mut unreadable: Vec<(Digest, Error)> = Vec::new();
        self.each_object(&mut |digest, located| {
            if located.kind == ObjectKind::Chunk {
                return Ok(());
            }
            match self.repository.reader.children(digest, located.kind) {
                Ok(children) => {
                    for child in children.into_iter().filter(|child| mine(child)) {
                        *counts.entry(child).or_default() += 1;
                    }
                    Ok(())
                }
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Stale) => {
                    unreadable.push((digest, e));
                    Ok(())
                }
                Err(e) => Err(e),
            }
        })?;
        if first {
            for (_, error) in unreadable {
                self.report.finding(error.message());
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        mine: &dyn Fn(&Digest) -> bool,
        mut counts: HashMap<Digest, u64>,
    ) -> Result<()> {
        let mut wrong = Vec::new();
        self.each_object(&mut |digest, located| {
            if mine(&digest) {
                let refs = counts.remove(&digest).unwrap_or_default();
                if refs != located.refs {
                    wrong.push((digest, located, refs));
                }
            }
            Ok(())
        })?;
        for (digest, located, refs) in wrong {
            // After a rebuild every count is still to be made; that is no finding.
            if self.mode != Mode::Rebuild {
                let Located { kind, refs: found, .. } = located;
                self.report
                    .finding(format!("{kind} {digest} counts {found} references, not {refs}"));
            }
            self.fix(Fix::Put(digest, Located { refs, ..located }))?;
        }
        for digest in counts.into_keys() {
            self.report.missing_objects += 1;
            self.report.finding(format!("object {digest} is needed and not in the repository"));
        }
        Ok(())
    }
}
