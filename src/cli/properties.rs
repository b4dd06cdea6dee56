//! The flags for the properties of a new version, shared by the verbs that create versions.

use clap::Args;

use super::context::{Context, parse, parse_all};
use artifactfs::error::{IoContext, Result};
use artifactfs::model::metadata::Metadata;
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::reference::ArtifactPath;
use artifactfs::model::version::Description;

#[derive(Args)]
pub struct Properties {
    /// An alias for the new version, besides latest; may be given several times
    #[arg(short, long = "alias")]
    aliases: Vec<String>,
    /// The type of the artifact [default: dataset]
    #[arg(short = 't', long = "type")]
    artifact_type: Option<String>,
    /// The description
    #[arg(short, long)]
    description: Option<String>,
    /// The metadata: a JSON object, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    metadata: Option<String>,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// The time to live from creation: 30d, 12h, never, or inherit (from the artifact) [default:
    /// inherit]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    ttl: Option<String>,
}

impl Properties {
    /// Returns the properties of a new version of `path`, and the current run if there is one.
    pub fn new_version(&self, path: ArtifactPath, context: &Context) -> Result<NewVersion> {
        Ok(NewVersion {
            path,
            artifact_type: self.artifact_type.as_deref().map(parse).transpose()?,
            aliases: parse_all(&self.aliases)?,
            description: self.description.as_deref().map(description).transpose()?,
            metadata: self.metadata.as_deref().map(metadata).transpose()?,
            expect: None,
            run: context.run()?,
            ttl: self.ttl.as_deref().map(parse).transpose()?,
            tags: parse_all(&self.tags)?,
        })
    }
}

/// Parses a description from the command line.
pub fn description(text: &str) -> Result<String> {
    Ok(parse::<Description>(text)?.0)
}

/// Parses metadata from the command line: a JSON object, or `@` and the name of a file.
pub fn metadata(text: &str) -> Result<Metadata> {
    let Some(file) = text.strip_prefix('@') else { return text.parse() };
    std::fs::read_to_string(file).at("read", file.as_ref())?.parse()
}
