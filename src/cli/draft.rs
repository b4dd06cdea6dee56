//! `commit` and `draft`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{bytes, table};
use super::properties::Properties;
use super::{Context, connect, exit, parse};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::model::reference::{ArtifactPath, Reference};
use crate::ops::drafts::{
    CommitDraft, DRAFTS_PATH, DraftAnswer, DraftCall, DraftDesk, DraftInfo, DraftService,
};
use crate::ops::repository::{Layout, Repository};
use crate::staging::Drafts;

/// How long a command waits for another one that has the drafts open.
const DRAFTS_DEADLINE: Duration = Duration::from_secs(30);
/// How long between tries.
const RETRY_EVERY: Duration = Duration::from_millis(20);

#[derive(Args)]
pub struct Commit {
    /// The draft: project/artifact
    draft: String,
    #[command(flatten)]
    properties: Properties,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Draft {
    #[command(subcommand)]
    verb: Option<DraftVerb>,
    /// Begin a draft from this version: project/artifact:alias
    reference: Option<String>,
}

#[derive(Subcommand)]
enum DraftVerb {
    /// List the drafts
    Ls,
    /// Throw a draft away
    Discard {
        /// project/artifact
        draft: String,
    },
}

/// The drafts: through the daemon that has them open, or by opening them.
pub fn desk(repository: Arc<Repository>) -> Result<Box<dyn DraftService>> {
    if let Ok(client) = Client::connect(&repository.layout.staging_socket()) {
        return Ok(Box::new(RemoteDesk(client)));
    }
    let drafts = match open_drafts(&repository.layout) {
        // A daemon has just opened them.
        Err(e) if e.kind() == Kind::Conflict => {
            let client = Client::connect(&repository.layout.staging_socket());
            return Ok(Box::new(RemoteDesk(client.map_err(|_| e)?)));
        }
        drafts => drafts?,
    };
    Ok(Box::new(DraftDesk::new(repository, Arc::new(drafts))))
}

/// Opens the drafts; waits while another command has them open.
///
/// # Errors
/// [`Kind::Conflict`] when a daemon has them open, or a command that takes too long.
pub fn open_drafts(layout: &Layout) -> Result<Drafts> {
    let deadline = Instant::now() + DRAFTS_DEADLINE;
    loop {
        match Drafts::open(&layout.drafts()) {
            Err(e) if e.kind() == Kind::Conflict && Instant::now() < deadline => {
                if Client::connect(&layout.staging_socket()).is_ok() {
                    return Err(e);
                }
                std::thread::sleep(RETRY_EVERY);
            }
            drafts => return drafts,
        }
    }
}

struct RemoteDesk(Client);

impl DraftService for RemoteDesk {
    fn call(&self, call: DraftCall) -> Result<DraftAnswer> {
        let body = serde_json::to_vec(&call)
            .map_err(|e| Error::new(Kind::Usage, "a call cannot be written").because(e))?;
        let answer = self.0.post(DRAFTS_PATH, body)?;
        serde_json::from_slice(&answer).map_err(|e| {
            Error::new(Kind::Unsupported, "the daemon's answer cannot be read")
                .because(e)
                .hint("daemon and command are of different releases: unmount, and mount again")
        })
    }
}

fn unexpected() -> Error {
    Error::new(Kind::Unsupported, "the daemon answered something else")
        .hint("daemon and command are of different releases: unmount, and mount again")
}

/// All drafts.
pub fn list(repository: Arc<Repository>) -> Result<Vec<DraftInfo>> {
    match desk(repository)?.call(DraftCall::List)? {
        DraftAnswer::Drafts(drafts) => Ok(drafts),
        _ => Err(unexpected()),
    }
}

/// A draft as JSON.
pub fn draft_json(draft: &DraftInfo) -> serde_json::Value {
    json!({
        "draft": draft.path.to_string(),
        "base": draft.base.as_ref().map(ToString::to_string),
        "files": draft.files,
        "size_bytes": draft.size_bytes,
        "changed": draft.changed,
    })
}

/// A draft as a row of a table.
pub fn draft_row(draft: &DraftInfo) -> Vec<String> {
    let base = draft.base.as_ref().map_or_else(String::new, |base| format!("from {base}"));
    vec![
        draft.path.to_string(),
        format!("{} files", draft.files),
        bytes(draft.size_bytes),
        format!("{} changed", draft.changed),
        base,
    ]
}

pub fn commit(context: &Context, verb: Commit) -> Result<u8> {
    let path: ArtifactPath = parse(&verb.draft)?;
    let said = verb.properties.parse()?;
    let request = CommitDraft {
        draft: path.clone(),
        path,
        artifact_type: said.artifact_type,
        aliases: said.aliases,
        description: said.description,
        metadata: said.metadata,
    };
    let repository = Arc::new(connect::open_repository(&context.repo)?);
    let answer = desk(repository)?.call(DraftCall::Commit(request))?;
    let DraftAnswer::Committed { committed, warnings, stored_bytes } = answer else {
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

pub fn draft(context: &Context, verb: Draft) -> Result<u8> {
    match (verb.verb, verb.reference) {
        (Some(DraftVerb::Ls), _) => {
            let repository = Arc::new(connect::open_repository(&context.repo)?);
            let drafts = list(repository)?;
            context.output.print(drafts.iter().map(draft_json).collect(), || {
                table(&drafts.iter().map(draft_row).collect::<Vec<_>>())
            });
        }
        (Some(DraftVerb::Discard { draft }), _) => {
            let path: ArtifactPath = parse(&draft)?;
            let repository = Arc::new(connect::open_repository(&context.repo)?);
            desk(repository)?.call(DraftCall::Discard(path.clone()))?;
            context.output.print(json!({ "discarded": path.to_string() }), Vec::new);
        }
        (None, Some(reference)) => {
            let reference: Reference = parse(&reference)?;
            let repository = Arc::new(connect::open_repository(&context.repo)?);
            let DraftAnswer::Begun(path) = desk(repository)?.call(DraftCall::Begin(reference))?
            else {
                return Err(unexpected());
            };
            let path = path.to_string();
            context.output.print(json!({ "draft": path }), || vec![path]);
        }
        (None, None) => {
            return Err(Error::new(Kind::Usage, "draft wants a reference, ls or discard")
                .hint("artifactfs draft project/artifact:alias"));
        }
    }
    Ok(exit::DONE)
}
