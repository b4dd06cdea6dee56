//! `show`.

use clap::Args;
use serde_json::json;

use super::context::{Context, parse};
use super::output::{bytes, joined, table};
use super::{connect, exit};
use artifactfs::error::Result;
use artifactfs::model::counted::counted;
use artifactfs::model::properties::Ttl;
use artifactfs::model::reference::{ArtifactPath, Reference};
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::documents::{artifact, version};
use artifactfs::ops::show::{self, Shown};

#[derive(Args)]
pub struct Show {
    /// The version: project/artifact:alias
    #[arg(required_unless_present = "artifact")]
    reference: Option<String>,
    /// Show the properties of an artifact instead
    #[arg(long, value_name = "PROJECT/ARTIFACT", conflicts_with = "reference")]
    artifact: Option<String>,
}

/// Describes the time to live of a version, and its end.
fn time_to_live(info: &VersionInfo) -> String {
    match (info.expires, info.protected.is_empty()) {
        (Some(at), _) => format!("{}, until {at}", info.ttl),
        (None, true) => format!("{}, no end", info.ttl),
        (None, false) => format!("{}, no end while it is protected", info.ttl),
    }
}

fn show_artifact(context: &Context, path: ArtifactPath) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let info = show::artifact(&repository, path)?;
    context.output.print(artifact(&info), || {
        let ttl = info.ttl_milliseconds.map_or(Ttl::Never, Ttl::After);
        let rows = [
            ("artifact", info.path.to_string()),
            ("type", info.artifact_type.to_string()),
            ("versions", info.versions.to_string()),
            ("newest", info.newest.map_or_else(String::new, |number| number.to_string())),
            ("description", info.description.clone()),
            ("tags", joined(&info.tags)),
            ("time to live", ttl.to_string()),
            ("protected", joined(&info.protected)),
        ];
        table(&rows.map(|(key, value)| vec![key.to_owned(), value]))
    });
    Ok(exit::DONE)
}

pub fn show(context: &Context, verb: Show) -> Result<u8> {
    if let Some(path) = verb.artifact {
        return show_artifact(context, parse(&path)?);
    }
    let reference: Reference = parse(&verb.reference.unwrap_or_default())?;
    let repository = connect::open_repository(context)?;
    let shown = show::version(&repository, reference)?;
    let Shown { info, external_unproven: unproven, stored_bytes, exclusive_bytes, shared_bytes } =
        shown;
    let mut document = version(&info);
    document["external_unproven"] = json!(unproven);
    document["stored_bytes"] = json!(stored_bytes);
    document["exclusive_bytes"] = json!(exclusive_bytes);
    document["shared_bytes"] = json!(shared_bytes);
    context.output.print(document, || {
        let metadata = serde_json::Value::Object(info.metadata.to_object());
        let totals = &info.totals;
        let external = match totals.external {
            0 => String::new(),
            count if unproven == 0 => format!(" ({count} external)"),
            count => format!(" ({count} external, {unproven} without proof)"),
        };
        let (files, directories) =
            (counted(totals.files, "file"), counted(totals.directories, "directory"));
        let symlinks = counted(totals.symlinks, "symlink");
        let contents = format!("{files}{external}, {directories}, {symlinks}");
        let rows = [
            ("reference", info.reference().to_string()),
            ("type", info.artifact_type.to_string()),
            ("aliases", joined(&info.aliases)),
            ("protected", joined(&info.protected)),
            ("tags", joined(&info.tags)),
            ("time to live", time_to_live(&info)),
            ("digest", info.root.to_string()),
            ("created", info.created.to_string()),
            ("description", info.description.clone()),
            ("metadata", metadata.to_string()),
            ("contents", contents),
            ("size", bytes(totals.size_bytes)),
            ("stored", bytes(stored_bytes)),
            ("shared", format!("{} with other versions", bytes(shared_bytes))),
            ("exclusive", format!("{} that deleting it would free", bytes(exclusive_bytes))),
        ];
        table(&rows.map(|(key, value)| vec![key.to_owned(), value]))
    });
    Ok(exit::DONE)
}
