//! Drafts: what is written and not yet committed.

mod changes;
mod commit;
mod lower;
mod pins;
mod prehash;
mod xattr;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::put::PutReport;
use super::repository::{Layout, Repository};
use crate::content::directory::resolve;
use crate::error::{Error, Kind, Result};
use crate::model::difference::{Change, Difference};
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::reference::{ArtifactPath, Reference};
pub use crate::protocol::drafts::{
    CommitDraft, DIFFERENCES_MAX, DraftAnswer, DraftCall, DraftHandler, DraftInfo,
};
use crate::staging::{Caller, DraftRecord, Drafts, TreeXattr};
pub use commit::WRITERS_WAIT;
use commit::no_version;
use lower::Versions;
use prehash::Prehash;
pub use xattr::{DraftPlace, field};

/// What went wrong lately and nobody was there to hear: so many lines are kept.
const TROUBLES_KEPT: usize = 20;

/// The drafts of a repository, open in this process.
pub struct DraftService {
    repository: Arc<Repository>,
    drafts: Arc<Drafts>,
    lower: Versions,
    /// The root trees that are pinned for each draft.
    pinned: Mutex<HashMap<ArtifactPath, Vec<Digest>>>,
    troubles: Mutex<VecDeque<String>>,
    /// Where drafts stand on nothing: when those were last changed that were committed by themselves.
    committed: Mutex<HashMap<ArtifactPath, Instant>>,
    opened: Instant,
    prehash: Arc<Prehash>,
    /// Told when what a draft's name stands for is another, so that nobody goes on with the last.
    moved: Mutex<Option<Box<Moved>>>,
}

/// Told of a draft, or of a path in it, by a thread that serves no request of the kernel's.
type Moved = dyn Fn(&ArtifactPath, &[EntryName]) + Send + Sync;

fn now() -> (i64, i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos().into())
}

impl DraftService {
    /// Opens the drafts of `repository`; what a commit or a deletion that was interrupted left is put
    /// right.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another process has them open, and what the host or the registry
    /// says.
    pub fn open(repository: &Arc<Repository>) -> Result<Self> {
        let base = Arc::new(Versions(Arc::clone(&repository.reader)));
        let drafts = Drafts::open(&Layout::drafts(&repository.layout), base)?;
        let drafts = Self {
            repository: Arc::clone(repository),
            drafts: Arc::new(drafts),
            lower: Versions(Arc::clone(&repository.reader)),
            pinned: Mutex::default(),
            troubles: Mutex::default(),
            committed: Mutex::default(),
            opened: Instant::now(),
            prehash: Arc::default(),
            moved: Mutex::default(),
        };
        for draft in drafts.drafts.list()? {
            // One draft that cannot be put right keeps nobody from the others: nothing of it is
            // changed, neither by us nor by users.
            if let Err(e) = drafts.unshare(&draft) {
                drafts.drafts.seal(&draft);
                drafts.trouble(format!("draft {draft} cannot be changed: {e}"));
            }
        }
        drafts.restore_pins()?;
        Ok(drafts)
    }

    /// The drafts.
    pub fn drafts(&self) -> &Arc<Drafts> {
        &self.drafts
    }

    /// Cuts and hashes big files while they are written, from now on.
    pub fn start_prehashing(&self) {
        self.prehash.start(&self.drafts, self.repository.cutter.clone());
    }

