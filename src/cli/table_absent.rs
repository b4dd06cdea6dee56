//! `table` in a build without the feature `tables`: it says so.

use std::ffi::OsString;

use clap::Subcommand;

use super::context::Context;
use artifactfs::error::{Error, Result};

#[derive(Subcommand)]
pub enum TableVerb {
    /// Whatever was to be done with a table.
    #[command(external_subcommand)]
    Any(Vec<OsString>),
}

/// Refuses to read a table.
pub fn table(_: &Context, TableVerb::Any(words): TableVerb) -> Result<u8> {
    let verb = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    Err(Error::left_out(&format!("`table {verb}` cannot be done"), "tables"))
}
