//! The pins of drafts: each draft has a lease that ends with it and pins the root trees of its
//! lower. So the lower stays, also if its version is deleted.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::service::DraftService;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::ProjectName;
use crate::model::reference::ArtifactPath;
use crate::model::zone::{Zone, other_zone};
use crate::ops::garbage::collect_garbage;
use crate::registry::{DRAFT_HOLDER, LeaseId, LeaseInfo};
use crate::staging::DraftRecord;

/// The time for which a project without a zone is not looked up again: a copy of many files pins each.
const ABSENT_FOR: Duration = Duration::from_secs(1);

fn gone(draft: &ArtifactPath, root: &Digest) -> Error {
    Error::new(Kind::Stale, format!("draft {draft} stands on {root}, which was deleted"))
}

impl DraftService {
    /// Returns the purpose of a draft's lease. If several hosts share the registry, it names the
    /// directory of the draft.
    fn purpose_of(&self, draft: &ArtifactPath) -> String {
        match &self.repository.settings.directory {
            Some(directory) => format!("draft {draft} in {directory}"),
            None => format!("draft {draft}"),
        }
    }

    /// Returns whether a lease is for a draft in this directory.
    fn is_of_draft_here(&self, lease: &LeaseInfo) -> bool {
        let directory = self.repository.settings.directory.as_ref();
        !lease.writes() && directory.is_none_or(|own| lease.purpose.ends_with(own))
    }

    /// Begins a lease for a draft that pins `roots`.
    pub(super) fn begin_pins(&self, draft: &ArtifactPath, roots: &[Digest]) -> Result<LeaseId> {
        let registry = &self.repository.registry;
        let (purpose, holder) = (self.purpose_of(draft), DRAFT_HOLDER.to_owned());
        let lease = registry.begin(purpose, holder, Some(draft.project.clone()))?.lease;
        let error = match registry.missing(lease, roots.to_vec()) {
            Ok(missing) => match missing.first() {
                None => return Ok(lease),
                Some(missing) => gone(draft, missing),
            },
            Err(e) => e,
        };
        registry.release(lease)?;
        Err(error)
    }

    /// Refuses to pin the tree of another zone than the draft's, before a lease is begun for it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for such a tree, and the errors of the registry.
    fn refuse_other_zone(&self, draft: &ArtifactPath, root: Digest) -> Result<()> {
        // A project without a zone has no trees.
        let own = self.zone_of(&draft.project)?;
        match own == Some(Zone::WHOLE) || own == Some(root.zone()) {
            true => Ok(()),
            false => Err(other_zone()),
        }
    }

    /// Returns the zone of a project. It reports the absence of a zone for some time after the zone
    /// was made, in which files are copied rather than cloned.
    fn zone_of(&self, project: &ProjectName) -> Result<Option<Zone>> {
        let lock = || self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(project).copied();
        if let Some((since, zone)) = known
            && (zone.is_some() || since.elapsed() < ABSENT_FOR)
        {
            return Ok(zone);
        }
        let zone = self.repository.registry.project_access(project.clone())?.zone;
        lock().put(project.clone(), (Instant::now(), zone));
        Ok(zone)
    }

    pub(super) fn set_pinned(&self, draft: &ArtifactPath, roots: Vec<Digest>) {
        self.lock_pinned().insert(draft.clone(), roots);
    }

    /// Pins `root`, with all below it, as long as the draft exists.
    ///
    /// # Errors
    /// [`Kind::Stale`] if it is gone already, [`Kind::Unsupported`] if it belongs to another zone.
    pub(crate) fn pin(&self, draft: &ArtifactPath, root: Digest) -> Result<()> {
        if self.lock_pinned().get(draft).is_some_and(|roots| roots.contains(&root)) {
            return Ok(());
        }
        self.refuse_other_zone(draft, root)?;
        // A commit writes the record too, so it must not run now.
        let _change = self.drafts.begin_change(draft)?;
        self.pin_frozen(draft, root)
    }

    /// Pins `root` as [`Self::pin`] does, for a caller that excludes all other changes of the
    /// draft.
    pub(super) fn pin_frozen(&self, draft: &ArtifactPath, root: Digest) -> Result<()> {
        let mut pinned = self.lock_pinned();
        if pinned.get(draft).is_some_and(|roots| roots.contains(&root)) {
            return Ok(());
        }
        let record = self.drafts.record(draft)?;
        let lease = match record.lease {
            None => self.begin_pins(draft, &[root])?,
            Some(lease) => {
                let lease = LeaseId(lease);
                if !self.repository.registry.missing(lease, vec![root])?.is_empty() {
                    return Err(gone(draft, &root));
                }
                lease
            }
        };
        let mut sources = record.sources.clone();
        sources.push(root);
        let roots = pinned.entry(draft.clone()).or_default();
        let record = DraftRecord { lease: Some(lease.0), sources: sources.clone(), ..record };
        self.drafts.set_record(draft, &record)?;
        *roots = sources;
        Ok(())
    }

    pub(super) fn release_pins(&self, lease: Option<u64>) -> Result<()> {
        let Some(lease) = lease else { return Ok(()) };
        self.repository.registry.release(LeaseId(lease))?;
        collect_garbage(&self.repository).map(drop)
    }

    /// Gives every draft its lease and ends leases without a draft: a process that was killed may
    /// have left either.
    pub(super) fn restore_pins(&self) -> Result<()> {
        let registry = &self.repository.registry;
        let leases = registry.leases()?.into_iter().filter(|lease| self.is_of_draft_here(lease));
        let mut there: HashMap<u64, String> =
            leases.map(|lease| (lease.id.0, lease.purpose)).collect();
        for draft in self.drafts.list()? {
            let record = match self.drafts.record(&draft) {
                Ok(record) => record,
                Err(e) => {
                    // Its lower is unknown: everything that is pinned for it stays pinned.
                    let purpose = self.purpose_of(&draft);
                    there.retain(|_, of| *of != purpose);
                    self.drafts.seal(&draft);
                    self.trouble(e.to_string());
                    continue;
                }
            };
            if record.sources.is_empty() {
                continue;
            }
            let known = record.lease.filter(|lease| there.remove(lease).is_some());
            match known {
                // Pins of an earlier release were not durable: they may be gone although the lease
                // exists.
                Some(lease) => {
                    for root in registry.missing(LeaseId(lease), record.sources.clone())? {
                        self.trouble(gone(&draft, &root).to_string());
                    }
                }
                // The registry was made again, or the drafts are from another repository.
                None => match self.begin_pins(&draft, &record.sources) {
                    Ok(lease) => {
                        let record = DraftRecord { lease: Some(lease.0), ..record.clone() };
                        self.drafts.set_record(&draft, &record)?;
                    }
                    Err(e) => self.trouble(e.to_string()),
                },
            }
            self.set_pinned(&draft, record.sources);
        }
        for lease in there.into_keys() {
            self.release_pins(Some(lease))?;
        }
        Ok(())
    }
}
