//! The settings that every verb gets.

use std::path::PathBuf;

use super::output::Output;
use artifactfs::config::Setting;
use artifactfs::content::options::StoreOptions;
use artifactfs::error::Result;
use artifactfs::model::name::RunId;
use artifactfs::ops::runs::RUN_VARIABLE;

/// The settings of one command.
pub struct Context {
    pub repo: Setting<PathBuf>,
    pub access: StoreOptions,
    /// True if a flag or a variable names the folder of the cache.
    pub cache_named: bool,
    pub output: Output,
    /// The number of `-v` flags.
    pub verbose: u8,
}

impl Context {
    /// Returns the run that `$ARTIFACTFS_RUN` names, if any.
    pub fn run(&self) -> Result<Option<RunId>> {
        match std::env::var(RUN_VARIABLE) {
            Ok(text) if !text.is_empty() => parse(&text).map(Some),
            _ => Ok(None),
        }
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
