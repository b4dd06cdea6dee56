//! `fsck`.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::bytes;
use super::{connect, exit};
use artifactfs::error::{Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::ops::fsck::{FsckReport, Mode, UnknownPack};
use artifactfs::ops::repository::Repository;

#[derive(Args)]
pub struct Fsck {
    /// Repair whatever can be derived from the store
    #[arg(long, conflicts_with = "rebuild")]
    repair: bool,
    /// Rebuild the object table from the indexes in the store
    #[arg(long)]
    rebuild: bool,
    /// Remove packs that are older than a day and not in the registry
    #[arg(long, conflicts_with_all = ["repair", "rebuild"])]
    remove_unknown: bool,
}

pub fn fsck(context: &Context, verb: Fsck) -> Result<u8> {
    let mode = match (verb.repair, verb.rebuild) {
        (_, true) => Mode::Rebuild,
        (true, _) => Mode::Repair,
        (false, false) => Mode::Check,
    };
    let repository = connect::open_repository(context)?;
    if verb.remove_unknown {
        return remove_unknown(context, &repository);
    }
    let report = artifactfs::ops::fsck::fsck(&repository, mode)?;
    print_checked(context, &report);
    let sound = match mode {
        Mode::Check => report.problems == 0,
        Mode::Repair | Mode::Rebuild => report.missing_objects == 0,
    };
    if report.unknown_packs > 0 {
        context.output.note(
            "unknown packs stay; `artifactfs fsck --remove-unknown` removes those older than a day",
        );
    }
    Ok(if sound { exit::DONE } else { exit::code(Kind::Corrupt) })
}

fn remove_unknown(context: &Context, repository: &Repository) -> Result<u8> {
    let (removed, young) = artifactfs::ops::fsck::remove_unknown(repository)?;
    let ids = |packs: &[UnknownPack]| packs.iter().map(|p| p.id.to_string()).collect::<Vec<_>>();
    let freed: u64 = removed.iter().map(|pack| pack.length_bytes).sum();
    let document =
        json!({ "removed": ids(&removed), "too_young": ids(&young), "freed_bytes": freed });
    context.output.print(document, || ids(&removed));
    let (gone, left) = (counted(removed.len(), "pack"), young.len());
    context.output.note(&format!(
        "{gone} removed, {} freed; {left} kept, being younger than a day",
        bytes(freed)
    ));
    Ok(exit::DONE)
}

fn print_checked(context: &Context, report: &FsckReport) {
    let document = json!({
        "versions": report.versions,
        "objects": report.objects,
        "packs": report.packs,
        "problems": report.problems,
        "repaired": report.repaired,
        "missing_objects": report.missing_objects,
        "unknown_packs": report.unknown_packs,
        "findings": report.findings,
    });
    context.output.print(document, || report.findings.clone());
    let (versions, objects) =
        (counted(report.versions, "version"), counted(report.objects, "object"));
    let (packs, problems) = (counted(report.packs, "pack"), counted(report.problems, "problem"));
    let repaired = report.repaired;
    let line = format!("{versions}, {objects}, {packs}; {problems}, {repaired} repaired");
    context.output.note(&line);
}
