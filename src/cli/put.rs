//! `put`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::context::{Context, parse, parse_all};
use super::output::{Bar, bytes};
use super::properties::Properties;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::model::new_version::NewVersion;
use artifactfs::ops::put::Upsert;
use artifactfs::ops::put::{Filters, MAX_OBJECTS, PutReport, PutRequest, References};

#[derive(Args)]
pub struct Put {
    /// The file or directory
    #[arg(required_unless_present = "reference")]
    path: Option<PathBuf>,
    /// The artifact to add the version to
    #[arg(short, long, value_name = "PROJECT/ARTIFACT")]
    name: String,
    #[command(flatten)]
    properties: Properties,
    /// Include only files that match; may be given several times
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Exclude what matches; may be given several times
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Refuse symlinks that lead out of PATH instead of following them
    #[arg(long)]
    no_follow: bool,
    /// Record a file, or all files below a prefix, without copying them: file:///DIR, s3://, gs://,
    /// az://, https://; may be given several times
    #[arg(long, value_name = "[NAME=]URL")]
    reference: Vec<String>,
    /// The maximum number of objects that references may name
    #[arg(long, value_name = "N", default_value_t = MAX_OBJECTS, requires = "reference")]
    max_objects: u64,
    /// Record only URL and length of external files, and no checksum or ETag
    #[arg(long, requires = "reference")]
    no_checksum: bool,
    /// Read every file, even if size, times and inode have not changed since the last put
    #[arg(long)]
    reread: bool,
    /// Only print what would be stored
    #[arg(long)]
    dry_run: bool,
    /// Add PATH as a part to a group, which `finish` merges into one version
    #[arg(long, requires = "group")]
    upsert: bool,
    /// The group; the first put begins it
    #[arg(long, requires = "upsert")]
    group: Option<String>,
    /// Refuse a path that the group already has with other content
    #[arg(long, requires = "upsert")]
    no_overwrite: bool,
}

/// Returns the group that a put adds to, if any.
///
/// # Errors
/// [`Kind::Usage`] if properties are given that only a version can have.
fn upsert(verb: &Put, said: &NewVersion) -> Result<Option<Upsert>> {
    let Some(group) = &verb.group else { return Ok(None) };
    let named = !said.aliases.is_empty() || !said.tags.is_empty() || said.ttl.is_some();
    if named || said.description.is_some() || said.metadata.is_some() {
        let what = "put --upsert creates no version, so it takes no alias, description, \
                    metadata, tag or time to live";
        return Err(Error::new(Kind::Usage, what).hint("give these to `artifactfs finish`"));
    }
    Ok(Some(Upsert { group: parse(group)?, overwrite: !verb.no_overwrite }))
}

pub fn put(context: &Context, verb: Put) -> Result<u8> {
    let path: artifactfs::model::reference::ArtifactPath = match verb.name.split_once([':', '@']) {
        Some((_, selector)) => {
            let what = format!("put creates a new version, but {:?} names one", verb.name);
            return Err(Error::new(Kind::BadName, what)
                .hint(format!("leave out \":{selector}\"; -a gives the new version an alias")));
        }
        None => parse(&verb.name)?,
    };
    let version = verb.properties.new_version(path, context)?;
    let upsert = upsert(&verb, &version)?;
    let references = References {
        wanted: parse_all(&verb.reference)?,
        checksum: !verb.no_checksum,
        max_objects: verb.max_objects,
    };
    let request = PutRequest {
        source: verb.path,
        references,
        version,
        filters: Filters::new(&verb.include, &verb.exclude)?,
        follow: !verb.no_follow,
        dry_run: verb.dry_run,
        reread: verb.reread,
        upsert,
    };
    let repository = connect::open_repository(context)?;
    let bar = Arc::new(Bar::new("putting", None, context.output));
    let report = artifactfs::ops::put::put(&repository, &request, bar)?;
    print_report(context, &request, &report);
    Ok(exit::DONE)
}

fn print_report(context: &Context, request: &PutRequest, report: &PutReport) {
    for warning in &report.warnings {
        context.output.note(&format!("artifactfs: warning: {warning}"));
    }
    if report.followed > 0 {
        let symlinks = counted(report.followed, "symlink");
        context.output.note(&format!("artifactfs: followed {symlinks} out of the source"));
    }
    let group = request.upsert.as_ref().map(|upsert| &upsert.group);
    let generation = report.part.as_ref().map(|part| part.generation);
    let begins_after = report.part.as_ref().and_then(|part| part.begins_after);
    if let (Some(group), Some(sealed)) = (group, begins_after) {
        let (path, sealed) = (&request.version.path, sealed.to_string());
        let what = format!("group {group} was sealed as {path}:{sealed}");
        context.output.note(&format!("artifactfs: {what}; this begins its next version"));
    }
    let reference = report.committed.as_ref().map(|c| format!("{}:{}", c.path, c.number));
    let new = report.committed.as_ref().map(|c| c.new);
    let document = json!({
        "reference": reference,
        "new_version": new,
        "dry_run": request.dry_run,
        "digest": report.root.to_string(),
        "files": report.totals.files,
        "directories": report.totals.directories,
        "symlinks": report.totals.symlinks,
        "size_bytes": report.totals.size_bytes,
        "external": report.totals.external,
        "stored_bytes": report.stored_bytes,
        "files_read": report.files_read,
        "followed_symlinks": report.followed,
        "warnings": report.warnings,
        "group": group,
        "generation": generation,
        "begins_after": begins_after.map(|version| version.to_string()),
    });
    context.output.print(document, || {
        let size = bytes(report.totals.size_bytes);
        let stored = bytes(report.stored_bytes);
        let files = counted(report.totals.files, "file");
        vec![match (reference, new) {
            (Some(reference), Some(true)) => {
                format!("{reference}  {files}, {size}, {stored} new")
            }
            (Some(reference), _) => {
                format!("{reference}  has this content already: no new version")
            }
            (None, _) if generation.is_some() => {
                let group = group.map_or("", |group| group.as_str());
                format!("group {group} of {}  {files}, {size}, {stored} new", request.version.path)
            }
            (None, _) => format!("{files}, {size}; {stored} would be stored"),
        }]
    });
}
