//! `get`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::context::{Context, parse};
use super::output::{Bar, bytes};
use super::{connect, exit};
use artifactfs::error::Result;
use artifactfs::model::counted::counted;
use artifactfs::model::reference::Reference;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::get::{Externals, get_with};
use artifactfs::ops::put::Filters;

#[derive(Args)]
pub struct Get {
    /// The version: project/artifact:alias
    reference: String,
    /// The directory to write to [default: ./artifacts/<artifact>@<version>]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Write only files that match; may be given several times
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Link external files instead of downloading them: a symlink to a local file, else NAME.url
    #[arg(long)]
    references_only_links: bool,
}

/// Returns the name of the folder that a version is written to by default. It has no colon: the
/// folder may become part of PYTHONPATH or of another list separated by colons.
pub fn folder_name(info: &VersionInfo) -> String {
    format!("{}@{}", info.path.artifact, info.number)
}

pub fn get(context: &Context, verb: Get) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let filters = Filters::new(&verb.include, &[])?;
    let repository = connect::open_repository(context)?;
    let info = super::used::used(context, &*repository.registry, reference)?;
    let target = verb.root.unwrap_or_else(|| PathBuf::from("artifacts").join(folder_name(&info)));
    let bar = Bar::new("getting", Some(info.totals.size_bytes), context.output);
    let externals = match verb.references_only_links {
        true => Externals::Linked,
        false => Externals::Downloaded,
    };
    let report = get_with(&repository, info.root, &target, &filters, externals, &bar)?;
    drop(bar);
    let document = json!({
        "reference": info.reference().to_string(),
        "path": target.to_string_lossy(),
        "files_written": report.written,
        "files_kept": report.kept,
        "bytes_written": report.bytes,
    });
    context.output.print(document, || vec![target.display().to_string()]);
    let kept = match report.kept {
        0 => String::new(),
        kept => format!(", {kept} already there"),
    };
    let (files, written) = (counted(report.written, "file"), bytes(report.bytes));
    let line = format!("{}: {files} written, {written}{kept}", info.reference());
    context.output.note(&line);
    Ok(exit::DONE)
}
