//! `watchdog`: ends mounts that do not answer.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit;
use artifactfs::daemon::watchdog::watch;
use artifactfs::error::{Error, Kind, Result};

#[derive(Args)]
pub struct Watchdog {
    /// How long a mount may take to answer
    #[arg(long)]
    seconds: u64,
    /// Number of a connection, and where it is mounted
    #[arg(long = "mount", value_name = "NUMBER:DIR")]
    mounts: Vec<String>,
}

/// Watches until the daemon ends.
pub fn watchdog(verb: &Watchdog) -> Result<u8> {
    let parse = |text: &String| {
        let (number, target) = text.split_once(':')?;
        Some((number.parse::<u32>().ok()?, PathBuf::from(target)))
    };
    let mounts: Option<Vec<_>> = verb.mounts.iter().map(parse).collect();
    let mounts = mounts.ok_or_else(|| Error::new(Kind::Usage, "write --mount NUMBER:DIR"))?;
    watch(Duration::from_secs(verb.seconds), &mounts);
    Ok(exit::DONE)
}
