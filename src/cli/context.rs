//! The settings that every verb gets.

use super::output::Output;
use artifactfs::config::Config;
use artifactfs::content::options::StoreOptions;
use artifactfs::error::Result;
use artifactfs::model::name::RunId;

/// The settings of one command.
pub struct Context {
    pub config: Config,
    pub access: StoreOptions,
    pub output: Output,
    /// The number of `-v` flags.
    pub verbose: u8,
}

impl Context {
    /// Returns the run that `$ARTIFACTFS_RUN` names, if any.
    pub fn run(&self) -> Result<Option<RunId>> {
        self.config.run.value.as_deref().map(parse).transpose()
    }
}

/// Parses a name; a bad one has its own exit code, not that of a wrong command line.
pub fn parse<T>(text: &str) -> Result<T>
where
    T: std::str::FromStr,
    artifactfs::error::Error: From<T::Err>,
{
    Ok(text.parse()?)
}

pub fn parse_all<T>(texts: &[String]) -> Result<Vec<T>>
where
    T: std::str::FromStr,
    artifactfs::error::Error: From<T::Err>,
{
    texts.iter().map(|text| parse(text)).collect()
}
