//! `diff`, `verify` and `fsck`.

use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, parse};
use super::output::{Bar, bytes};
use super::stream::Stream;
use super::text::name_in_json;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::difference::{Change, Difference};
use artifactfs::model::reference::Reference;
use artifactfs::ops::fsck::{FsckReport, Mode, UnknownPack};
use artifactfs::ops::listing::each_version;
use artifactfs::ops::repository::Repository;
use artifactfs::ops::verify::{Verifier, VerifyReport};

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
    /// Remove packs that are in the store, that the registry does not know, and that are older than a day
    #[arg(long, conflicts_with_all = ["repair", "rebuild"])]
    remove_unknown: bool,
}

pub fn diff(context: &Context, verb: Diff) -> Result<u8> {
    let mut stream = Stream::new(context.output);
    let mut differ = false;
    let mut print = |difference: &Difference| {
        differ = true;
        stream.print(|| difference_json(difference), || difference_line(difference));
    };
    match (&verb.draft, &verb.before, &verb.after) {
        (Some(draft), ..) => {
            let (found, count) = super::draft::differences(context, draft)?;
            if count > found.len() as u64 {
                context.output.note(&format!("artifactfs: {count} differences, not all shown"));
            }
            found.iter().for_each(print);
        }
        (None, Some(before), Some(after)) => versions(context, before, after, &mut print)?,
        _ => return Err(Error::new(Kind::Usage, "two versions are compared, or a draft")),
    }
    stream.finish();
    Ok(if differ { exit::DIFFERS } else { exit::DONE })
}

fn versions(
    context: &Context,
    before: &str,
    after: &str,
    each: &mut dyn FnMut(&Difference),
) -> Result<()> {
    let (before, after): (Reference, Reference) = (parse(before)?, parse(after)?);
    let repository = connect::open_repository(context)?;
    let before = repository.registry.lookup(before)?.root;
    let after = repository.registry.lookup(after)?.root;
    artifactfs::ops::diff::diff(&repository.reader, before, after, &mut |difference| {
        each(&difference);
        Ok(())
    })
}

fn difference_json(difference: &Difference) -> Value {
    let change = match difference.change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    };
    let mut document = json!({
        "change": change,
        "before_bytes": difference.before_bytes,
        "after_bytes": difference.after_bytes,
        "directory": difference.directory,
    });
    name_in_json(&mut document, "path", difference.path.as_os_str().as_bytes());
    document
}

fn difference_line(difference: &Difference) -> Vec<u8> {
    let mark = match difference.change {
        Change::Added => "+ ",
        Change::Removed => "- ",
        Change::Changed => "~ ",
    };
    let slash = if difference.directory { "/" } else { "" };
    let size = match (difference.before_bytes, difference.after_bytes) {
        (Some(before), Some(after)) if before != after => {
            format!("  {} -> {}", bytes(before), bytes(after))
        }
        (_, Some(size)) | (Some(size), _) => format!("  {}", bytes(size)),
        (None, None) => String::new(),
    };
    let path = difference.path.as_os_str().as_bytes();
    [mark.as_bytes(), path, slash.as_bytes(), size.as_bytes()].concat()
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
    let (objects, read) = (report.objects, bytes(report.bytes));
    let told = format!(
        "{} versions, {objects} objects, {read} read; {} paths hurt",
        report.versions, report.damaged_paths
    );
    context.output.note(&told);
    if report.unproven > 0 {
        let count = report.unproven;
        context.output.note(&format!(
            "{count} external files have no proof: other bytes of the same length would not be noticed"
        ));
    }
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
    tell_checked(context, &report);
    let sound = match mode {
        Mode::Check => report.problems == 0,
        Mode::Repair | Mode::Rebuild => report.missing_objects == 0,
    };
    if report.unknown_packs > 0 {
        context.output.note(
            "packs that nobody knows stay; `artifactfs fsck --remove-unknown` removes those older than a day",
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
    let (gone, left) = (removed.len(), young.len());
    context.output.note(&format!(
        "{gone} packs removed, {} freed; {left} are younger than a day and stay",
        bytes(freed)
    ));
    Ok(exit::DONE)
}

fn tell_checked(context: &Context, report: &FsckReport) {
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
    let told = format!(
        "{} versions, {} objects, {} packs; {} problems, {} repaired",
        report.versions, report.objects, report.packs, report.problems, report.repaired
    );
    context.output.note(&told);
}
