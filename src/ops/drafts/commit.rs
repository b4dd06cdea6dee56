//! The commit of a draft, which goes on from its new version.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use super::service::{DraftService, now};
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::Alias;
use crate::model::new_version::NewVersion;
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::version::Committed;
use crate::ops::garbage::collect_garbage;
use crate::ops::process_id;
use crate::ops::put::{DraftOutcomes, DraftSource, Line, PutReport, put_draft};
use crate::protocol::drafts::CommitDraft;
use crate::registry::LeaseId;
use crate::staging::{DraftProperties, DraftRecord, Settled, give_to_store};

/// The default time that a commit waits for files open for writing to be closed. The kernel reports
/// a close(2) a little after it has returned.
pub(crate) const WRITERS_WAIT: Duration = Duration::from_secs(2);

/// The maximum number of content objects pinned one by one. Beyond it the draft keeps all its old
/// pins.
const STAYING_MAX: usize = 1000;

fn on_host(what: &str, path: &Path, error: rustix::io::Errno) -> Error {
    Error::io(format!("cannot {what} {} of the draft", path.display()), error.into())
}

impl DraftService {
    /// Commits a draft. With `remove` it is gone afterwards, otherwise the new version is its
    /// lower.
    ///
    /// # Errors
    /// [`Kind::Conflict`] while a process writes to it, if the newest version is not the expected
    /// one, and for anything that no version can hold. Others are as for
    /// [`put`](crate::ops::put::put). The draft is then as it was.
    pub(crate) fn commit(&self, request: &CommitDraft, remove: bool) -> Result<PutReport> {
        let draft = &request.draft;
        if self.drafts.exists(draft)? {
            self.drafts.record(draft)?;
        }
        let wait = request.wait_milliseconds.map_or(WRITERS_WAIT, Duration::from_millis);
        let frozen = self.drafts.freeze(draft, wait)?;
        // A repair that failed after an earlier commit may be possible now.
        self.put_right(draft)?;
        let done = self.commit_frozen(request, remove);
        if done.is_ok() && remove {
            self.remove(draft, frozen)?;
            return done;
        }
        // Before writers may go on, no file of the draft may share its bytes with a pack.
        match (self.put_right(draft), done) {
            (Err(e), Err(failed)) => {
                self.trouble(format!("draft {draft} cannot be changed: {e}"));
                Err(failed)
            }
            (unshared, done) => unshared.and(done),
        }
    }

    /// Ends the leases of failed commits, and unshares the draft's files from packs. If that fails,
    /// the draft is sealed: a write to such a file would change a version.
    fn put_right(&self, draft: &ArtifactPath) -> Result<()> {
        let right = self.release_failed(draft).and_then(|()| self.unshare(draft));
        match &right {
            Ok(()) => self.drafts.unseal(draft),
            Err(_) => self.drafts.seal(draft),
        }
        right
    }

    /// Ends the leases of failed commits of this process that could not be ended then, perhaps for
    /// lack of disk space. The packs that share bytes with the draft go with them.
    fn release_failed(&self, draft: &ArtifactPath) -> Result<()> {
        if self.drafts.record(draft)?.shared.is_empty() {
            return Ok(());
        }
        let registry = &self.repository.registry;
        // The holder of a lease is its process and a number.
        let me = format!("{}/", process_id::this_process());
        let root = self.drafts.tree_path(draft);
        let of_draft = format!(" {}", root.display());
        let failed = registry.leases()?.into_iter().filter(|lease| {
            lease.holder.starts_with(&me)
                && !lease.committed
                && lease.purpose.starts_with("commit ")
                && lease.purpose.ends_with(&of_draft)
        });
        let failed: Vec<_> = failed.collect();
        for lease in &failed {
            registry.release(lease.id)?;
        }
        if failed.is_empty() { Ok(()) } else { collect_garbage(&self.repository).map(drop) }
    }

