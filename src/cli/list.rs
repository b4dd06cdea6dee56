//! `ls` and `show`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, parse, parse_all};
use super::output::{age, artifact, bytes, joined, remarks, table, version};
use super::stream::Stream;
use super::text::name_in_json;
use super::{connect, exit};
use artifactfs::content::directory::{each_entry, resolve};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::digest::Digest;
use artifactfs::model::external::External;
use artifactfs::model::name::{EntryName, ProjectName, Tag};
use artifactfs::model::properties::Ttl;
use artifactfs::model::reference::{ArtifactPath, Reference};
use artifactfs::model::tree::{Content, Entry, Target};
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::exclusive_size;
use artifactfs::ops::external::count_unproven;
use artifactfs::ops::listing;
use artifactfs::ops::repository::Repository;
use artifactfs::ops::select::{Filter, Selection, each_selected};
use artifactfs::registry::Detail;

#[derive(Args)]
pub struct Ls {
    /// project, project/artifact, or project/artifact:alias/path
    what: Option<OsString>,
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
    let projects = repository.registry.projects()?;
    let document = projects.iter().map(|p| json!({ "project": p.name, "artifacts": p.artifacts }));
    context.output.print(document.collect(), || {
        let row = |p: &artifactfs::model::version::ProjectInfo| {
            vec![p.name.to_string(), format!("{} artifacts", p.artifacts)]
        };
        table(&projects.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

fn artifacts(context: &Context, project: ProjectName, tags: &[Tag]) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let mut artifacts = listing::artifacts(&*repository.registry, &project)?;
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
    let registry = &*repository.registry;
    if context.output.json {
        let selection = Selection { detail: Detail::Full, ..selection.clone() };
        let mut stream = Stream::new(context.output);
        each_selected(registry, &selection, &mut |info| {
            stream.print(|| version(&info), Vec::new);
            Ok(())
        })?;
        stream.finish();
        return Ok(exit::DONE);
    }
    let mut rows = Vec::new();
    each_selected(registry, selection, &mut |info| {
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
        format!("{} files", info.totals.files),
        format!("{} ago", age(info.created)),
    ];
    if long {
        row.extend([info.root.to_string(), info.description.clone()]);
    }
    row.push(remarks(info));
    row
}

/// `project/artifact/path`, of which some may be left out: names, and then a path of any bytes.
pub struct Place<'a> {
    pub project: &'a str,
    pub artifact: Option<&'a str>,
    pub path: Option<&'a [u8]>,
}

impl<'a> Place<'a> {
    pub fn of(text: &'a OsStr) -> Result<Self> {
        let mut rest = text.as_bytes();
        while let Some(shorter) = rest.strip_suffix(b"/") {
            rest = shorter;
        }
        let mut parts = rest.splitn(3, |byte| *byte == b'/');
        let mut name = || parts.next().map(std::str::from_utf8).transpose();
        let names = name().and_then(|project| Ok((project.unwrap_or(""), name()?)));
        let (project, artifact) = names.map_err(|_| {
            Error::new(Kind::Usage, format!("{text:?} begins with a name that is no text"))
        })?;
        Ok(Self { project, artifact, path: parts.next() })
    }
}

/// The parts of a path within a version.
pub fn path_within(text: &[u8]) -> Result<Vec<EntryName>> {
    let parts = text.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.map(|part| Ok(EntryName::try_from(part)?)).collect()
}

fn files(context: &Context, reference: Reference, path: &[u8], long: bool) -> Result<u8> {
    let path = path_within(path)?;
    let repository = connect::open_repository(context)?;
    let info = repository.registry.lookup(reference)?;
    let mut stream = Stream::new(context.output);
    // Only those who want more of it read the descriptors.
    let described = long || context.output.json;
    each_at(&repository, &info, &path, &mut |entry| {
        let external = if described { external(&repository, entry)? } else { None };
        stream.print(
            || entry_json(entry, external.as_deref()),
            || if long { long_line(entry, external.as_deref()) } else { short_line(entry) },
        );
        Ok(())
    })?;
    stream.finish();
    Ok(exit::DONE)
}

/// Calls `each` with the entries of the directory at `path`, or with the one file there.
fn each_at(
    repository: &Repository,
    info: &VersionInfo,
    path: &[EntryName],
    each: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let mut tree = info.root;
    if !path.is_empty() {
        let entry = resolve(&repository.reader, info.root, path)?.ok_or_else(|| {
            let shown: Vec<_> = path.iter().map(ToString::to_string).collect();
            let what = format!("{} has no {}", info.reference(), shown.join("/"));
            Error::new(Kind::NotFound, what).hint("`artifactfs ls` lists what there is")
        })?;
        match entry.target {
            Target::Directory(digest) => tree = digest,
            _ => return each(&entry),
        }
    }
    each_entry(&repository.reader, tree, each)
}

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
        "proven": external.is_proven(),
    })
}

fn entry_json(entry: &Entry, external: Option<&External>) -> Value {
    let mut document = match &entry.target {
        Target::Directory(digest) => {
            json!({ "kind": "directory", "digest": digest.to_string() })
        }
        Target::Symlink(target) => {
            let mut document = json!({ "kind": "symlink" });
            name_in_json(&mut document, "target", target);
            document
        }
        Target::File { content, executable } => json!({
            "kind": "file",
            "size_bytes": content.size_bytes(),
            "executable": executable,
            "digest": content.digest().map(|digest| digest.to_string()),
            "external": external.map(external_json),
        }),
    };
    name_in_json(&mut document, "name", entry.name.as_bytes());
    document
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
    let stored = exclusive_size::stored_bytes(&repository, info.root)?;
    let exclusive = exclusive_size::exclusive_bytes(&repository, &[info.root])?;
    let unproven = match info.totals.external {
        0 => 0,
        _ => count_unproven(&repository, info.root)?,
    };
    let mut document = version(&info);
    document["external_unproven"] = json!(unproven);
    document["stored_bytes"] = json!(stored);
    document["exclusive_bytes"] = json!(exclusive);
    // The two were counted one after the other, and others go on meanwhile.
    let shared = stored.saturating_sub(exclusive);
    document["shared_bytes"] = json!(shared);
    context.output.print(document, || {
        let metadata = serde_json::Value::Object(info.metadata.to_object());
        let totals = &info.totals;
        let external = match totals.external {
            0 => String::new(),
            count if unproven == 0 => format!(" ({count} external)"),
            count => format!(" ({count} external, {unproven} without proof)"),
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
            ("shared", format!("{} with other versions", bytes(shared))),
            ("exclusive", format!("{} that deleting it would free", bytes(exclusive))),
        ];
        table(&rows.map(|(key, value)| vec![key.to_owned(), value]))
    });
    Ok(exit::DONE)
}
