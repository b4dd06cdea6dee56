//! `update` and `alias`.

use clap::{Args, Subcommand};

use super::output::version;
use super::properties::{description, metadata};
use super::{Context, connect, exit, parse, parse_all};
use crate::error::{Error, Kind, Result};
use crate::model::reference::Reference;
use crate::model::version::VersionInfo;
use crate::registry::{self, AliasChange};

#[derive(Args)]
pub struct Update {
    /// project/artifact:alias
    reference: String,
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
}

#[derive(Subcommand)]
pub enum Alias {
    /// Give a version these aliases too
    Add(Names),
    /// Take these aliases from a version
    Rm(Names),
    /// Give a version these aliases and no others
    Set(Names),
}

#[derive(Args)]
pub struct Names {
    /// project/artifact:alias
    reference: String,
    /// The aliases
    #[arg(required = true)]
    names: Vec<String>,
}

fn key_and_value(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::new(Kind::Usage, format!("--set wants KEY=VALUE and found {text:?}"))
    })?;
    let is_json = serde_json::from_str::<serde_json::Value>(value).is_ok();
    let value = if is_json { value.to_owned() } else { serde_json::json!(value).to_string() };
    Ok((key.to_owned(), value))
}

pub fn update(context: &Context, verb: Update) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let change = registry::Update {
        description: verb.description.as_deref().map(description).transpose()?,
        metadata: verb.metadata.as_deref().map(metadata).transpose()?,
        set: verb.set.iter().map(|text| key_and_value(text)).collect::<Result<_>>()?,
        unset: verb.unset,
    };
    let nothing = change.description.is_none() && change.metadata.is_none();
    if nothing && change.set.is_empty() && change.unset.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing to update")
            .hint("give --description, --metadata, --set or --unset"));
    }
    let repository = connect::open_repository(context)?;
    tell(context, &repository.registry.update(reference, change)?);
    Ok(exit::DONE)
}

pub fn alias(context: &Context, verb: Alias) -> Result<u8> {
    let (names, change): (_, fn(_) -> AliasChange) = match verb {
        Alias::Add(names) => (names, AliasChange::Add),
        Alias::Rm(names) => (names, AliasChange::Remove),
        Alias::Set(names) => (names, AliasChange::Set),
    };
    let reference: Reference = parse(&names.reference)?;
    let change = change(parse_all(&names.names)?);
    let repository = connect::open_repository(context)?;
    tell(context, &repository.registry.change_aliases(reference, change)?);
    Ok(exit::DONE)
}

fn tell(context: &Context, info: &VersionInfo) {
    context.output.print(version(info), || {
        let names: Vec<_> = info.aliases.iter().map(|alias| alias.as_str()).collect();
        vec![format!("{}  {}", info.reference(), names.join(",")).trim_end().to_owned()]
    });
}