    fn commit_frozen(&self, request: &CommitDraft, remove: bool) -> Result<PutReport> {
        let draft = &request.draft;
        let record = self.drafts.record(draft)?;
        let shared = Mutex::new(Vec::new());
        let root = self.drafts.tree_path(draft);
        let source = DraftSource {
            folder: File::open(&root).at("open", &root)?,
            root,
            lower: &self.lower,
            known: record.root.map(|root| (root, record.totals.into())),
            strict: request.strict,
            external_symlinks: request.external_symlinks,
            prehashed: &|upper| self.prehash.take(upper),
            // The draft must give up a file that becomes a pack's: it is removed, or has the new
            // version as its lower.
            may_share: &|upper| (remove || self.drafts.can_stand()) && self.drafts.may_share(upper),
            sharing: &|path| {
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.push(path.as_os_str().as_bytes().to_vec());
                let record = DraftRecord { shared: shared.clone(), ..record.clone() };
                self.drafts.set_record(draft, &record)
            },
        };
        let version = with_said(request.version.clone(), &record.properties);
        let work = self.drafts.work_folder();
        put_draft(&self.repository, source, version, &work, |report, outcomes| {
            let Some(committed) = &report.committed else { return Ok(()) };
            let settled = match remove {
                true => detach_packs(outcomes),
                false if !self.drafts.can_stand() => self.note_base(draft, committed),
                false => self.rebase(draft, committed, report, outcomes),
            };
            // The version is durable, and the draft shows the same as before in any case.
            if let Err(e) = settled {
                tracing::warn!("draft {draft} was committed, but keeps copies of its files: {e}");
            }
            Ok(())
        })
    }

    pub(super) fn unshare(&self, draft: &ArtifactPath) -> Result<()> {
        let record = self.drafts.record(draft)?;
        if record.shared.is_empty() {
            return Ok(());
        }
        for path in &record.shared {
            let path = Path::new(OsStr::from_bytes(path));
            self.drafts.unshare(draft, path).map_err(|e| on_host("copy", path, e))?;
        }
        self.drafts.set_record(draft, &DraftRecord { shared: Vec::new(), ..record })
    }

    /// Records the new version as the base of the draft, whose lower stays as it is.
    fn note_base(&self, draft: &ArtifactPath, committed: &Committed) -> Result<()> {
        let record = self.drafts.record(draft)?;
        let selector = Selector::Version(committed.number);
        let base = Some(Reference { path: committed.path.clone(), selector });
        let record = DraftRecord { base, properties: Default::default(), ..record };
        self.drafts.set_record(draft, &record)
    }

    /// Makes the new version the lower of the draft. No step changes what the draft shows.
    fn rebase(
        &self,
        draft: &ArtifactPath,
        committed: &Committed,
        report: &PutReport,
        outcomes: DraftOutcomes,
    ) -> Result<()> {
        // The pin comes first: the version may be deleted as soon as its commit is over.
        self.pin_frozen(draft, report.root)?;
        let mut stays = self.rebase_files(draft, outcomes)?;
        let nameless = self.drafts.nameless_content(draft);
        stays.extend(nameless.iter().filter_map(|content| content.digest()));
        // The new lower of each file must be durable before the old pins end.
        let durable = self.drafts.rebase_durably();
        durable.map_err(|e| on_host("make durable", Path::new("."), e))?;
        let selector = Selector::Version(committed.number);
        let base = Some(Reference { path: committed.path.clone(), selector });
        let record = self.drafts.record(draft)?;
        let (lease, sources) = match stays.len() {
            0..=STAYING_MAX => {
                let sources: Vec<Digest> = [report.root].into_iter().chain(stays).collect();
                (Some(self.begin_pins(draft, &sources)?.0), sources)
            }
            // They are too many: all that was pinned so far stays pinned.
            _ => (record.lease, record.sources.clone()),
        };
        let before = record.lease.filter(|before| lease != Some(*before));
        let record = DraftRecord {
            base,
            root: Some(report.root),
            totals: report.totals,
            lease,
            sources: sources.clone(),
            properties: Default::default(),
            since: if record.root.is_some() { record.since } else { now() },
            owner: record.owner.or_else(|| self.owner_of(draft)),
            ..record
        };
        self.drafts.set_record(draft, &record)?;
        self.set_pinned(draft, sources);
        self.drafts.forget_template(draft);
        match before {
            Some(before) => self.repository.registry.release(LeaseId(before)),
            None => Ok(()),
        }
    }

