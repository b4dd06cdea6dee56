//! `ls` and `show`.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::output::{age, artifact, bytes, joined, remarks, table, version};
use super::{Context, connect, exit, parse, parse_all};
use crate::content::directory::{each_entry, resolve};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::name::{EntryName, ProjectName, Tag};
use crate::model::properties::Ttl;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::tree::{Content, Entry, Target};
use crate::model::version::VersionInfo;
use crate::ops::repository::Repository;
use crate::ops::select::{Filter, Selection, each_selected};
use crate::ops::share;

#[derive(Args)]
pub struct Ls {
    /// project, project/artifact, or project/artifact:alias/path
    what: Option<String>,
    /// More about each
    #[arg(short, long)]
    long: bool,
    /// Only versions, or artifacts of a project, that have this tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Versions, of all artifacts there, for which this holds: type=model, tag=x, alias=best, name=GLOB,
    /// metadata.key>0.9, created>30d, expires<7d; may be given several times
    #[arg(long = "filter", value_name = "EXPR")]
    filters: Vec<String>,
}

#[derive(Args)]
pub struct Show {
    /// project/artifact:alias
    #[arg(required_unless_present = "artifact")]
    reference: Option<String>,
    /// Show what is said about an artifact itself
    #[arg(long, value_name = "PROJECT/ARTIFACT", conflicts_with = "reference")]
    artifact: Option<String>,
}

pub fn ls(context: &Context, verb: Ls) -> Result<u8> {
    let what = verb.what.unwrap_or_default();
    let what = what.trim_end_matches('/');
    let mut parts = what.splitn(3, '/');
    let (project, artifact, path) = (parts.next().unwrap_or(""), parts.next(), parts.next());
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
            files(context, reference, path.unwrap_or(""), verb.long)
        }
    }
}

fn unfiltered(what: &str) -> Error {
    Error::new(Kind::Usage, what).hint("--tag and --filter are for artifacts and versions")
}

