//! `umount`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::context::Context;
use super::{connect, exit};
use artifactfs::daemon::{DaemonRecord, daemons};
use artifactfs::error::{Error, IoContext, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::mount::{OtherMount, SOURCE_NAME, find_other_mounts, mounts, unmount_if_idle};
use artifactfs::ops::process_id;
use artifactfs::ops::repository::Layout;

/// The longest time that a daemon may take to end.
const END_DEADLINE: Duration = Duration::from_secs(30);
/// The longest time until a daemon whose mounts are used elsewhere records this.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);
/// The time between two looks at the record or the process.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// The largest number of places that are named one by one.
const NAMED_MAX: usize = 8;

#[derive(Args)]
pub struct Umount {
    /// The mount point
    directory: PathBuf,
    /// Unmount even if it is in use: it ends with its last user
    #[arg(short, long)]
    lazy: bool,
}

pub fn umount(context: &Context, verb: Umount) -> Result<u8> {
    // The path of a dead mount cannot be canonicalized, and is used as it is.
    let absolute = std::path::absolute(&verb.directory).at("find", &verb.directory)?;
    let target = fs::canonicalize(&absolute).unwrap_or(absolute);
    let layout = connect::layout_of_mounted(context)?;
    is_ours(&layout, &target)?;
    let daemon = daemons(&layout)?.into_iter().find(|daemon| {
        let staging = daemon.staging.as_ref().is_some_and(|path| *path == target);
        !daemon.left && (daemon.mount == target || staging)
    });
    // If it is in use, this fails before anything else is unmounted.
    unmount_if_idle(&target, verb.lazy)?;
    let mut held = None;
    if let Some(daemon) = &daemon
        && unmount_others(context, daemon, &target)?
    {
        held = wait_for_end(&layout, daemon)?;
    }
    let shown = target.display().to_string();
    if let (Some(daemon), Some(held)) = (&daemon, &held) {
        let mut running = daemons(&layout)?.into_iter();
        match running.find(|other| other.holder == daemon.holder && other.commits) {
            Some(daemon) => print_commits(context, &shown, daemon.pid),
            None => print_users(context, &shown, daemon.pid, held),
        }
    }
    context
        .output
        .print(json!({ "unmounted": shown, "elsewhere": held.unwrap_or_default() }), Vec::new);
    Ok(exit::DONE)
}

/// Checks that `target` is a mount of artifactfs.
fn is_ours(layout: &Layout, target: &Path) -> Result<()> {
    match mounts().into_iter().rfind(|(_, point)| point == target) {
        Some((source, _)) if source != SOURCE_NAME => {
            let what = format!("{} is a mount of {source}, not of artifactfs", target.display());
            Err(Error::new(Kind::Conflict, what).hint("`umount` unmounts it"))
        }
        Some(_) => Ok(()),
        None => {
            let what = format!("{} is not mounted", target.display());
            let left =
                daemons(layout)?.into_iter().find(|daemon| daemon.left && daemon.mount == target);
            let hint = left.map_or_else(
                || "`artifactfs status` lists the mounts".to_owned(),
                |daemon| {
                    let pid = daemon.pid;
                    format!("its daemon, process {pid}, still serves it elsewhere: `artifactfs status` says where")
                },
            );
            Err(Error::new(Kind::NotFound, what).hint(hint))
        }
    }
}

fn print_commits(context: &Context, target: &str, pid: u32) {
    context.output.note(&format!(
        "artifactfs: {target} is unmounted; a draft is being committed, and the daemon, process {pid}, ends after that"
    ));
}

fn print_users(context: &Context, target: &str, pid: u32, held: &[OtherMount]) {
    let mut places: Vec<_> = held.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if held.len() > NAMED_MAX {
        places.push(counted(held.len() - NAMED_MAX, "more place"));
    }
    if held.is_empty() {
        places.push("a place that cannot be inspected".to_owned());
    }
    let places = places.join(", ");
    let what = format!(
        "artifactfs: {target} is unmounted here and still used at {places}; the daemon, process {pid}, ends with \
         the last of them"
    );
    context.output.note(&what);
}

/// Unmounts what else the daemon serves. Returns `false` if that is in use and ends with its last
/// user.
fn unmount_others(context: &Context, daemon: &DaemonRecord, done: &Path) -> Result<bool> {
    let mut idle = true;
    for other in daemon.staging.iter().chain([&daemon.mount]).filter(|path| *path != done) {
        if !mounts().iter().any(|(_, at)| at == other) {
            continue;
        }
        match unmount_if_idle(other, false) {
            Err(e) if e.kind() == Kind::Conflict => {
                unmount_if_idle(other, true)?;
                let what = format!("{}: it ends with its last user", e.message());
                context.output.note(&format!("artifactfs: {what}"));
                idle = false;
            }
            unmounted => unmounted?,
        }
    }
    Ok(idle)
}

/// Waits for the end of the daemon, which follows that of its mounts; after a tenth of the deadline
/// it gets SIGTERM. If its mounts are still used, returns the places, as far as they can be seen.
fn wait_for_end(layout: &Layout, daemon: &DaemonRecord) -> Result<Option<Vec<OtherMount>>> {
    let start = Instant::now();
    let mut noted = false;
    let mut look = !find_other_mounts(&daemon.devices(), &[]).is_empty();
    while !process_id::is_dead(&daemon.holder) {
        let late = start.elapsed() > END_DEADLINE;
        if look || late {
            let held = still_used(layout, daemon)?;
            if !held.is_empty() {
                return Ok(Some(held));
            }
            // Propagated mounts have gone meanwhile.
            look = false;
        }
        if late {
            let what = format!("the daemon, process {}, does not end", daemon.pid);
            return Err(Error::new(Kind::Unavailable, what)
                .hint(format!("`kill -9 {}`: nothing committed is lost", daemon.pid)));
        }
        if start.elapsed() > END_DEADLINE / 10 && !noted {
            noted = true;
            let same = |other: &DaemonRecord| other.holder == daemon.holder && other.left;
            if daemons(layout)?.iter().any(same) {
                return Ok(Some(Vec::new()));
            }
            let pid = i32::try_from(daemon.pid).ok().and_then(Pid::from_raw);
            // The process may just have ended.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        std::thread::sleep(POLL_EVERY);
    }
    Ok(None)
}

/// Waits until the daemon has recorded that it has left, and so has given up the drafts. Returns
/// the places where its mounts are still used.
fn still_used(layout: &Layout, daemon: &DaemonRecord) -> Result<Vec<OtherMount>> {
    let start = Instant::now();
    loop {
        let mut running = daemons(layout)?.into_iter();
        let Some(now) = running.find(|other| other.holder == daemon.holder) else {
            return Ok(Vec::new());
        };
        if now.left || start.elapsed() > LEAVE_DEADLINE {
            return Ok(find_other_mounts(&now.devices(), &[]));
        }
        std::thread::sleep(POLL_EVERY);
    }
}
