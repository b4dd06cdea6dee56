//! Drafts: what is written and not yet committed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::get;
use super::put::{self, Filters, PutReport, PutRequest, Silent};
use super::repository::Repository;
use crate::content::directory::each_entry;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::{Alias, ArtifactType};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::tree::Target;
use crate::model::version::Metadata;
use crate::registry::Committed;
use crate::staging::{Caller, DraftRecord, Drafts};

/// How long a commit waits for files that are open for writing to be closed: the kernel tells of a
/// close(2) a little after it has returned.
const WRITERS_WAIT: Duration = Duration::from_secs(2);

/// The path of draft calls.
pub const DRAFTS_PATH: &str = "/v1/drafts";

/// A commit of a draft.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitDraft {
    /// The draft.
    pub draft: ArtifactPath,
    /// The artifact it becomes a version of.
    pub path: ArtifactPath,
    /// Its type, when the artifact is new or to be checked.
    pub artifact_type: Option<ArtifactType>,
    /// Aliases beside `latest`.
    pub aliases: Vec<Alias>,
    /// What people say about it.
    pub description: Option<String>,
    /// What programs say about it.
    pub metadata: Option<Metadata>,
}

/// What can be asked of the process that has the drafts open.
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftCall {
    /// All drafts.
    List,
    /// Commits one.
    Commit(CommitDraft),
    /// Begins one from a version.
    Begin(Reference),
    /// Throws one away.
    Discard(ArtifactPath),
}

/// A draft in a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DraftInfo {
    /// Its artifact.
    pub path: ArtifactPath,
    /// The version it was begun from or last committed as.
    pub base: Option<Reference>,
    /// Files in it.
    pub files: u64,
    /// Bytes of these.
    pub size_bytes: u64,
    /// Paths that differ from the base.
    pub changed: u64,
}

/// The answer to a [`DraftCall`].
#[derive(Debug, Serialize, Deserialize)]
pub enum DraftAnswer {
    /// To `List`.
    Drafts(Vec<DraftInfo>),
    /// To `Commit`.
    Committed {
        /// What the commit did.
        committed: Committed,
        /// What was left out.
        warnings: Vec<String>,
        /// Bytes that were stored.
        stored_bytes: u64,
    },
    /// To `Begin`: the draft.
    Begun(ArtifactPath),
    /// To `Discard`.
    Done,
}

/// Whoever has the drafts open.
pub trait DraftService: Send + Sync {
    /// Answers a call.
    ///
    /// # Errors
    /// Those of the verb.
    fn call(&self, call: DraftCall) -> Result<DraftAnswer>;
}

/// The drafts of a repository, open in this process.
pub struct DraftDesk {
    repository: Arc<Repository>,
    drafts: Arc<Drafts>,
}

impl DraftDesk {
    /// A desk for these drafts.
    pub fn new(repository: Arc<Repository>, drafts: Arc<Drafts>) -> Self {
        Self { repository, drafts }
    }

    /// The drafts.
    pub fn drafts(&self) -> &Arc<Drafts> {
        &self.drafts
    }

    /// Commits a draft; with `remove`, it is gone afterwards. What it did, and what was left out.
    ///
    /// # Errors
    /// [`Kind::Conflict`] while somebody writes it, and as [`put::put`]; the draft is as it was.
    pub fn commit(&self, request: &CommitDraft, remove: bool) -> Result<PutReport> {
        let draft = &request.draft;
        let frozen = self.drafts.freeze(draft, WRITERS_WAIT)?;
        let put = PutRequest {
            source: self.drafts.tree_path(draft),
            path: request.path.clone(),
            artifact_type: request.artifact_type.clone(),
            aliases: request.aliases.clone(),
            description: request.description.clone(),
            metadata: request.metadata.clone(),
            filters: Filters::default(),
            follow: false,
            dry_run: false,
        };
        let report = put::put(&self.repository, &put, Arc::new(Silent))?;
        if remove {
            self.drafts.remove(draft, frozen)?;
            return Ok(report);
        }
        if let Some(committed) = &report.committed {
            let selector = Selector::Version(committed.number);
            let base = Reference { path: committed.path.clone(), selector };
            self.set_base(draft, base)?;
        }
        Ok(report)
    }

