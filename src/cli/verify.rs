//! `verify`.

use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::json;

use super::context::{Context, parse};
use super::output::{Bar, bytes};
use super::{connect, exit};
use artifactfs::error::{Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::model::reference::Reference;
use artifactfs::ops::documents::name_in_json;
use artifactfs::ops::verify::VerifyReport;

#[derive(Args)]
pub struct Verify {
    /// The version: project/artifact:alias [default: every version]
    reference: Option<String>,
}

pub fn verify(context: &Context, verb: Verify) -> Result<u8> {
    let reference: Option<Reference> = verb.reference.as_deref().map(parse).transpose()?;
    let repository = connect::open_repository(context)?;
    let bar = Bar::new("verifying", None, context.output);
    let report = artifactfs::ops::verify::verify(&repository, reference, &bar)?;
    drop(bar);
    print_verified(context, &report);
    Ok(if report.damaged_paths == 0 { exit::DONE } else { exit::code(Kind::Corrupt) })
}

fn print_verified(context: &Context, report: &VerifyReport) {
    let damage = report.damage.iter().map(|damage| {
        let mut document =
            json!({ "version": damage.version.to_string(), "reason": damage.reason });
        name_in_json(&mut document, "path", damage.path.as_os_str().as_bytes());
        document
    });
    let document = json!({
        "versions": report.versions,
        "objects": report.objects,
        "bytes": report.bytes,
        "damaged_paths": report.damaged_paths,
        "external_unproven": report.unproven,
        "damage": damage.collect::<Vec<_>>(),
    });
    context.output.print(document, || {
        let line = |d: &artifactfs::ops::verify::Damage| {
            format!("{}/{}: {}", d.version, d.path.display(), d.reason)
        };
        report.damage.iter().map(line).collect()
    });
    let (versions, objects) =
        (counted(report.versions, "version"), counted(report.objects, "object"));
    let (read, paths) = (bytes(report.bytes), counted(report.damaged_paths, "path"));
    context.output.note(&format!("{versions}, {objects}, {read} read; {paths} damaged"));
    if report.unproven > 0 {
        let files = counted(report.unproven, "external file");
        context.output.note(&format!(
            "no proof of {files}: other bytes of the same length would not be noticed"
        ));
    }
}
