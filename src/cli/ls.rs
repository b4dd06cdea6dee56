//! `ls`.

use std::ffi::OsString;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, parse, parse_all};
use super::output::{age, bytes, joined, remarks, table};
use super::place::{Place, path_within};
use super::stream::Stream;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::model::external::External;
use artifactfs::model::name::{ProjectName, Tag};
use artifactfs::model::reference::Reference;
use artifactfs::model::tree::{Entry, Target};
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::select::{Filter, Selection};
use artifactfs::ops::{documents, ls};
use artifactfs::registry::Detail;

#[derive(Args)]
pub struct Ls {
    /// The place: project, project/artifact, or project/artifact:alias/path
    what: Option<OsString>,
    /// Show more about each item
    #[arg(short, long)]
    long: bool,
    /// List only versions, or artifacts of a project, with this tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// List the versions, of all artifacts there, that match: type=model, tag=x, alias=best,
    /// name=GLOB, metadata.key>0.9, created>30d, expires<7d; may be given several times
    #[arg(long = "filter", value_name = "EXPR")]
    filters: Vec<String>,
}

pub fn ls(context: &Context, verb: Ls) -> Result<u8> {
    let what = verb.what.unwrap_or_default();
    let Place { project, artifact, path } = Place::of(&what)?;
    let tags: Vec<Tag> = parse_all(&verb.tags)?;
    let filters: Vec<Filter> = parse_all(&verb.filters)?;
    let filtered = !filters.is_empty();
    let with_tags = filters.into_iter().chain(tags.iter().cloned().map(Filter::tag)).collect();
    let mut selection = Selection { filters: with_tags, ..Selection::default() };
    match artifact {
        None if project.is_empty() && !filtered => match tags.is_empty() {
            true => projects(context),
            false => Err(unfiltered("projects have no tags")),
        },
        None if project.is_empty() => versions(context, &selection, verb.long),
        None if !filtered => artifacts(context, parse(project)?, &tags),
        None => {
            selection.project = Some(parse(project)?);
            versions(context, &selection, verb.long)
        }
        Some(artifact) if path.is_none() && !artifact.contains([':', '@']) => {
            selection.project = Some(parse(project)?);
            selection.artifact = Some(parse(artifact)?);
            versions(context, &selection, verb.long)
        }
        Some(_) if !selection.filters.is_empty() => Err(unfiltered("files have no tags")),
        Some(artifact) => {
            let reference = parse(&format!("{project}/{artifact}"))?;
            files(context, reference, path.unwrap_or_default(), verb.long)
        }
    }
}

fn unfiltered(what: &str) -> Error {
    Error::new(Kind::Usage, what).hint("--tag and --filter are for artifacts and versions")
}

fn projects(context: &Context) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let projects = ls::projects(&repository)?;
    let document = projects.iter().map(|p| json!({ "project": p.name, "artifacts": p.artifacts }));
    context.output.print(document.collect(), || {
        let row = |p: &artifactfs::model::version::ProjectInfo| {
            vec![p.name.to_string(), counted(p.artifacts, "artifact")]
        };
        table(&projects.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

fn artifacts(context: &Context, project: ProjectName, tags: &[Tag]) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let artifacts = ls::artifacts(&repository, &project, tags)?;
    context.output.print(artifacts.iter().map(documents::artifact).collect(), || {
        let mut rows = Vec::new();
        for a in &artifacts {
            let newest = a.newest.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let age = a.newest_created.map_or_else(String::new, |t| format!("{} ago", age(t)));
            let versions = counted(a.versions, "version");
            let mut row = vec![a.path.to_string(), a.artifact_type.to_string(), newest];
            row.extend([versions, age]);
            if !a.tags.is_empty() {
                row.push(format!("tags {}", joined(&a.tags)));
            }
            rows.push(row);
        }
        table(&rows)
    });
    Ok(exit::DONE)
}

fn versions(context: &Context, selection: &Selection, long: bool) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    if context.output.json {
        let selection = Selection { detail: Detail::Full, ..selection.clone() };
        let mut stream = Stream::new(context.output);
        ls::versions(&repository, &selection, &mut |info| {
            stream.print(|| documents::version(&info), Vec::new);
            Ok(())
        })?;
        stream.finish();
        return Ok(exit::DONE);
    }
    let mut rows = Vec::new();
    ls::versions(&repository, selection, &mut |info| {
        rows.push(version_row(&info, long));
        Ok(())
    })?;
    context.output.print(Value::Null, || table(&rows));
    Ok(exit::DONE)
}

fn version_row(info: &VersionInfo, long: bool) -> Vec<String> {
    let mut row = vec![
        info.reference().to_string(),
        joined(&info.aliases),
        bytes(info.totals.size_bytes),
        counted(info.totals.files, "file"),
        format!("{} ago", age(info.created)),
    ];
    if long {
        row.extend([info.root.to_string(), info.description.clone()]);
    }
    row.push(remarks(info));
    row
}

fn files(context: &Context, reference: Reference, path: &[u8], long: bool) -> Result<u8> {
    let path = path_within(path)?;
    let repository = connect::open_repository(context)?;
    let mut stream = Stream::new(context.output);
    // Short listings do not show the descriptors of external files, so they do not read them.
    let described = long || context.output.json;
    ls::entries(&repository, reference, &path, described, &mut |entry, external| {
        stream.print(
            || documents::entry(entry, external),
            || if long { long_line(entry, external) } else { short_line(entry) },
        );
        Ok(())
    })?;
    stream.finish();
    Ok(exit::DONE)
}

fn short_line(entry: &Entry) -> Vec<u8> {
    let mut line = entry.name.as_bytes().to_vec();
    if matches!(entry.target, Target::Directory(_)) {
        line.push(b'/');
    }
    line
}

fn long_line(entry: &Entry, external: Option<&External>) -> Vec<u8> {
    let (mode, size) = match &entry.target {
        Target::Directory(_) => ("dr-xr-xr-x", String::new()),
        Target::Symlink(_) => ("lrwxrwxrwx", String::new()),
        Target::File { content, executable } => {
            let mode = if *executable { "-r-xr-xr-x" } else { "-r--r--r--" };
            (mode, content.size_bytes().to_string())
        }
    };
    let mut line = format!("{mode}  {size:>12}  ").into_bytes();
    line.extend(short_line(entry));
    if let Target::Symlink(to) = &entry.target {
        line.extend(b" -> ".iter().chain(to.iter()));
    }
    if let Some(external) = external {
        let mark = if external.is_proven() { "" } else { " (no proof)" };
        line.extend(format!(" <- {}{mark}", external.url).into_bytes());
    }
    line
}
