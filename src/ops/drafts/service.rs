//! The drafts of a repository, open in this process.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

use lru::LruCache;

use super::changes;
use super::lower::Versions;
use super::prehash::Prehash;
use crate::error::{DraftHint, Error, Kind, Result};
use crate::model::difference::Difference;
use crate::model::digest::Digest;
use crate::model::host::file_time;
use crate::model::name::{EntryName, ProjectName};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::zone::Zone;
use crate::ops::repository::{Layout, Repository};
use crate::staging::{Caller, DraftRecord, Drafts, Frozen};

/// The number of recent failures that are kept for `artifactfs status`, a line each.
const TROUBLES_KEPT: usize = 20;
/// The number of projects whose zones are remembered.
const ZONES_KEPT: NonZeroUsize = NonZeroUsize::new(1_000).expect("it is not zero");

/// The drafts of a repository, open in this process.
pub struct DraftService {
    pub(super) repository: Arc<Repository>,
    pub(super) drafts: Arc<Drafts>,
    pub(super) lower: Versions,
    /// The root trees that are pinned for each draft.
    pub(super) pinned: Mutex<HashMap<ArtifactPath, Vec<Digest>>>,
    /// The zones of projects, with the times of their look-ups. A zone never changes.
    pub(super) zones: Mutex<LruCache<ProjectName, (Instant, Option<Zone>)>>,
    pub(super) troubles: Mutex<VecDeque<String>>,
    /// The time of the last change that an autocommit covered, only of drafts that cannot have a
    /// lower.
    pub(super) committed: Mutex<HashMap<ArtifactPath, Instant>>,
    pub(super) opened: Instant,
    pub(super) prehash: Arc<Prehash>,
    /// The callback for a name that stands for something else now, so that no reader keeps the old
    /// one.
    pub(super) moved: Mutex<Option<Box<Moved>>>,
}

/// A callback with a draft and a path in it. Only a thread that serves no kernel request calls it.
type Moved = dyn Fn(&ArtifactPath, &[EntryName]) + Send + Sync;

pub(super) fn now() -> (i64, i64) {
    let now = file_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos().into())
}

impl DraftService {
    /// Opens the drafts of `repository`, and repairs what an interrupted commit or deletion left.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another process has them open.
    pub(crate) fn open(repository: &Arc<Repository>) -> Result<Self> {
        let base = Arc::new(Versions(Arc::clone(&repository.reader)));
        let drafts = Drafts::open(&Layout::drafts(&repository.layout), base)?;
        let drafts = Self {
            repository: Arc::clone(repository),
            drafts: Arc::new(drafts),
            lower: Versions(Arc::clone(&repository.reader)),
            pinned: Mutex::default(),
            zones: Mutex::new(LruCache::new(ZONES_KEPT)),
            troubles: Mutex::default(),
            committed: Mutex::default(),
            opened: Instant::now(),
            prehash: Arc::default(),
            moved: Mutex::default(),
        };
        for draft in drafts.drafts.list()? {
            // A draft that cannot be repaired does not block the others: it is sealed, so that
            // neither we nor users change it.
            if let Err(e) = drafts.unshare(&draft) {
                drafts.drafts.seal(&draft);
                drafts.trouble(format!("draft {draft} cannot be changed: {e}"));
            }
        }
        drafts.restore_pins()?;
        Ok(drafts)
    }

    /// Returns the drafts.
    pub fn drafts(&self) -> &Arc<Drafts> {
        &self.drafts
    }

    /// Starts to cut and hash big files while they are written.
    pub(crate) fn start_prehashing(&self) {
        self.prehash.start(&self.drafts, self.repository.cutter.clone());
    }

    /// Sets the callback for [`Self::notify_moved`].
    pub(crate) fn notify_with(&self, moved: Box<Moved>) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(moved);
    }

    /// Reports that a draft's name, or a path in the draft, stands for something else now.
    pub(crate) fn notify_moved(&self, draft: &ArtifactPath, path: &[EntryName]) {
        if let Some(moved) = &*self.moved.lock().unwrap_or_else(PoisonError::into_inner) {
            moved(draft, path);
        }
    }

    pub(super) fn lock_pinned(&self) -> MutexGuard<'_, HashMap<ArtifactPath, Vec<Digest>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_committed(&self) -> MutexGuard<'_, HashMap<ArtifactPath, Instant>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a line for `artifactfs status`, and writes it to the log.
    pub(crate) fn trouble(&self, what: String) {
        tracing::error!("{what}");
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() == TROUBLES_KEPT {
            troubles.pop_front();
        }
        troubles.push_back(what);
    }

    /// Removes a line from `artifactfs status` that is no longer true.
    pub(crate) fn no_trouble(&self, what: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.retain(|trouble| trouble != what);
    }

    /// Begins a draft from a version, of which nothing is read.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without such a version, [`Kind::Conflict`] if the draft exists.
    pub(super) fn begin(&self, reference: &Reference) -> Result<ArtifactPath> {
        let info = self.repository.registry.lookup(reference.clone())?;
        let draft = info.path.clone();
        if self.drafts.exists(&draft)? {
            return Err(Error::new(Kind::Conflict, format!("there is a draft {draft} already"))
                .hint(DraftHint::CommitOrDiscard(draft.to_string())));
        }
        let lease = self.begin_pins(&draft, &[info.root])?;
        let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let record = DraftRecord {
            base: Some(info.reference()),
            root: Some(info.root),
            totals: info.totals,
            since: now(),
            owner: Some(user),
            lease: Some(lease.0),
            sources: vec![info.root],
            ..DraftRecord::default()
        };
        let begun = self.drafts.begin(&draft, &record, 0o755);
        if begun.is_err() {
            self.repository.registry.release(lease)?;
        }
        begun?;
        self.set_pinned(&draft, vec![info.root]);
        Ok(draft)
    }

    /// Makes an empty draft that belongs to `caller`.
    ///
    /// # Errors
    /// EEXIST if the draft exists.
    pub(crate) fn create(
        &self,
        draft: &ArtifactPath,
        caller: Caller,
        mode: u32,
    ) -> std::io::Result<()> {
        self.drafts.create(draft, caller, mode)
    }

    /// Returns whether any draft is being committed or removed.
    pub(crate) fn is_committing(&self) -> bool {
        self.drafts.any_frozen()
    }

    /// Removes a frozen draft and ends its pins.
    pub(crate) fn remove(&self, draft: &ArtifactPath, frozen: Frozen) -> Result<()> {
        // If the record cannot be read, the next opening of the drafts finds the lease.
        let lease = self.drafts.record(draft).ok().and_then(|record| record.lease);
        self.drafts.remove(draft, frozen)?;
        self.lock_pinned().remove(draft);
        self.release_pins(lease)
    }

    pub(super) fn owner_of(&self, draft: &ArtifactPath) -> Option<(u32, u32)> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(self.drafts.tree_path(draft)).ok()?;
        Some((meta.uid(), meta.gid()))
    }

    pub(super) fn each_difference(
        &self,
        draft: &ArtifactPath,
        record: &DraftRecord,
        each: &mut dyn FnMut(Difference) -> Result<()>,
    ) -> Result<()> {
        let root = self.drafts.tree_path(draft);
        changes::changes(&self.repository.reader, &root, record.root, each)
    }

    pub(super) fn must_exist(&self, draft: &ArtifactPath) -> Result<()> {
        if self.drafts.exists(draft)? {
            return Ok(());
        }
        Err(Error::new(Kind::NotFound, format!("no draft {draft}")).hint(DraftHint::List))
    }
}