fn projects(context: &Context) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let projects = repository.registry.projects()?;
    let document = projects.iter().map(|p| json!({ "project": p.name, "artifacts": p.artifacts }));
    context.output.print(document.collect(), || {
        let row = |p: &crate::model::version::ProjectInfo| {
            vec![p.name.to_string(), format!("{} artifacts", p.artifacts)]
        };
        table(&projects.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

fn artifacts(context: &Context, project: ProjectName, tags: &[Tag]) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let mut artifacts = repository.registry.artifacts(project)?;
    artifacts.retain(|artifact| tags.iter().all(|tag| artifact.tags.contains(tag)));
    context.output.print(artifacts.iter().map(artifact).collect(), || {
        let mut rows = Vec::new();
        for a in &artifacts {
            let newest = a.newest.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let age = a.newest_created.map_or_else(String::new, |t| format!("{} ago", age(t)));
            let versions = format!("{} versions", a.versions);
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
    let mut versions = Vec::new();
    each_selected(&*repository.registry, selection, &mut |version| {
        versions.push(version);
        Ok(())
    })?;
    context.output.print(versions.iter().map(version).collect(), || {
        let row = |info: &VersionInfo| {
            let mut row = vec![
                info.reference().to_string(),
                joined(&info.aliases),
                bytes(info.totals.size_bytes),
                format!("{} files", info.totals.files),
                format!("{} ago", age(info.created)),
            ];
            if long {
                row.extend([info.root.to_string(), info.description.clone()]);
            }
            row.push(remarks(info));
            row
        };
        table(&versions.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

/// The parts of a path within a version.
pub fn path_within(text: &str) -> Result<Vec<EntryName>> {
    let parts = text.split('/').filter(|part| !part.is_empty());
    parts.map(|part| Ok(EntryName::try_from(part.as_bytes())?)).collect()
}

fn files(context: &Context, reference: Reference, path: &str, long: bool) -> Result<u8> {
    let path = path_within(path)?;
    let repository = connect::open_repository(context)?;
    let info = repository.registry.lookup(reference)?;
    let entries = entries_at(&repository, &info, &path)?;
    // Only those who want more of it read the descriptors.
    let described = long || context.output.json;
    let rows = entries.iter().map(|entry| (entry, described.then(|| external(&repository, entry))));
    let rows = rows.map(|(entry, external)| Ok((entry, external.transpose()?.flatten())));
    let rows = rows.collect::<Result<Vec<Row<'_>>>>()?;
    context.output.print(rows.iter().map(entry_json).collect(), || {
        if long {
            return table(&rows.iter().map(long_row).collect::<Vec<_>>());
        }
        let mark = |target: &Target| matches!(target, Target::Directory(_)).then_some("/");
        let line = |e: &Entry| format!("{}{}", e.name, mark(&e.target).unwrap_or(""));
        entries.iter().map(line).collect()
    });
    Ok(exit::DONE)
}

/// The entries of the directory at `path`, or the one file there.
fn entries_at(
    repository: &Repository,
    info: &VersionInfo,
    path: &[EntryName],
) -> Result<Vec<Entry>> {
    let mut tree = info.root;
    if !path.is_empty() {
        let entry = resolve(&repository.reader, info.root, path)?.ok_or_else(|| {
            let shown: Vec<_> = path.iter().map(ToString::to_string).collect();
            let what = format!("{} has no {}", info.reference(), shown.join("/"));
            Error::new(Kind::NotFound, what).hint("`artifactfs ls` lists what there is")
        })?;
        match entry.target {
            Target::Directory(digest) => tree = digest,
            _ => return Ok(vec![entry]),
        }
    }
    let mut entries = Vec::new();
    each_entry(&repository.reader, tree, &mut |entry| {
        entries.push(entry.clone());
        Ok(())
    })?;
    Ok(entries)
}

/// An entry, and what is recorded of it if it lives elsewhere.
type Row<'a> = (&'a Entry, Option<Arc<External>>);

fn external(repository: &Repository, entry: &Entry) -> Result<Option<Arc<External>>> {
    match entry.target {
        Target::File { content: Content::External { digest, .. }, .. } => {
            repository.reader.external(digest).map(Some)
        }
        _ => Ok(None),
    }
}

fn external_json(external: &External) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "url": external.url.as_str(),
        "etag": some(&external.etag),
        "version": some(&external.version),
        "modified": some(&external.modified),
        "checksum": external.checksum.map(|sum| Digest::from_bytes(sum).to_string()),
    })
}

fn entry_json((entry, external): &Row<'_>) -> Value {
    let name = entry.name.to_string();
    match &entry.target {
        Target::Directory(digest) => {
            json!({ "name": name, "kind": "directory", "digest": digest.to_string() })
        }
        Target::Symlink(target) => {
            json!({ "name": name, "kind": "symlink", "target": String::from_utf8_lossy(target) })
        }
        Target::File { content, executable } => json!({
            "name": name,
            "kind": "file",
            "size_bytes": content.size_bytes(),
            "executable": executable,
            "digest": content.digest().map(|digest| digest.to_string()),
            "external": external.as_deref().map(external_json),
        }),
    }
}

fn long_row((entry, external): &Row<'_>) -> Vec<String> {
    let (mode, size, rest) = match &entry.target {
        Target::Directory(_) => ("dr-xr-xr-x", String::new(), "/".to_owned()),
        Target::Symlink(to) => {
            ("lrwxrwxrwx", String::new(), format!(" -> {}", String::from_utf8_lossy(to)))
        }
        Target::File { content, executable } => {
            let mode = if *executable { "-r-xr-xr-x" } else { "-r--r--r--" };
            let from = external.as_ref().map(|external| format!(" <- {}", external.url));
            (mode, content.size_bytes().to_string(), from.unwrap_or_default())
        }
    };
    vec![mode.to_owned(), format!("{size:>12}"), format!("{}{rest}", entry.name)]
}

/// How long a version lives, and until when that is.
fn time_to_live(info: &VersionInfo) -> String {
    match (info.expires, info.protected.is_empty()) {
        (Some(at), _) => format!("{}, until {at}", info.ttl),
        (None, true) => format!("{}, no end", info.ttl),
        (None, false) => format!("{}, no end while it is protected", info.ttl),
    }
}

fn show_artifact(context: &Context, path: ArtifactPath) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let info = repository.registry.artifact(path)?;
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
    let info = repository.registry.lookup(reference)?;
    let stored = share::stored_bytes(&repository, info.root)?;
    let exclusive = share::exclusive_bytes(&repository, &[info.root])?;
    let mut document = version(&info);
    document["stored_bytes"] = json!(stored);
    document["exclusive_bytes"] = json!(exclusive);
    document["shared_bytes"] = json!(stored - exclusive);
    context.output.print(document, || {
        let metadata = serde_json::Value::Object(info.metadata.to_object());
        let totals = &info.totals;
        let external = match totals.external {
            0 => String::new(),
            count => format!(" ({count} external)"),
        };
        let contents = format!(
            "{} files{external}, {} directories, {} symlinks",
            totals.files, totals.directories, totals.symlinks
        );
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
            ("stored", bytes(stored)),
            ("shared", format!("{} with other versions", bytes(stored - exclusive))),
            ("exclusive", format!("{} that deleting it would free", bytes(exclusive))),
        ];
        table(&rows.map(|(key, value)| vec![key.to_owned(), value]))
    });
    Ok(exit::DONE)
}
