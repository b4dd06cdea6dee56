//! `prune`.

use clap::Args;
use serde_json::json;

use super::context::{Context, parse};
use super::delete::When;
use super::output::{bytes, table};
use super::select::parse_scope;
use super::{connect, exit};
use artifactfs::error::Result;
use artifactfs::model::counted::counted;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::prune::{self, PruneRequest};

#[derive(Args)]
pub struct Prune {
    /// The project or artifact: PROJECT or PROJECT/ARTIFACT
    what: String,
    /// Only artifacts of this type
    #[arg(short = 't', long = "type")]
    artifact_type: Option<String>,
    /// Keep this many of the newest versions of each artifact
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_last: usize,
    /// Delete versions past their time to live, even with aliases that are not protected
    #[arg(long)]
    expired: bool,
    /// Delete only versions older than this: 30d, 12h, 2 weeks
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,
    /// Trust the clock even if it is far ahead of the last change of the repository
    #[arg(long, requires = "expired")]
    trust_clock: bool,
    /// Only list the versions that would be deleted, and the bytes that would be freed
    #[arg(long)]
    dry_run: bool,
    /// The time to free dead bytes between live ones; `later` leaves them to `gc`
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    purge: When,
}

pub fn prune(context: &Context, verb: Prune) -> Result<u8> {
    let (project, artifact) = parse_scope(&verb.what)?;
    let repository = connect::open_repository(context)?;
    let request = PruneRequest {
        project,
        artifact,
        artifact_type: verb.artifact_type.as_deref().map(parse).transpose()?,
        keep_last: verb.keep_last,
        before: verb
            .older_than
            .as_deref()
            .map(|text| prune::moment_before(&repository, text))
            .transpose()?,
        expired: verb.expired,
    };
    if verb.expired && !verb.dry_run {
        prune::check_clock(&repository, verb.trust_clock)?;
    }
    let doomed = prune::plan(&repository, &request)?;
    let (gone, freed) = if verb.dry_run {
        let bytes = prune::bytes_of(&repository, &doomed)?;
        (doomed, bytes)
    } else {
        prune::prune(&repository, doomed, request.expired, verb.purge.into())?
    };
    print_deleted(context, &gone, freed, verb.dry_run);
    Ok(exit::DONE)
}

fn print_deleted(context: &Context, versions: &[VersionInfo], freed: u64, dry_run: bool) {
    let references: Vec<_> = versions.iter().map(|v| v.reference().to_string()).collect();
    let document = json!({ "versions": references, "freed_bytes": freed, "dry_run": dry_run });
    context.output.print(document, || {
        let row = |v: &VersionInfo| vec![v.reference().to_string(), bytes(v.totals.size_bytes)];
        table(&versions.iter().map(row).collect::<Vec<_>>())
    });
    let would = if dry_run { "would be " } else { "" };
    let (versions, freed) = (counted(versions.len(), "version"), bytes(freed));
    context.output.note(&format!("{versions} {would}deleted, {freed} {would}freed"));
}
