//! `delete`.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::context::{Context, parse};
use super::output::bytes;
use super::{connect, exit};
use artifactfs::error::Result;
use artifactfs::model::reference::Reference;
use artifactfs::ops::garbage::Reclaim;

#[derive(Args)]
pub struct Delete {
    /// The version: project/artifact:alias
    reference: String,
    /// Delete the version even if it has aliases; never one with a protected alias
    #[arg(long)]
    delete_aliases: bool,
    /// The time to free dead bytes between live ones; `later` leaves them to `gc`
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    purge: When,
}

/// The time when dead bytes between live ones are freed.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum When {
    /// At once
    #[default]
    Now,
    /// With the next `gc`
    Later,
}

impl From<When> for Reclaim {
    fn from(when: When) -> Self {
        match when {
            When::Now => Self::Now,
            When::Later => Self::Later,
        }
    }
}

pub fn delete(context: &Context, verb: Delete) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let repository = connect::open_repository(context)?;
    let when = verb.purge.into();
    let done = artifactfs::ops::delete::delete(&repository, &reference, verb.delete_aliases, when);
    let (info, freed) = done?;
    let reference = info.reference().to_string();
    let document = json!({ "deleted": reference, "freed_bytes": freed });
    context
        .output
        .print(document, || vec![format!("{reference}  deleted, {} freed", bytes(freed))]);
    Ok(exit::DONE)
}
