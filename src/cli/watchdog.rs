//! `watchdog`: the process that ends mounts that do not respond.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit;
use artifactfs::daemon::watchdog::watch;
use artifactfs::error::{Error, Kind, Result};

#[derive(Args)]
pub struct Watchdog {
    /// The seconds that a mount may take to reply
    #[arg(long)]
    seconds: u64,
    /// Number of a FUSE connection, and its mount point
    #[arg(long = "mount", value_name = "NUMBER:DIR")]
    mounts: Vec<String>,
}

/// Watches the mounts until the daemon ends.
pub fn watchdog(verb: &Watchdog) -> Result<u8> {
    let parse = |text: &String| {
        let (number, target) = text.split_once(':')?;
        Some((number.parse::<u32>().ok()?, PathBuf::from(target)))
    };
    let mounts: Option<Vec<_>> = verb.mounts.iter().map(parse).collect();
    let mounts = mounts.ok_or_else(|| Error::new(Kind::Usage, "--mount is not NUMBER:DIR"))?;
    watch(Duration::from_secs(verb.seconds), &mounts);
    Ok(exit::DONE)
}
