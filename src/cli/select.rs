//! The versions that a verb changes, named by references or by conditions.

use clap::Args;
use serde_json::json;

use super::context::{Context, parse, parse_all};
use super::exit;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::model::name::{ArtifactName, ProjectName};
use artifactfs::model::reference::Reference;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::documents::version;
use artifactfs::ops::select::{Changed, Chosen, Selection};

/// Versions chosen by conditions.
#[derive(Args)]
pub struct Where {
    /// Select the versions in PROJECT or PROJECT/ARTIFACT that match every --filter
    #[arg(long = "in", value_name = "WHERE", requires = "filters")]
    place: Option<String>,
    /// A condition: type=model, tag=x, alias=best, name=GLOB, metadata.key>0.9, created>30d,
    /// expires<7d; may be given several times
    #[arg(long = "filter", value_name = "EXPR", requires = "place")]
    filters: Vec<String>,
    /// Only print which versions would be changed
    #[arg(long)]
    dry_run: bool,
}

impl Where {
    /// Returns whether conditions were given.
    pub fn is_given(&self) -> bool {
        self.place.is_some()
    }

    /// Returns the versions that `texts` name and those for which the conditions hold.
    pub fn chosen(&self, texts: &[String]) -> Result<Chosen> {
        let place = self.place.as_deref();
        let selection = place.map(|place| selection(place, &self.filters)).transpose()?;
        if texts.is_empty() && selection.is_none() {
            return Err(Error::new(Kind::Usage, "no version is named")
                .hint("give references, or --in and --filter"));
        }
        Ok(Chosen { references: parse_all(texts)?, selection, dry_run: self.dry_run })
    }
}

/// Parses `PROJECT` or `PROJECT/ARTIFACT`.
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

/// Returns the reference if exactly one is given, without conditions and without `--dry-run`.
pub fn only(chosen: &Chosen) -> Option<Reference> {
    match &chosen.references[..] {
        [reference] if chosen.selection.is_none() && !chosen.dry_run => Some(reference.clone()),
        _ => None,
    }
}

/// Prints which versions were changed, or would be.
///
/// # Errors
/// The error of the first change that failed, after the changed versions have been printed.
pub fn print_changed(context: &Context, dry_run: bool, changed: Changed) -> Result<u8> {
    let texts = |references: &[Reference]| -> Vec<String> {
        references.iter().map(ToString::to_string).collect()
    };
    let (done, left) = (texts(&changed.done), texts(&changed.left));
    let document = json!({ "changed": done, "left": left, "dry_run": dry_run });
    context.output.print(document, || done.clone());
    let verb = if dry_run { "would be changed" } else { "changed" };
    context.output.note(&format!("{} {verb}", counted(done.len(), "version")));
    if !left.is_empty() {
        context.output.note(&format!("not changed: {}", left.join(" ")));
    }
    changed.error.map_or(Ok(exit::DONE), Err)
}

/// Prints a version that was changed.
pub fn print_version(context: &Context, info: &VersionInfo) {
    context.output.print(version(info), || {
        let names: Vec<_> = info.aliases.iter().map(|alias| alias.as_str()).collect();
        vec![format!("{}  {}", info.reference(), names.join(",")).trim_end().to_owned()]
    });
}
