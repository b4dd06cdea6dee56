//! `diff`.

use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, parse};
use super::output::bytes;
use super::stream::Stream;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::difference::{Change, Difference};
use artifactfs::model::reference::Reference;
use artifactfs::ops::documents::name_in_json;

#[derive(Args)]
pub struct Diff {
    /// The version before: project/artifact:alias
    #[arg(required_unless_present = "draft")]
    before: Option<String>,
    /// The version after: project/artifact:alias
    #[arg(required_unless_present = "draft")]
    after: Option<String>,
    /// Compare this draft with the version that it is based on: project/artifact
    #[arg(long, conflicts_with_all = ["before", "after"])]
    draft: Option<String>,
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
        _ => return Err(Error::new(Kind::Usage, "diff needs two versions, or --draft")),
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
    artifactfs::ops::diff::versions(&repository, before, after, &mut |difference| {
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
