//! What `put` and `commit` say about the version they make.

use clap::Args;

use super::context::{Context, parse, parse_all};
use artifactfs::error::{IoContext, Result};
use artifactfs::model::metadata::Metadata;
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::reference::ArtifactPath;
use artifactfs::model::version::Description;

#[derive(Args)]
pub struct Properties {
    /// An alias of the new version, beside latest; may be given several times
    #[arg(short, long = "alias")]
    aliases: Vec<String>,
    /// Its type [default: dataset]
    #[arg(short = 't', long = "type")]
    artifact_type: Option<String>,
    /// What to say about it
    #[arg(short, long)]
    description: Option<String>,
    /// A JSON object, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    metadata: Option<String>,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// How long it lives, from its creation on: 30d, 12h; never; inherit, as its artifact says [default]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    ttl: Option<String>,
}

impl Properties {
    /// Returns the version of the artifact `path` that is made in this run, if in one.
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

/// A description from the command line.
pub fn description(text: &str) -> Result<String> {
    Ok(parse::<Description>(text)?.0)
}

/// Metadata from the command line.
pub fn metadata(text: &str) -> Result<Metadata> {
    let Some(file) = text.strip_prefix('@') else { return text.parse() };
    std::fs::read_to_string(file).at("read", file.as_ref())?.parse()
}
