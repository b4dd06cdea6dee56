//! `update` and `alias`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, parse, parse_all};
use super::output::{artifact, table, version};
use super::properties::{description, metadata};
use super::select::{Where, change, references};
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::json::parse_or_text;
use artifactfs::model::name::{self, VersionNumber};
use artifactfs::model::properties::Ttl;
use artifactfs::model::reference::{ArtifactPath, Reference};
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::listing;
use artifactfs::ops::select::{remove_aliases, targets};
use artifactfs::registry::{self, AliasChange, ArtifactUpdate, Detail};

#[derive(Args)]
pub struct Update {
    /// project/artifact:alias, several if you like
    #[arg(value_name = "REF", conflicts_with_all = ["artifacts", "place"])]
    references: Vec<String>,
    #[command(flatten)]
    chosen: Where,
    /// Change what is said about an artifact itself; may be given several times
    #[arg(long = "artifact", value_name = "PROJECT/ARTIFACT",
          conflicts_with_all = ["place", "metadata", "set", "unset", "dry_run"])]
    artifacts: Vec<String>,
    /// The whole description
    #[arg(short, long)]
    description: Option<String>,
    /// The whole metadata: a JSON object, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    metadata: Option<String>,
    /// Set one key of the metadata; VALUE is JSON, or else text
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove one key of the metadata
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// How long it lives, from its creation on: 30d, 12h; never; inherit, as its artifact says
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    ttl: Option<String>,
    /// Add a tag; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Remove a tag; may be given several times
    #[arg(long, value_name = "TAG")]
    untag: Vec<String>,
}

#[derive(Subcommand)]
pub enum Alias {
    /// Give a version these aliases too
    Add(Names),
    /// Take these aliases from a version
    Rm(Names),
    /// Give a version these aliases and no others
    Set(Names),
    /// List the aliases of an artifact, and which of them are protected
    Ls {
        /// project/artifact
        artifact: String,
    },
    /// Keep whatever version these aliases stand for, now and later
    Protect(Protected),
    /// Let go what these aliases kept
    Unprotect(Protected),
}

#[derive(Args)]
pub struct Names {
    /// project/artifact:alias (not with -r or --in), then the aliases
    #[arg(required = true, value_name = "REF|NAME")]
    words: Vec<String>,
    /// A version; may be given several times
    #[arg(short, long = "reference", value_name = "REF", conflicts_with = "place")]
    references: Vec<String>,
    #[command(flatten)]
    chosen: Where,
    /// Also take protected aliases off the version they stand for
    #[arg(long)]
    protected: bool,
}

#[derive(Args)]
pub struct Protected {
    /// project/artifact
    artifact: String,
    /// The aliases, which need not exist yet
    #[arg(required = true)]
    names: Vec<String>,
}

fn key_and_value(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::new(Kind::Usage, format!("--set wants KEY=VALUE and found {text:?}"))
    })?;
    Ok((key.to_owned(), parse_or_text(value)?.to_string()))
}

fn nothing() -> Error {
    Error::new(Kind::Usage, "nothing to update")
        .hint("give --description, --metadata, --set, --unset, --ttl, --tag or --untag")
}

pub fn update(context: &Context, verb: Update) -> Result<u8> {
    let description = verb.description.as_deref().map(description).transpose()?;
    let ttl: Option<Ttl> = verb.ttl.as_deref().map(parse).transpose()?;
    let (tag, untag) = (parse_all(&verb.tag)?, parse_all(&verb.untag)?);
    let none = description.is_none() && ttl.is_none() && tag.is_empty() && untag.is_empty();
    if !verb.artifacts.is_empty() {
        if none {
            return Err(nothing());
        }
        let ttl_milliseconds = ttl.map(of_artifact).transpose()?;
        let update =
            ArtifactUpdate { description, ttl_milliseconds, tag, untag, ..Default::default() };
        return update_artifacts(context, &parse_all(&verb.artifacts)?, &update);
    }
    let update = registry::Update {
        description,
        metadata: verb.metadata.as_deref().map(metadata).transpose()?,
        set: verb.set.iter().map(|text| key_and_value(text)).collect::<Result<_>>()?,
        unset: verb.unset,
        ttl,
        tag,
        untag,
    };
    if none && update.metadata.is_none() && update.set.is_empty() && update.unset.is_empty() {
        return Err(nothing());
    }
    let selection = verb.chosen.selection()?;
    let mut references = references(&verb.references, selection.as_ref())?;
    let dry_run = verb.chosen.dry_run;
    let repository = connect::open_repository(context)?;
    let registry = &repository.registry;
    if selection.is_none() && references.len() == 1 && !dry_run {
        print_version(context, &registry.update(references.remove(0), update)?);
        return Ok(exit::DONE);
    }
    let targets = targets(&**registry, references, selection.as_ref())?;
    change(context, targets, dry_run, &mut |reference| registry.update(reference, update.clone()))
}

/// What versions inherit.
fn of_artifact(ttl: Ttl) -> Result<Option<u64>> {
    match ttl {
        Ttl::After(milliseconds) => Ok(Some(milliseconds)),
        Ttl::Never => Ok(None),
        Ttl::Inherit => Err(Error::new(Kind::Usage, "an artifact inherits no time to live")
            .hint("--ttl never lets its versions live for ever")),
    }
}

