//! `finish` and `group`: one version from several writers.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::{Context, parse};
use super::output::{age, bytes, table};
use super::properties::Properties;
use super::{connect, exit};
use artifactfs::error::Result;
use artifactfs::model::counted::counted;
use artifactfs::model::name::GroupName;
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::reference::ArtifactPath;
use artifactfs::ops::groups::{self, FinishRequest};
use artifactfs::registry::GroupInfo;

#[derive(Args)]
pub struct Finish {
    /// The artifact
    #[arg(short, long, value_name = "PROJECT/ARTIFACT")]
    name: String,
    /// The group
    #[arg(long)]
    group: String,
    #[command(flatten)]
    properties: Properties,
    /// Refuse unless this is the newest version, such as v3
    #[arg(long, value_name = "VERSION")]
    expect: Option<String>,
}

#[derive(Subcommand)]
pub enum GroupVerb {
    /// List open groups
    Ls {
        /// The artifact: project/artifact [default: all]
        artifact: Option<String>,
    },
    /// Discard the parts of a group and free their bytes
    Discard {
        /// The artifact
        #[arg(short, long, value_name = "PROJECT/ARTIFACT")]
        name: String,
        /// The group
        #[arg(long)]
        group: String,
    },
}

pub fn finish(context: &Context, verb: Finish) -> Result<u8> {
    let expect = verb.expect.as_deref().map(parse).transpose()?;
    let version = verb.properties.new_version(parse(&verb.name)?, context)?;
    let version = NewVersion { expect, ..version };
    let request = FinishRequest { group: parse(&verb.group)?, version };
    let repository = connect::open_repository(context)?;
    let done = groups::finish(&repository, &request)?;
    let reference = format!("{}:{}", done.committed.path, done.committed.number);
    let document = json!({
        "reference": reference,
        "new_version": done.committed.new,
        "group": request.group,
        "parts": done.parts,
        "digest": done.root.to_string(),
        "files": done.totals.files,
        "directories": done.totals.directories,
        "symlinks": done.totals.symlinks,
        "size_bytes": done.totals.size_bytes,
    });
    context.output.print(document, || {
        let (files, size) = (counted(done.totals.files, "file"), bytes(done.totals.size_bytes));
        vec![match done.committed.new {
            true => format!("{reference}  {files}, {size}, of {}", counted(done.parts, "part")),
            false => format!("{reference}  has this content already: no new version"),
        }]
    });
    Ok(exit::DONE)
}

pub fn group(context: &Context, verb: GroupVerb) -> Result<u8> {
    match verb {
        GroupVerb::Ls { artifact } => list(context, artifact.as_deref()),
        GroupVerb::Discard { name, group } => {
            let (path, group): (ArtifactPath, GroupName) = (parse(&name)?, parse(&group)?);
            let repository = connect::open_repository(context)?;
            let (info, freed) = groups::discard(&repository, &path, &group)?;
            let document = json!({
                "artifact": path.to_string(),
                "discarded": group,
                "parts": info.parts,
                "freed_bytes": freed,
            });
            context.output.print(document, || {
                let (parts, freed) = (counted(info.parts, "part"), bytes(freed));
                vec![format!("group {group} of {path}  {parts} discarded, {freed} freed")]
            });
            Ok(exit::DONE)
        }
    }
}

fn list(context: &Context, artifact: Option<&str>) -> Result<u8> {
    let path: Option<ArtifactPath> = artifact.map(parse).transpose()?;
    let repository = connect::open_repository(context)?;
    let open = groups::open_groups_of(&repository, path.as_ref())?;
    context.output.print(open.iter().map(group_json).collect(), || {
        table(&open.iter().map(group_row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

/// Returns an open group as JSON.
pub fn group_json(info: &GroupInfo) -> Value {
    json!({
        "artifact": info.path.to_string(),
        "group": info.group,
        "type": info.artifact_type,
        "generation": info.generation,
        "begins_after": info.sealed.map(|version| version.to_string()),
        "parts": info.parts,
        "files": info.totals.files,
        "size_bytes": info.totals.size_bytes,
        "begun": info.begun.to_string(),
        "updated": info.updated.to_string(),
        "writer": info.writer,
    })
}

/// Returns an open group as a row of a table.
pub fn group_row(info: &GroupInfo) -> Vec<String> {
    vec![
        info.path.to_string(),
        info.group.to_string(),
        counted(info.parts, "part"),
        counted(info.totals.files, "file"),
        bytes(info.totals.size_bytes),
        format!("begun {} ago", age(info.begun)),
        format!("last by {}, {} ago", info.writer, age(info.updated)),
    ]
}
