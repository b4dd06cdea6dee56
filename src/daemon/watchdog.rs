//! A process beside the daemon that ends mounts that do not respond. Processes that wait for such a
//! mount wait in the kernel, where no signal reaches them.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::mount::MountFlags;
use rustix::process::{Signal, kill_process};

use super::process;
use crate::error::{Error, IoContext, Result};
use crate::mount::{SOURCE_NAME, mounts_with_devices};

/// Starts a watchdog for mounts that are up: this program, whose verb `watchdog` calls [`watch`].
/// It ends at the end of its standard input, which is when this process ends.
///
/// # Errors
/// Fails if the program cannot be started or a mount point cannot be read.
pub(crate) fn start(seconds: u64, targets: &[PathBuf]) -> Result<Child> {
    let program = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let mut command = Command::new(program);
    command.args(["watchdog", "--seconds", &seconds.to_string()]);
    for target in targets {
        let device = std::fs::metadata(target).at("stat", target)?.dev();
        let number = rustix::fs::minor(device);
        command.arg("--mount").arg(format!("{number}:{}", target.display()));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // A terminal that stops or interrupts a daemon in the foreground must not reach the watchdog.
    process::detach(&mut command);
    command.spawn().map_err(|e| Error::io("cannot start the watchdog", e))
}

/// Watches the mounts of the parent process, each a connection's number and a mount point, until
/// that process ends. Ends a mount that has not responded for `limit`.
pub fn watch(limit: Duration, mounts: &[(u32, PathBuf)]) {
    let (ended, end) = channel::<()>();
    std::thread::spawn(move || {
        // Nothing is ever written: the call returns when the daemon is gone.
        let _ = std::io::stdin().read(&mut [0]);
        drop(ended);
    });
    let mut slow = 0;
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(limit / 2) {
        let silent = |(number, target): &&(u32, PathBuf)| {
            is_ours(*number, target) && !answers(target, limit)
        };
        let silent: Vec<_> = mounts.iter().filter(silent).collect();
        if !silent.is_empty() && slow < SLOW_MAX && waits_for_disk() {
            slow += 1;
            tracing::warn!(
                "the daemon waits for its disk and gets more time ({slow} of {SLOW_MAX})"
            );
            continue;
        }
        for (number, target) in &silent {
            tracing::error!(
                "{} has not responded for {} s: the mount is ended",
                target.display(),
                limit.as_secs()
            );
            abort(*number, target);
        }
        if silent.is_empty() {
            slow = 0;
        }
    }
}

/// The number of times that a daemon that waits for its disk gets another `limit`. A daemon that
/// hangs in the kernel for another reason looks the same.
const SLOW_MAX: u32 = 10;
/// The kernel functions in which a thread waits for a FUSE reply. In the daemon that is its own
/// mount, so the reply never comes.
const FUSE_WAITS: [&str; 2] = ["request_wait_answer", "fuse"];

/// Reports whether a thread of the daemon waits uninterruptibly (proc_pid_stat(5), state `D`) for
/// anything but a FUSE mount. Then the disk may be slow, and the daemon not dead.
fn waits_for_disk() -> bool {
    let Some(daemon) = rustix::process::getppid() else { return false };
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.as_raw_nonzero()));
    tasks.into_iter().flatten().flatten().any(|task| {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit_once(')').map_or("", |(_, after)| after.trim_start());
        state.starts_with('D') && !FUSE_WAITS.iter().any(|name| read("wchan").starts_with(name))
    })
}

/// Reports whether a mount responds to statvfs within `limit`: the kernel never caches its result.
fn answers(target: &Path, limit: Duration) -> bool {
    let (answer, answered) = channel();
    let path = target.to_owned();
    // The call may never return; then the thread ends with this process.
    std::thread::spawn(move || answer.send(rustix::fs::statvfs(&path).is_ok()));
    !matches!(answered.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
}

/// Reports whether the mount is still there: the kernel reuses connections' numbers.
fn is_ours(number: u32, target: &Path) -> bool {
    mounts_with_devices().iter().any(|(device, source, point)| {
        *device == number && source == SOURCE_NAME && point == target
    })
}

/// The directory through which connections can be aborted (kernel.org, "The FUSE control
/// filesystem").
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

fn abort(number: u32, target: &Path) {
    if !is_ours(number, target) {
        return;
    }
    let path = Path::new(CONNECTIONS).join(number.to_string()).join("abort");
    if !path.exists() {
        // Most systems have it mounted. If the mount fails, the write below fails and is reported.
        let _ = rustix::mount::mount("none", CONNECTIONS, "fusectl", MountFlags::empty(), None);
    }
    let Err(e) = std::fs::write(&path, "1") else { return };
    tracing::warn!("cannot end {}: {e}; the daemon is killed", target.display());
    // The end of the daemon closes the connection.
    if let Some(daemon) = rustix::process::getppid()
        && let Err(e) = kill_process(daemon, Signal::KILL)
    {
        tracing::error!("cannot kill the daemon: {e}");
    }
}