    /// Tells `moved` from now on when what a draft's name stands for is another.
    pub fn notify_with(&self, moved: Box<Moved>) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(moved);
    }

    /// Tells that a draft's name stands for something else, or a path in the draft.
    pub fn notify_moved(&self, draft: &ArtifactPath, path: &[EntryName]) {
        if let Some(moved) = &*self.moved.lock().unwrap_or_else(PoisonError::into_inner) {
            moved(draft, path);
        }
    }

    fn lock_pinned(&self) -> MutexGuard<'_, HashMap<ArtifactPath, Vec<Digest>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_committed(&self) -> MutexGuard<'_, HashMap<ArtifactPath, Instant>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a line for `artifactfs status`, and writes it to the log.
    pub fn trouble(&self, what: String) {
        tracing::error!("{what}");
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() == TROUBLES_KEPT {
            troubles.pop_front();
        }
        troubles.push_back(what);
    }

    /// Removes a line from what `artifactfs status` shows, once it is no longer true.
    pub fn no_trouble(&self, what: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.retain(|trouble| trouble != what);
    }

    /// Begins a draft from a version: nothing of it is read.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Conflict`] when there is one.
    fn begin(&self, reference: &Reference) -> Result<ArtifactPath> {
        let info = self.repository.registry.lookup(reference.clone())?;
        let draft = info.path.clone();
        if self.drafts.exists(&draft)? {
            return Err(Error::new(Kind::Conflict, format!("there is a draft {draft} already"))
                .hint(format!("commit it, or `artifactfs draft discard {draft}`")));
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
    /// EEXIST when there is one, and what the host says.
    pub fn create(&self, draft: &ArtifactPath, caller: Caller, mode: u32) -> std::io::Result<()> {
        self.drafts.create(draft, caller, mode)
    }

    /// Returns whether any draft is being committed or removed.
    pub fn is_committing(&self) -> bool {
        self.drafts.any_frozen()
    }

    /// Throws a frozen draft away, with what it pinned.
    ///
    /// # Errors
    /// What the host or the registry says.
    pub fn remove(&self, draft: &ArtifactPath, frozen: crate::staging::Frozen) -> Result<()> {
        // Of a record that cannot be read the lease is found when the drafts are opened next.
        let lease = self.drafts.record(draft).ok().and_then(|record| record.lease);
        self.drafts.remove(draft, frozen)?;
        self.lock_pinned().remove(draft);
        self.release_pins(lease)
    }

    fn owner_of(&self, draft: &ArtifactPath) -> Option<(u32, u32)> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(self.drafts.tree_path(draft)).ok()?;
        Some((meta.uid(), meta.gid()))
    }

    fn each_difference(
        &self,
        draft: &ArtifactPath,
        record: &DraftRecord,
        each: &mut dyn FnMut(Difference) -> Result<()>,
    ) -> Result<()> {
        let root = self.drafts.tree_path(draft);
        changes::changes(&self.repository.reader, &root, record.root, each)
    }

    fn info(&self, draft: ArtifactPath) -> Result<DraftInfo> {
        let record = self.drafts.record(&draft)?;
        let (mut files, mut size_bytes) = (record.totals.files, record.totals.size_bytes);
        let mut changed = 0;
        self.each_difference(&draft, &record, &mut |difference| {
            // A new directory is not a path that differs: what is in it is.
            changed += u64::from(!difference.directory || difference.change == Change::Removed);
            let (before, after) = (difference.before_bytes, difference.after_bytes);
            files =
                (files + u64::from(after.is_some())).saturating_sub(u64::from(before.is_some()));
            size_bytes =
                (size_bytes + after.unwrap_or_default()).saturating_sub(before.unwrap_or_default());
            Ok(())
        })?;
        let base = record.base;
        Ok(DraftInfo { path: draft, base, files, size_bytes, changed, unread: None })
    }

    fn diff(&self, draft: &ArtifactPath) -> Result<DraftAnswer> {
        self.must_exist(draft)?;
        let record = self.drafts.record(draft)?;
        let (mut differences, mut count) = (Vec::new(), 0);
        self.each_difference(draft, &record, &mut |difference| {
            count += 1;
            if differences.len() < DIFFERENCES_MAX {
                differences.push(difference);
            }
            Ok(())
        })?;
        Ok(DraftAnswer::Differences { differences, count })
    }

    fn must_exist(&self, draft: &ArtifactPath) -> Result<()> {
        if self.drafts.exists(draft)? {
            return Ok(());
        }
        Err(Error::new(Kind::NotFound, format!("no draft {draft}"))
            .hint("`artifactfs draft ls` lists the drafts"))
    }

    fn restore(&self, draft: &ArtifactPath, path: &[EntryName]) -> Result<()> {
        self.must_exist(draft)?;
        let Some(root) = self.drafts.record(draft)?.root else {
            return Err(Error::new(Kind::Conflict, format!("draft {draft} stands on no version"))
                .hint("only what was begun from a version, or committed, can be taken back"));
        };
        let Some(entry) = resolve(&self.repository.reader, root, path)? else {
            let shown: Vec<_> =
                path.iter().map(|name| name.as_os_str().to_string_lossy()).collect();
            let what = format!("{draft} stands on a version without {}", shown.join("/"));
            return Err(Error::new(Kind::NotFound, what).hint("`rm` removes what is new"));
        };
        self.drafts.restore(draft, path, &entry.target).map_err(|e| {
            Error::io(format!("cannot restore in draft {draft}"), e.into())
                .hint("a directory above it may be gone: restore that")
        })
    }

    /// Commits every draft that changed and was quiet for so long.
    pub fn autocommit(&self, quiet: Duration) {
        let drafts = self.drafts.list().unwrap_or_else(|e| {
            self.trouble(format!("drafts are not committed: {e}"));
            Vec::new()
        });
        for draft in drafts {
            let last = self.drafts.touched(&draft).unwrap_or(self.opened);
            let done = self.lock_committed().get(&draft) == Some(&last);
            if done || last.elapsed() < quiet || !self.is_changed(&draft) {
                continue;
            }
            let request = CommitDraft { wait_milliseconds: Some(0), ..CommitDraft::plain(draft) };
            match self.commit(&request, false) {
                // A draft that stands on nothing does not show that it is committed.
                Ok(_) if !self.drafts.can_stand() => {
                    self.lock_committed().insert(request.draft, last);
                    continue;
                }
                Ok(_) => {}
                // Somebody has just begun to write: the next round sees.
                Err(e) if e.kind() == Kind::Conflict && self.drafts.has_writers(&request.draft) => {
                }
                Err(e) => self.trouble(format!("draft {} was not committed: {e}", request.draft)),
            }
            // Tried again when it was quiet once more.
            self.drafts.touch(&request.draft);
        }
    }

    /// Whether a draft has something, and something that differs from what it stands on.
    fn is_changed(&self, draft: &ArtifactPath) -> bool {
        let root = self.drafts.tree_path(draft);
        match TreeXattr::of(&root) {
            Ok(Some(mark)) => !mark.clean,
            _ => std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()),
        }
    }
}

