//! A process beside the daemon that ends mounts which do not answer: who waits for one is in the kernel,
//! where no signal reaches him.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::Args;
use rustix::mount::MountFlags;
use rustix::process::{Signal, kill_process};

use super::exit;
use crate::error::{Error, IoContext, Kind, Result};
use crate::mount::{SOURCE_NAME, mounts_with_devices};

#[derive(Args)]
pub struct Watchdog {
    /// How long a mount may take to answer
    #[arg(long)]
    seconds: u64,
    /// Number of a connection, and where it is mounted
    #[arg(long = "mount", value_name = "NUMBER:DIR")]
    mounts: Vec<String>,
}

/// Starts one for mounts that are up; it ends when its standard input does, so when this process ends.
///
/// # Errors
/// When the program cannot be started.
pub fn start(seconds: u64, targets: &[PathBuf]) -> Result<Child> {
    let program = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let mut command = Command::new(program);
    command.args(["watchdog", "--seconds", &seconds.to_string()]);
    for target in targets {
        let device = std::fs::metadata(target).at("stat", target)?.dev();
        let number = rustix::fs::minor(device);
        command.arg("--mount").arg(format!("{number}:{}", target.display()));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().map_err(|e| Error::io("cannot start the watchdog", e))
}

/// Watches until the daemon ends.
pub fn watch(verb: &Watchdog) -> Result<u8> {
    let parse = |text: &String| {
        let (number, target) = text.split_once(':')?;
        Some((number.parse::<u32>().ok()?, PathBuf::from(target)))
    };
    let mounts: Option<Vec<_>> = verb.mounts.iter().map(parse).collect();
    let mounts = mounts.ok_or_else(|| Error::new(Kind::Usage, "write --mount NUMBER:DIR"))?;
    let (ended, end) = channel::<()>();
    std::thread::spawn(move || {
        // Nothing is ever written: it returns when the daemon is gone.
        let _ = std::io::stdin().read(&mut [0]);
        drop(ended);
    });
    let limit = Duration::from_secs(verb.seconds);
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(limit / 2) {
        for (number, target) in &mounts {
            if is_ours(*number, target) && !answers(target, limit) {
                tracing::error!(
                    "{} has not answered for {} s: it is ended",
                    target.display(),
                    limit.as_secs()
                );
                abort(*number, target);
            }
        }
    }
    Ok(exit::DONE)
}

/// Room is what the kernel never answers by itself.
fn answers(target: &Path, limit: Duration) -> bool {
    let (answer, answered) = channel();
    let path = target.to_owned();
    // It may never come back; then it ends with this process.
    std::thread::spawn(move || answer.send(rustix::fs::statvfs(&path).is_ok()));
    !matches!(answered.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
}

/// Whether the mount is still there: numbers are used again.
fn is_ours(number: u32, target: &Path) -> bool {
    mounts_with_devices().iter().any(|(device, source, point)| {
        *device == number && source == SOURCE_NAME && point == target
    })
}

/// Where the kernel lets connections be ended (kernel.org, "The FUSE control filesystem").
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

fn abort(number: u32, target: &Path) {
    if !is_ours(number, target) {
        return;
    }
    let path = Path::new(CONNECTIONS).join(number.to_string()).join("abort");
    if !path.exists() {
        // Most systems have it mounted; who may not mount it is told below.
        let _ = rustix::mount::mount("none", CONNECTIONS, "fusectl", MountFlags::empty(), None);
    }
    let Err(e) = std::fs::write(&path, "1") else { return };
    tracing::warn!("{}: cannot be ended: {e}; the daemon is killed", target.display());
    // Its end closes the connection.
    if let Some(daemon) = rustix::process::getppid()
        && let Err(e) = kill_process(daemon, Signal::KILL)
    {
        tracing::error!("the daemon cannot be killed: {e}");
    }
}
