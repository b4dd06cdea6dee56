//! `update`.

use clap::Args;

use super::context::{Context, parse, parse_all};
use super::properties::{description, metadata};
use super::select::{Where, only, print_changed, print_version};
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::json::parse_or_text;
use artifactfs::model::properties::Ttl;
use artifactfs::model::reference::ArtifactPath;
use artifactfs::ops::documents::artifact;
use artifactfs::ops::update;
use artifactfs::registry::{self, ArtifactUpdate};

#[derive(Args)]
pub struct Update {
    /// The versions: project/artifact:alias
    #[arg(value_name = "REF", conflicts_with_all = ["artifacts", "place"])]
    references: Vec<String>,
    #[command(flatten)]
    chosen: Where,
    /// Change the properties of this artifact itself; may be given several times
    #[arg(long = "artifact", value_name = "PROJECT/ARTIFACT",
          conflicts_with_all = ["place", "metadata", "set", "unset", "dry_run"])]
    artifacts: Vec<String>,
    /// The new description
    #[arg(short, long)]
    description: Option<String>,
    /// The new metadata, which replace the old: a JSON object, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    metadata: Option<String>,
    /// Set one key of the metadata; VALUE is JSON, or else text; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove one key of the metadata; may be given several times
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// The time to live from creation: 30d, 12h, never, or inherit (from the artifact)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    ttl: Option<String>,
    /// Add a tag; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Remove a tag; may be given several times
    #[arg(long, value_name = "TAG")]
    untag: Vec<String>,
}

fn key_and_value(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::new(Kind::Usage, format!("--set needs KEY=VALUE and got {text:?}"))
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
    let chosen = verb.chosen.chosen(&verb.references)?;
    let repository = connect::open_repository(context)?;
    if let Some(reference) = only(&chosen) {
        print_version(context, &update::update(&repository, reference, update)?);
        return Ok(exit::DONE);
    }
    print_changed(context, chosen.dry_run, update::update_many(&repository, chosen, &update)?)
}

/// Returns the time to live that versions inherit, in milliseconds; `None` if there is no end.
///
/// # Errors
/// [`Kind::Usage`] for `inherit`.
fn of_artifact(ttl: Ttl) -> Result<Option<u64>> {
    match ttl {
        Ttl::After(milliseconds) => Ok(Some(milliseconds)),
        Ttl::Never => Ok(None),
        Ttl::Inherit => Err(Error::new(Kind::Usage, "an artifact inherits no time to live")
            .hint("--ttl never lets its versions live for ever")),
    }
}

/// Changes artifacts and prints those that were changed.
pub fn update_artifacts(
    context: &Context,
    paths: &[ArtifactPath],
    update: &ArtifactUpdate,
) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let (done, error) = update::update_artifacts(&repository, paths, update)?;
    let document = match &done[..] {
        [one] if paths.len() == 1 => Some(artifact(one)),
        [] if paths.len() == 1 => None,
        all => Some(all.iter().map(artifact).collect()),
    };
    if let Some(document) = document {
        let lines = || done.iter().map(|info| info.path.to_string()).collect();
        context.output.print(document, lines);
    }
    error.map_or(Ok(exit::DONE), Err)
}
