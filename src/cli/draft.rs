//! `commit`, `draft` and `restore`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, parse};
use super::output::{bytes, table};
use super::place::{Place, path_within};
use super::properties::Properties;
use super::{connect, exit};
use artifactfs::daemon::{drafts, read_drafts};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::model::difference::Difference;
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::reference::{ArtifactPath, Reference};
use artifactfs::ops::documents::name_in_json;
use artifactfs::ops::drafts::{CommitDraft, DraftAnswer, DraftCall, DraftHandler, DraftInfo};
use artifactfs::ops::repository::Repository;
use artifactfs::staging::BEING_WRITTEN;

/// The longest time that one call waits for writers.
const WAIT_STEP: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Commit {
    /// The draft: project/artifact
    draft: String,
    #[command(flatten)]
    properties: Properties,
    /// Refuse unless this is the newest version, such as v3
    #[arg(long, value_name = "VERSION")]
    expect: Option<String>,
    /// Wait for writers to close their files [default for SECONDS: a day]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          default_missing_value = "86400")]
    wait: Option<u64>,
    /// Refuse devices, sockets, FIFOs and set-id bits instead of leaving them out
    #[arg(long)]
    strict: bool,
    /// Keep symlinks that are absolute or lead out of the version instead of refusing them
    #[arg(long)]
    allow_external_symlinks: bool,
}

#[derive(Args)]
pub struct Restore {
    /// The path: project/artifact/path
    path: OsString,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Draft {
    #[command(subcommand)]
    verb: Option<DraftVerb>,
    /// The version to begin a draft from: project/artifact:alias
    reference: Option<String>,
}

#[derive(Subcommand)]
enum DraftVerb {
    /// List the drafts
    Ls,
    /// Discard a draft
    Discard {
        /// The draft: project/artifact
        draft: String,
    },
}

fn unexpected() -> Error {
    Error::new(Kind::Unsupported, "the daemon sent an unexpected reply")
        .hint("daemon and command are of different releases: unmount, and mount again")
}

/// Returns all drafts, and the recent failures with them.
pub fn list(repository: &Arc<Repository>) -> Result<(Vec<DraftInfo>, Vec<String>)> {
    match read_drafts(repository, || DraftCall::List)? {
        DraftAnswer::Drafts { drafts, troubles } => Ok((drafts, troubles)),
        _ => Err(unexpected()),
    }
}

/// Returns a draft as JSON.
pub fn draft_json(draft: &DraftInfo) -> serde_json::Value {
    if let Some(error) = &draft.unread {
        return json!({ "draft": draft.path.to_string(), "error": error });
    }
    json!({
        "draft": draft.path.to_string(),
        "base": draft.base.as_ref().map(ToString::to_string),
        "files": draft.files,
        "size_bytes": draft.size_bytes,
        "changed": draft.changed,
    })
}

/// Returns a draft as a row of a table.
pub fn draft_row(draft: &DraftInfo) -> Vec<String> {
    if let Some(error) = &draft.unread {
        return vec![draft.path.to_string(), error.clone()];
    }
    let base = draft.base.as_ref().map_or_else(String::new, |base| format!("from {base}"));
    vec![
        draft.path.to_string(),
        counted(draft.files, "file"),
        bytes(draft.size_bytes),
        format!("{} changed", draft.changed),
        base,
    ]
}

pub fn commit(context: &Context, verb: Commit) -> Result<u8> {
    let path: ArtifactPath = parse(&verb.draft)?;
    let expect = verb.expect.as_deref().map(parse).transpose()?;
    let version = verb.properties.new_version(path.clone(), context)?;
    let request = CommitDraft {
        version: NewVersion { expect, ..version },
        strict: verb.strict,
        external_symlinks: verb.allow_external_symlinks,
        ..CommitDraft::plain(path)
    };
    let repository = Arc::new(connect::open_repository(context)?);
    let service = drafts(repository)?;
    let answer = match verb.wait {
        Some(seconds) => commit_when_quiet(&*service, &request, Duration::from_secs(seconds))?,
        None => service.call(DraftCall::Commit(Box::new(request)))?,
    };
    let DraftAnswer::Committed { committed, warnings, stored_bytes, files_read } = answer else {
        return Err(unexpected());
    };
    for warning in &warnings {
        context.output.note(&format!("artifactfs: warning: {warning}"));
    }
    let reference = format!("{}:{}", committed.path, committed.number);
    let document = json!({
        "reference": reference,
        "new_version": committed.new,
        "stored_bytes": stored_bytes,
        "files_read": files_read,
        "warnings": warnings,
    });
    context.output.print(document, || {
        vec![match committed.new {
            true => format!("{reference}  {} new", bytes(stored_bytes)),
            false => format!("{reference}  has this content already: no new version"),
        }]
    });
    Ok(exit::DONE)
}

/// Repeats the commit while the draft is being written; each call waits at most [`WAIT_STEP`].
fn commit_when_quiet(
    service: &dyn DraftHandler,
    request: &CommitDraft,
    wait: Duration,
) -> Result<DraftAnswer> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).min(WAIT_STEP);
        let wait_milliseconds = u64::try_from(left.as_millis()).ok();
        let request = CommitDraft { wait_milliseconds, ..request.clone() };
        let call = DraftCall::Commit(Box::new(request));
        match service.call(call) {
            Err(e) if e.kind() == Kind::Conflict && is_busy(&e) && Instant::now() < deadline => {}
            answer => return answer,
        }
    }
}

