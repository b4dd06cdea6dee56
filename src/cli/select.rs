//! Which versions a verb is about: references, or conditions.

use clap::Args;
use serde_json::json;

use super::context::{Context, parse, parse_all};
use super::exit;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::name::{ArtifactName, ProjectName};
use artifactfs::model::reference::Reference;
use artifactfs::ops::select::{Changed, Selection, Targets};

/// Versions chosen by conditions.
#[derive(Args)]
pub struct Where {
    /// Versions in PROJECT or PROJECT/ARTIFACT for which every --filter holds
    #[arg(long = "in", value_name = "WHERE", requires = "filters")]
    place: Option<String>,
    /// type=model, tag=x, alias=best, name=GLOB, metadata.key>0.9, created>30d, expires<7d
    #[arg(long = "filter", value_name = "EXPR", requires = "place")]
    filters: Vec<String>,
    /// Only say which versions would be changed
    #[arg(long)]
    pub dry_run: bool,
}

impl Where {
    /// The versions, if conditions were given.
    pub fn selection(&self) -> Result<Option<Selection>> {
        let place = self.place.as_deref();
        place.map(|place| selection(place, &self.filters)).transpose()
    }
}

/// PROJECT or PROJECT/ARTIFACT.
pub fn parse_scope(text: &str) -> Result<(ProjectName, Option<ArtifactName>)> {
    match text.split_once('/') {
        Some((project, artifact)) => Ok((parse(project)?, Some(parse(artifact)?))),
        None => Ok((parse(text)?, None)),
    }
}

fn selection(text: &str, filters: &[String]) -> Result<Selection> {
    let (project, artifact) = parse_scope(text)?;
    let filters = parse_all(filters)?;
    Ok(Selection { project: Some(project), artifact, filters, ..Selection::default() })
}

/// References from the command line.
pub fn references(texts: &[String], selection: Option<&Selection>) -> Result<Vec<Reference>> {
    if texts.is_empty() && selection.is_none() {
        return Err(Error::new(Kind::Usage, "no version is named")
            .hint("give references, or --in and --filter"));
    }
    parse_all(texts)
}

/// Changes many versions, or only says which, and tells what became of them.
///
/// # Errors
/// That of the first change that failed, when what was changed has been told.
pub fn change(
    context: &Context,
    targets: Targets,
    dry_run: bool,
    change: &mut dyn FnMut(Reference) -> Result<artifactfs::model::version::VersionInfo>,
) -> Result<u8> {
    let changed = match dry_run {
        true => Changed { done: targets.references, ..Changed::default() },
        false => targets.change(change),
    };
    let texts = |references: &[Reference]| -> Vec<String> {
        references.iter().map(ToString::to_string).collect()
    };
    let (done, left) = (texts(&changed.done), texts(&changed.left));
    let document = json!({ "changed": done, "left": left, "dry_run": dry_run });
    context.output.print(document, || done.clone());
    let verb = if dry_run { "would be changed" } else { "changed" };
    context.output.note(&format!("{} versions {verb}", done.len()));
    if !left.is_empty() {
        context.output.note(&format!("not changed: {}", left.join(" ")));
    }
    changed.error.map_or(Ok(exit::DONE), Err)
}