    fn set_base(&self, draft: &ArtifactPath, base: Reference) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos().into());
        self.drafts.set_record(draft, &DraftRecord { base: Some(base), since })
    }

    /// Begins a draft from a version: its files are written out.
    fn begin(&self, reference: &Reference, caller: Caller) -> Result<ArtifactPath> {
        let info = self.repository.registry.lookup(reference.clone())?;
        let draft = info.path.clone();
        if self.drafts.exists(&draft) {
            return Err(Error::new(Kind::Conflict, format!("there is a draft {draft} already"))
                .hint(format!("commit it, or `artifactfs draft discard {draft}`")));
        }
        let what = || format!("cannot begin a draft {draft}");
        self.drafts.create(&draft, caller, 0o755).map_err(|e| Error::io(what(), e))?;
        let frozen = self.drafts.freeze(&draft, WRITERS_WAIT)?;
        let tree = self.drafts.tree_path(&draft);
        let filters = Filters::default();
        match get::get(&self.repository, info.root, &tree, &filters, &Silent) {
            Ok(_) => self.set_base(&draft, info.reference())?,
            Err(e) => {
                self.drafts.remove(&draft, frozen)?;
                return Err(e);
            }
        }
        Ok(draft)
    }

    fn info(&self, draft: ArtifactPath) -> Result<DraftInfo> {
        let stats = self.drafts.stats(&draft)?;
        let record = self.drafts.record(&draft);
        let base = match &record.base {
            Some(base) => match self.repository.registry.lookup(base.clone()) {
                Err(e) if e.kind() == Kind::NotFound => None,
                info => Some(info?.root),
            },
            None => None,
        };
        let tree = self.drafts.tree_path(&draft);
        let changed = count_changes(&self.repository, &tree, base, record.since)?;
        Ok(DraftInfo {
            path: draft,
            base: record.base,
            files: stats.files,
            size_bytes: stats.size_bytes,
            changed,
        })
    }
}

impl DraftService for DraftDesk {
    fn call(&self, call: DraftCall) -> Result<DraftAnswer> {
        match call {
            DraftCall::List => {
                let drafts = self.drafts.list()?.into_iter().map(|draft| self.info(draft));
                Ok(DraftAnswer::Drafts(drafts.collect::<Result<_>>()?))
            }
            DraftCall::Commit(request) => {
                let report = self.commit(&request, false)?;
                let committed = report
                    .committed
                    .ok_or_else(|| Error::new(Kind::Unavailable, "the commit made no version"))?;
                let PutReport { warnings, stored_bytes, .. } = report;
                Ok(DraftAnswer::Committed { committed, warnings, stored_bytes })
            }
            DraftCall::Begin(reference) => {
                let process = std::process::id();
                let caller = Caller {
                    uid: rustix::process::geteuid().as_raw(),
                    gid: rustix::process::getegid().as_raw(),
                    pid: process,
                };
                Ok(DraftAnswer::Begun(self.begin(&reference, caller)?))
            }
            DraftCall::Discard(draft) => {
                let frozen = self.drafts.freeze(&draft, WRITERS_WAIT)?;
                self.drafts.remove(&draft, frozen)?;
                Ok(DraftAnswer::Done)
            }
        }
    }
}

/// Paths in `tree` that may differ from the version `base`: those that are not in it, or have
/// another kind, length or executable bit, or were touched since; and those that are gone.
fn count_changes(
    repository: &Repository,
    tree: &Path,
    base: Option<Digest>,
    since: (i64, i64),
) -> Result<u64> {
    let mut known = BTreeMap::new();
    if let Some(base) = base {
        each_entry(&repository.reader, base, &mut |entry| {
            known.insert(entry.name.clone(), entry.target.clone());
            Ok(())
        })?;
    }
    let mut changed = 0;
    for entry in fs::read_dir(tree).at("list", tree)? {
        let entry = entry.at("list", tree)?;
        let path = entry.path();
        // Removed while it was counted.
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let name = crate::model::name::EntryName::try_from(&*entry.file_name())?;
        let before = known.remove(&name);
        if meta.is_dir() {
            let below = match before {
                Some(Target::Directory(digest)) => Some(digest),
                _ => None,
            };
            changed += u64::from(below.is_none());
            changed += count_changes(repository, &path, below, since)?;
            continue;
        }
        let touched = (meta.ctime(), meta.ctime_nsec()) > since;
        let same = match before {
            Some(Target::File { content, executable }) => {
                meta.is_file()
                    && meta.len() == content.size_bytes()
                    && (meta.mode() & 0o111 != 0) == executable
            }
            Some(Target::Symlink(_)) => meta.is_symlink(),
            _ => false,
        };
        changed += u64::from(!same || touched);
    }
    Ok(changed + known.len() as u64)
}