/// Returns whether the conflict can end because a process closes a file.
fn is_busy(error: &Error) -> bool {
    error.message().contains(BEING_WRITTEN)
}

pub fn restore(context: &Context, verb: Restore) -> Result<u8> {
    let Place { project, artifact: Some(artifact), path: Some(path) } = Place::of(&verb.path)?
    else {
        return Err(Error::new(Kind::Usage, format!("{:?} is not a path in a draft", verb.path))
            .hint("write it as project/artifact/path"));
    };
    let draft: ArtifactPath = parse(&format!("{project}/{artifact}"))?;
    let names = path_within(path)?;
    let repository = Arc::new(connect::open_repository(context)?);
    drafts(repository)?.call(DraftCall::Restore(draft, names))?;
    let mut document = json!({});
    name_in_json(&mut document, "restored", verb.path.as_bytes());
    context.output.print(document, Vec::new);
    Ok(exit::DONE)
}

/// Returns differences between a draft and its base, and their full number, which may be larger.
pub fn differences(context: &Context, draft: &str) -> Result<(Vec<Difference>, u64)> {
    let draft: ArtifactPath = parse(draft)?;
    let repository = Arc::new(connect::open_repository(context)?);
    match read_drafts(&repository, || DraftCall::Diff(draft.clone()))? {
        DraftAnswer::Differences { differences, count } => Ok((differences, count)),
        _ => Err(unexpected()),
    }
}

pub fn draft(context: &Context, verb: Draft) -> Result<u8> {
    match (verb.verb, verb.reference) {
        (Some(DraftVerb::Ls), _) => {
            let repository = Arc::new(connect::open_repository(context)?);
            let (drafts, _) = list(&repository)?;
            context.output.print(drafts.iter().map(draft_json).collect(), || {
                table(&drafts.iter().map(draft_row).collect::<Vec<_>>())
            });
        }
        (Some(DraftVerb::Discard { draft }), _) => {
            let path: ArtifactPath = parse(&draft)?;
            let repository = Arc::new(connect::open_repository(context)?);
            drafts(repository)?.call(DraftCall::Discard(path.clone()))?;
            context.output.print(json!({ "discarded": path.to_string() }), Vec::new);
        }
        (None, Some(reference)) => {
            let reference: Reference = parse(&reference)?;
            let repository = Arc::new(connect::open_repository(context)?);
            let reference =
                super::used::used(context, &*repository.registry, reference)?.reference();
            let DraftAnswer::Begun(path) = drafts(repository)?.call(DraftCall::Begin(reference))?
            else {
                return Err(unexpected());
            };
            let path = path.to_string();
            context.output.print(json!({ "draft": path }), || vec![path]);
        }
        (None, None) => {
            return Err(Error::new(Kind::Usage, "draft needs a reference, ls or discard")
                .hint("`artifactfs draft project/artifact:alias` begins a draft"));
        }
    }
    Ok(exit::DONE)
}
