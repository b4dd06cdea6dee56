//! `diff`, `verify` and `fsck`.

use clap::Args;
use serde_json::{Value, json};

use super::output::{Bar, bytes};
use super::{Context, connect, exit, parse};
use crate::error::{Error, Kind, Result};
use crate::model::reference::Reference;
use crate::ops::diff::{Change, Difference};
use crate::ops::fsck::{FsckReport, Mode};
use crate::ops::listing::each_version;
use crate::ops::verify::{Verifier, VerifyReport};

#[derive(Args)]
pub struct Diff {
    /// project/artifact:alias
    #[arg(required_unless_present = "draft")]
    before: Option<String>,
    /// project/artifact:alias
    #[arg(required_unless_present = "draft")]
    after: Option<String>,
    /// A draft, against the version it stands on: project/artifact
    #[arg(long, conflicts_with_all = ["before", "after"])]
    draft: Option<String>,
}

#[derive(Args)]
pub struct Verify {
    /// project/artifact:alias [default: every version]
    reference: Option<String>,
}

#[derive(Args)]
pub struct Fsck {
    /// Put right what follows from the store
    #[arg(long, conflicts_with = "rebuild")]
    repair: bool,
    /// Make the object table again from the indexes in the store
    #[arg(long)]
    rebuild: bool,
}

pub fn diff(context: &Context, verb: Diff) -> Result<u8> {
    let found = match (&verb.draft, &verb.before, &verb.after) {
        (Some(draft), ..) => {
            let (found, count) = super::draft::differences(context, draft)?;
            if count > found.len() as u64 {
                context.output.note(&format!("artifactfs: {count} differences, not all shown"));
            }
            found
        }
        (None, Some(before), Some(after)) => versions(context, before, after)?,
        _ => return Err(Error::new(Kind::Usage, "two versions are compared, or a draft")),
    };
    let document = found.iter().map(difference_json).collect();
    context.output.print(document, || found.iter().map(difference_line).collect());
    Ok(if found.is_empty() { exit::DONE } else { exit::USAGE_OR_DIFFERS })
}

fn versions(context: &Context, before: &str, after: &str) -> Result<Vec<Difference>> {
    let (before, after): (Reference, Reference) = (parse(before)?, parse(after)?);
    let repository = connect::open_repository(context)?;
    let before = repository.registry.lookup(before)?.root;
    let after = repository.registry.lookup(after)?.root;
    let mut found = Vec::new();
    crate::ops::diff::diff(&repository.reader, before, after, &mut |difference| {
        found.push(difference);
        Ok(())
    })?;
    Ok(found)
}

fn difference_json(difference: &Difference) -> Value {
    let change = match difference.change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    };
    json!({
        "path": difference.path.to_string_lossy(),
        "change": change,
        "before_bytes": difference.before_bytes,
        "after_bytes": difference.after_bytes,
        "directory": difference.directory,
    })
}

fn difference_line(difference: &Difference) -> String {
    let mark = match difference.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    };
    let slash = if difference.directory { "/" } else { "" };
    let size = match (difference.before_bytes, difference.after_bytes) {
        (Some(before), Some(after)) if before != after => {
            format!("  {} -> {}", bytes(before), bytes(after))
        }
        (_, Some(size)) | (Some(size), _) => format!("  {}", bytes(size)),
        (None, None) => String::new(),
    };
    format!("{mark} {}{slash}{size}", difference.path.display())
}

pub fn verify(context: &Context, verb: Verify) -> Result<u8> {
    let reference: Option<Reference> = verb.reference.as_deref().map(parse).transpose()?;
    let repository = connect::open_repository(context)?;
    let bar = Bar::new("verifying", None, context.output);
    let mut verifier = Verifier::new(&repository, &bar);
    match reference {
        Some(reference) => verifier.version(&repository.registry.lookup(reference)?)?,
        None => {
            each_version(&*repository.registry, &mut |version| verifier.version(&version))?;
        }
    }
    let report = verifier.finish();
    drop(bar);
    tell_verified(context, &report);
    Ok(if report.damaged_paths == 0 { exit::DONE } else { exit::code(Kind::Corrupt) })
}

fn tell_verified(context: &Context, report: &VerifyReport) {
    let damage = report.damage.iter().map(|damage| {
        json!({
            "version": damage.version.to_string(),
            "path": damage.path.to_string_lossy(),
            "reason": damage.reason,
        })
    });
    let document = json!({
        "versions": report.versions,
        "objects": report.objects,
        "bytes": report.bytes,
        "damaged_paths": report.damaged_paths,
        "damage": damage.collect::<Vec<_>>(),
    });
    context.output.print(document, || {
        let line = |d: &crate::ops::verify::Damage| {
            format!("{}/{}: {}", d.version, d.path.display(), d.reason)
        };
        report.damage.iter().map(line).collect()
    });
    let (objects, read) = (report.objects, bytes(report.bytes));
    let told = format!(
        "{} versions, {objects} objects, {read} read; {} paths hurt",
        report.versions, report.damaged_paths
    );
    context.output.note(&told);
}

pub fn fsck(context: &Context, verb: Fsck) -> Result<u8> {
    let mode = match (verb.repair, verb.rebuild) {
        (_, true) => Mode::Rebuild,
        (true, _) => Mode::Repair,
        (false, false) => Mode::Check,
    };
    let repository = connect::open_repository(context)?;
    let report = crate::ops::fsck::fsck(&repository, mode)?;
    tell_checked(context, &report);
    let sound = match mode {
        Mode::Check => report.problems == 0,
        Mode::Repair | Mode::Rebuild => report.missing_objects == 0,
    };
    Ok(if sound { exit::DONE } else { exit::code(Kind::Corrupt) })
}

fn tell_checked(context: &Context, report: &FsckReport) {
    let document = json!({
        "versions": report.versions,
        "objects": report.objects,
        "packs": report.packs,
        "problems": report.problems,
        "repaired": report.repaired,
        "missing_objects": report.missing_objects,
        "findings": report.findings,
    });
    context.output.print(document, || report.findings.clone());
    let told = format!(
        "{} versions, {} objects, {} packs; {} problems, {} repaired",
        report.versions, report.objects, report.packs, report.problems, report.repaired
    );
    context.output.note(&told);
}