    /// Rebases every file. Returns the earlier content that files still need, at most one object
    /// more than [`STAYING_MAX`].
    fn rebase_files(
        &self,
        draft: &ArtifactPath,
        outcomes: DraftOutcomes,
    ) -> Result<BTreeSet<Digest>> {
        let mut stays = BTreeSet::new();
        // Directories with a file or directory below that is not settled: they are not clean.
        let mut unsettled: Vec<Vec<u8>> = Vec::new();
        outcomes.each(&mut |line| match line {
            Line::File { path, content, shared } => {
                let at = Path::new(OsStr::from_bytes(&path));
                let is_shared = shared.is_some();
                let settled = self
                    .drafts
                    .rebase_file(draft, at, content, is_shared)
                    .map_err(|e| on_host("rebase", at, e))?;
                if let Some(pack) = shared {
                    own_pack(&pack)?;
                }
                if settled != Settled::Wholly {
                    unsettled.push(parent_of(&path));
                }
                if let Settled::On(content) = settled
                    && stays.len() <= STAYING_MAX
                {
                    stays.extend(content.digest());
                }
                Ok(())
            }
            Line::Directory { path, tree } => {
                self.rebase_directory(draft, path, tree, &mut unsettled)
            }
        })?;
        Ok(stays)
    }

    fn rebase_directory(
        &self,
        draft: &ArtifactPath,
        path: Vec<u8>,
        tree: Digest,
        unsettled: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let clean = !unsettled.contains(&path);
        unsettled.retain(|other| *other != path);
        let at = Path::new(OsStr::from_bytes(&path));
        let settled = self.drafts.rebase_directory(draft, at, tree, clean);
        settled.map_err(|e| on_host("rebase", at, e))?;
        if !clean && !path.is_empty() {
            unsettled.push(parent_of(&path));
        }
        unsettled.dedup();
        Ok(())
    }
}

/// Gives the draft's shared files to the store: the draft goes, so only their pack's name stays.
fn detach_packs(outcomes: DraftOutcomes) -> Result<()> {
    outcomes.each(&mut |line| match line {
        Line::File { shared: Some(pack), .. } => own_pack(&pack),
        _ => Ok(()),
    })
}

fn own_pack(pack: &Path) -> Result<()> {
    give_to_store(pack).map_err(|e| Error::io(format!("cannot take over {}", pack.display()), e))
}

fn parent_of(path: &[u8]) -> Vec<u8> {
    let slash = path.iter().rposition(|b| *b == b'/');
    path[..slash.unwrap_or(0)].to_vec()
}

/// Returns `version` with the aliases of the draft too, and its other properties where it has none.
fn with_said(version: NewVersion, said: &DraftProperties) -> NewVersion {
    let mut aliases = version.aliases.clone();
    let more = said.aliases.iter().filter(|alias| **alias != Alias::latest());
    aliases.extend(more.filter(|alias| !version.aliases.contains(alias)).cloned());
    NewVersion {
        artifact_type: version.artifact_type.or_else(|| said.artifact_type.clone()),
        aliases,
        description: version.description.or_else(|| said.description.clone()),
        metadata: version.metadata.or_else(|| said.metadata.clone()),
        ..version
    }
}

/// Returns the error of a commit that made no version.
pub(super) fn no_version() -> Error {
    Error::new(Kind::Unavailable, "the commit made no version")
}