fn update_artifacts(
    context: &Context,
    paths: &[ArtifactPath],
    update: &ArtifactUpdate,
) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let registry = &repository.registry;
    // One that is not there fails before anything is changed.
    paths.iter().try_for_each(|path| registry.artifact(path.clone()).map(drop))?;
    let mut done = Vec::new();
    let mut change = |path: &ArtifactPath| -> Result<()> {
        done.push(registry.update_artifact(path.clone(), update.clone())?);
        Ok(())
    };
    let changed = paths.iter().try_for_each(&mut change);
    let document = match &done[..] {
        [one] if paths.len() == 1 => artifact(one),
        [] if paths.len() == 1 => return changed.map(|()| exit::DONE),
        all => all.iter().map(artifact).collect(),
    };
    context.output.print(document, || done.iter().map(|info| info.path.to_string()).collect());
    changed.map(|()| exit::DONE)
}

pub fn alias(context: &Context, verb: Alias) -> Result<u8> {
    let protect = |names: &Protected, on: bool| -> Result<u8> {
        let (path, names) = (parse(&names.artifact)?, parse_all(&names.names)?);
        let (protect, unprotect) = if on { (names, Vec::new()) } else { (Vec::new(), names) };
        let update = ArtifactUpdate { protect, unprotect, ..Default::default() };
        update_artifacts(context, &[path], &update)
    };
    match verb {
        Alias::Add(names) => change_aliases(context, &names, AliasChange::Add),
        Alias::Rm(names) => change_aliases(context, &names, AliasChange::Remove),
        Alias::Set(names) => change_aliases(context, &names, AliasChange::Set),
        Alias::Ls { artifact } => list_aliases(context, &parse(&artifact)?),
        Alias::Protect(names) => protect(&names, true),
        Alias::Unprotect(names) => protect(&names, false),
    }
}

fn change_aliases(
    context: &Context,
    verb: &Names,
    kind: fn(Vec<name::Alias>) -> AliasChange,
) -> Result<u8> {
    let selection = verb.chosen.selection()?;
    let bulk = selection.is_some() || !verb.references.is_empty();
    let (first, names) = match bulk {
        true => (None, &verb.words[..]),
        false => (verb.words.first(), verb.words.get(1..).unwrap_or_default()),
    };
    if names.is_empty() {
        return Err(Error::new(Kind::Usage, "no alias is named")
            .hint("write project/artifact:v3 NAME, or -r project/artifact:v3 NAME"));
    }
    let names = parse_all(names)?;
    let named: Vec<_> = first.into_iter().chain(&verb.references).cloned().collect();
    let references: Vec<Reference> = references(&named, selection.as_ref())?;
    let (dry_run, also) = (verb.chosen.dry_run, verb.protected);
    let repository = connect::open_repository(context)?;
    let registry = &repository.registry;
    if let ([reference], false, false) = (&references[..], bulk, dry_run) {
        if let AliasChange::Remove(names) = kind(names.clone()) {
            let info = registry.lookup(reference.clone())?;
            // Once it was seen to have them, their absence is no error: an answer may have been lost.
            if names.iter().all(|name| info.aliases.contains(name)) {
                print_version(
                    context,
                    &remove_aliases(&**registry, info.reference(), &names, also)?,
                );
                return Ok(exit::DONE);
            }
        }
        print_version(context, &registry.change_aliases(reference.clone(), kind(names), also)?);
        return Ok(exit::DONE);
    }
    let targets = targets(&**registry, references, selection.as_ref())?;
    if let AliasChange::Remove(names) = kind(names.clone()) {
        return change(context, targets, dry_run, &mut |reference| {
            remove_aliases(&**registry, reference, &names, also)
        });
    }
    targets.one_each()?;
    change(context, targets, dry_run, &mut |reference| {
        registry.change_aliases(reference, kind(names.clone()), also)
    })
}

fn list_aliases(context: &Context, path: &ArtifactPath) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let info = repository.registry.artifact(path.clone())?;
    let mut found = std::collections::BTreeMap::new();
    listing::each_of_artifact(&*repository.registry, path, Detail::Brief, &mut |version| {
        found.extend(version.aliases.into_iter().map(|alias| (alias, Some(version.number))));
        Ok(())
    })?;
    for alias in &info.protected {
        found.entry(alias.clone()).or_insert(None);
    }
    let protected = |alias: &name::Alias| info.protected.contains(alias);
    let document = found.iter().map(|(alias, number)| {
        let number = number.map(|number| number.to_string());
        json!({ "alias": alias, "version": number, "protected": protected(alias) })
    });
    context.output.print(document.collect(), || {
        let row = |(alias, number): (&name::Alias, &Option<VersionNumber>)| {
            let number = number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let mark = if protected(alias) { "protected" } else { "" };
            vec![alias.to_string(), number, mark.to_owned()]
        };
        table(&found.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

fn print_version(context: &Context, info: &VersionInfo) {
    context.output.print(version(info), || {
        let names: Vec<_> = info.aliases.iter().map(|alias| alias.as_str()).collect();
        vec![format!("{}  {}", info.reference(), names.join(",")).trim_end().to_owned()]
    });
}
