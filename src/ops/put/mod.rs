//! Putting: a file or directory becomes the next version of an artifact.
//!
//! ```text
//! scan (one thread, in path order)  →  hash (a thread per CPU)  →  assemble (in path order again)
//!   walks, stats, cuts big files        reads small files, cuts,     finds missing objects, fills
//!   skips unchanged files               hashes                       packs, builds trees
//!                                                                 →  seal (one thread): fsync,
//!                                                                    index, register
//! ```
//! Memory is bounded by the units in flight. The version appears in one transaction at the end.

mod build;
mod commit;
pub(super) mod external_sort;
mod file;
mod index;
mod insert;
mod outcome;
mod reference;
mod report;
mod request;
mod source;
mod stamp;
mod walk;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::groups;
use super::lease::Lease;
use super::repository::Repository;
use super::with_lease::with_lease;
use crate::error::{Kind, Result};
use crate::model::host::file_time;
use crate::model::name::Alias;
use crate::model::new_version::NewVersion;
use crate::model::reference::Selector;
use crate::model::zone::Zone;
use build::{Built, Mode};
use commit::commit;
pub(super) use commit::merge;
use index::{NewIndex, OldIndex};
pub use insert::insert;
use outcome::Outcomes;
pub(crate) use outcome::{DraftOutcomes, Line};
pub use reference::{MAX_OBJECTS, Reference, References};
pub use report::{Progress, PutReport, Silent, WARNINGS_MAX};
pub use request::{PutRequest, Upsert};
pub use source::Filters;
use walk::Walk;
pub(crate) use walk::draft::DraftSource;
pub use walk::insert::Insert;
use walk::referred::Referred;

/// Puts the source and the references of `request`.
///
/// # Errors
/// [`Kind::NotFound`], `Denied`, `Conflict` for a file that keeps changing, `Full`, … Nothing is
/// visible then. Packs that were written are freed, or kept for a day if the next try may use them.
/// They are kept for [`Kind::Unavailable`], `TimedOut`, `Stale`, and `Full` of a remote store.
pub fn put(
    repository: &Repository,
    request: &PutRequest,
    progress: Arc<dyn Progress>,
) -> Result<PutReport> {
    let code = is_code(repository, request)?;
    let open = |path: &PathBuf| -> Result<_> {
        Ok(source::Source::open(path, &request.filters, request.follow)?.with_code(code))
    };
    let source = request.source.as_ref().map(open).transpose()?;
    let identity = identity(source.as_ref(), &request.references);
    let project = &request.version.path.project;
    if request.dry_run {
        // A project without a zone has no objects, and nothing is in the last zone.
        let zone = repository.registry.project_access(project.clone())?.zone.unwrap_or(Zone::LAST);
        let index = index_path(repository, &identity, zone);
        let absent = repository.registry.absent()?;
        let (walk, warnings) = walk_of(repository, request, source.as_ref(), &index, absent)?;
        let mode = Mode::DryRun(zone);
        let built = build::run(repository, walk, mode, Outcomes::None, progress)?;
        return Ok(warned(built.report, warnings));
    }
    let shown = identity.to_string_lossy().replace('\0', " ");
    let registry = &repository.registry;
    let path = &request.version.path;
    let purpose = match &request.upsert {
        None => format!("put {path} {shown}"),
        Some(Upsert { group, .. }) => {
            // An error here saves storing everything first.
            registry.group(path.clone(), group.clone(), request.version.artifact_type.clone())?;
            format!("put {path} {shown} for group {group}")
        }
    };
    with_lease(repository, project, purpose, |lease| {
        let index = index_path(repository, &identity, lease.id().zone());
        put_under(repository, request, source.as_ref(), &index, lease, progress)
    })
}

/// The type of artifacts that are code.
pub const CODE_TYPE: &str = "code";

/// Returns whether the put is code: by its type, else by that of the artifact.
fn is_code(repository: &Repository, request: &PutRequest) -> Result<bool> {
    if let Some(artifact_type) = &request.version.artifact_type {
        return Ok(artifact_type.as_str() == CODE_TYPE);
    }
    let selector = Selector::Alias(Alias::latest());
    let newest =
        crate::model::reference::Reference { path: request.version.path.clone(), selector };
    match repository.registry.lookup(newest) {
        Err(e) if e.kind() == Kind::NotFound => Ok(false),
        found => Ok(found?.artifact_type.as_str() == CODE_TYPE),
    }
}