impl DraftHandler for DraftService {
    fn call(&self, call: DraftCall) -> Result<DraftAnswer> {
        match call {
            DraftCall::List => {
                let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
                let troubles: Vec<String> = troubles.iter().cloned().collect();
                let drafts = self.drafts.list()?.into_iter().map(|draft| {
                    self.info(draft.clone()).unwrap_or_else(|e| DraftInfo::unread(draft, &e))
                });
                Ok(DraftAnswer::Drafts { drafts: drafts.collect(), troubles })
            }
            DraftCall::Commit(request) => {
                let report = self.commit(&request, false)?;
                let committed = report.committed.ok_or_else(no_version)?;
                let PutReport { warnings, stored_bytes, files_read, .. } = report;
                Ok(DraftAnswer::Committed { committed, warnings, stored_bytes, files_read })
            }
            DraftCall::Begin(reference) => {
                let draft = self.begin(&reference)?;
                self.notify_moved(&draft, &[]);
                Ok(DraftAnswer::Begun(draft))
            }
            DraftCall::Discard(draft) => {
                let frozen = self.drafts.freeze(&draft, WRITERS_WAIT)?;
                self.remove(&draft, frozen)?;
                self.notify_moved(&draft, &[]);
                Ok(DraftAnswer::Done)
            }
            DraftCall::Diff(draft) => self.diff(&draft),
            DraftCall::Restore(draft, path) => {
                self.restore(&draft, &path)?;
                self.notify_moved(&draft, &path);
                Ok(DraftAnswer::Done)
            }
        }
    }
}
