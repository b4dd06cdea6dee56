//! `alias`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, parse, parse_all};
use super::output::table;
use super::select::{Where, only, print_changed, print_version};
use super::update::update_artifacts;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::name;
use artifactfs::model::reference::ArtifactPath;
use artifactfs::ops::alias::{self, AliasInfo};
use artifactfs::registry::{AliasChange, ArtifactUpdate};

#[derive(Subcommand)]
pub enum Alias {
    /// Add aliases to a version
    Add(Names),
    /// Remove aliases from a version
    Rm(Names),
    /// Replace all aliases of a version
    Set(Names),
    /// List the aliases of an artifact, and which of them are protected
    Ls {
        /// The artifact: project/artifact
        artifact: String,
    },
    /// Protect aliases: versions that they name are neither deleted nor expire
    Protect(Protected),
    /// End the protection of aliases
    Unprotect(Protected),
}

#[derive(Args)]
pub struct Names {
    /// The version, project/artifact:alias (not with -r or --in), then the aliases
    #[arg(required = true, value_name = "REF|NAME")]
    words: Vec<String>,
    /// A version; may be given several times
    #[arg(short, long = "reference", value_name = "REF", conflicts_with = "place")]
    references: Vec<String>,
    #[command(flatten)]
    chosen: Where,
    /// Also remove protected aliases from the versions that they name
    #[arg(long)]
    protected: bool,
}

#[derive(Args)]
pub struct Protected {
    /// The artifact: project/artifact
    artifact: String,
    /// The aliases, which need not exist yet
    #[arg(required = true)]
    names: Vec<String>,
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
    let bulk = verb.chosen.is_given() || !verb.references.is_empty();
    let (first, names) = match bulk {
        true => (None, &verb.words[..]),
        false => (verb.words.first(), verb.words.get(1..).unwrap_or_default()),
    };
    if names.is_empty() {
        return Err(Error::new(Kind::Usage, "no alias is named")
            .hint("write project/artifact:v3 NAME, or -r project/artifact:v3 NAME"));
    }
    let change = kind(parse_all(names)?);
    let named: Vec<_> = first.into_iter().chain(&verb.references).cloned().collect();
    let chosen = verb.chosen.chosen(&named)?;
    let repository = connect::open_repository(context)?;
    if let Some(reference) = only(&chosen).filter(|_| !bulk) {
        let info = alias::change(&repository, reference, change, verb.protected)?;
        print_version(context, &info);
        return Ok(exit::DONE);
    }
    let dry_run = chosen.dry_run;
    let changed = alias::change_many(&repository, chosen, &change, verb.protected)?;
    print_changed(context, dry_run, changed)
}

fn list_aliases(context: &Context, path: &ArtifactPath) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let found = alias::aliases(&repository, path)?;
    let document = found.iter().map(|AliasInfo { alias, number, protected }| {
        let number = number.map(|number| number.to_string());
        json!({ "alias": alias, "version": number, "protected": protected })
    });
    context.output.print(document.collect(), || {
        let row = |AliasInfo { alias, number, protected }: &AliasInfo| {
            let number = number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let mark = if *protected { "protected" } else { "" };
            vec![alias.to_string(), number, mark.to_owned()]
        };
        table(&found.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}