fn put_under(
    repository: &Repository,
    request: &PutRequest,
    source: Option<&source::Source>,
    index: &Path,
    lease: &Lease,
    progress: Arc<dyn Progress>,
) -> Result<PutReport> {
    let build = || -> Result<Built> {
        let absent = lease.absent();
        let (walk, warnings) = walk_of(repository, request, source, index, absent)?;
        let outcomes = Outcomes::Index(NewIndex::create(index)?, file_time());
        let built =
            build::run(repository, walk, Mode::Store(lease), outcomes, Arc::clone(&progress))?;
        Ok(Built { report: warned(built.report, warnings), ..built })
    };
    let built = match build() {
        // The index named content that was deleted since: every file is read.
        Err(e) if e.kind() == Kind::Stale => {
            tracing::info!("reading every file again: {e}");
            index::forget(index);
            build()?
        }
        built => built?,
    };
    let Built { mut report, outcomes } = built;
    if let Some(upsert) = &request.upsert {
        report.part = Some(groups::add_part(repository, lease, request, upsert, &report)?);
    } else {
        report.committed = Some(commit(repository, lease, request.version.clone(), &report)?);
    }
    if let Outcomes::Index(index, _) = outcomes {
        index.keep();
    }
    Ok(report)
}

/// Puts a draft, with temporary files in `work`. Calls `after` with the outcome of each file once
/// the version exists, while everything in it is still pinned.
///
/// # Errors
/// As [`put`], and [`Kind::Conflict`] for anything no version can hold, if the draft is strict.
pub(crate) fn put_draft(
    repository: &Repository,
    mut draft: DraftSource<'_>,
    version: NewVersion,
    work: &Path,
    after: impl FnOnce(&PutReport, DraftOutcomes) -> Result<()>,
) -> Result<PutReport> {
    let purpose = format!("commit {} {}", version.path, draft.root.display());
    let project = version.path.project.clone();
    with_lease(repository, &project, purpose, |lease| {
        let build = |draft: &DraftSource<'_>| {
            let outcomes = Outcomes::Draft(DraftOutcomes::create(work)?);
            let walk = Walk::Draft(draft);
            build::run(repository, walk, Mode::Store(lease), outcomes, Arc::new(Silent))
        };
        let built = match build(&draft) {
            // A file changed after it was prehashed. The second try does without: it might get the
            // same guess again.
            Err(e) if e.kind() == Kind::Stale => {
                tracing::debug!("committing again: {e}");
                draft.prehashed = &|_| Vec::new();
                build(&draft)?
            }
            built => built?,
        };
        let Built { mut report, outcomes } = built;
        report.committed = Some(commit(repository, lease, version, &report)?);
        if let Outcomes::Draft(outcomes) = outcomes {
            after(&report, outcomes)?;
        }
        Ok(report)
    })
}

/// Returns the walk of a put: the source, and the files that its references name now. Returns
/// warnings about files that references leave out, too.
fn walk_of<'a>(
    repository: &Repository,
    request: &PutRequest,
    source: Option<&'a source::Source>,
    index: &Path,
    absent: u64,
) -> Result<(Walk<'a>, Vec<String>)> {
    let references = &request.references;
    let (mut referred, mut warnings) = (None, Vec::new());
    if !references.wanted.is_empty() {
        let (externals, folder) = (repository.store.externals(), repository.layout.puts());
        let (sorted, left_out) = references.gather(externals, &request.filters, &folder)?;
        warnings = left_out;
        referred = Some(Referred::new(sorted, references.checksum));
    }
    // While an object is absent every file is read: an unchanged one may be the good copy of it.
    let reads_all = request.reread || absent > 0;
    let old = if reads_all { OldIndex::empty() } else { OldIndex::open(index) };
    Ok((Walk::Source(source, referred, Box::new(old)), warnings))
}

fn warned(mut report: PutReport, warnings: Vec<String>) -> PutReport {
    report.warnings.extend(warnings);
    report.warnings.truncate(WARNINGS_MAX);
    report
}

/// Returns a text that differs for each source with its references.
fn identity(source: Option<&source::Source>, references: &References) -> OsString {
    let mut identity = source.map_or_else(OsString::new, |source| source.root().into());
    identity.push(references.identity());
    identity
}

/// Returns the path of the put index of a source. Each zone has its own, because digests of one
/// stand for nothing in another.
fn index_path(repository: &Repository, identity: &OsString, zone: Zone) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let mut hasher = blake3::Hasher::new();
    hasher.update(identity.as_bytes());
    if zone != Zone::WHOLE {
        hasher.update(&zone.to_bytes());
    }
    let name = hasher.finalize().to_hex();
    repository.layout.puts().join(&name.as_str()[..32])
}
