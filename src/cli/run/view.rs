//! The view of a run: its command sees the files of the run at each mount point.
//!
//! `artifactfs enter` starts in place of the command, has one thread, and executes it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use artifactfs::config;
use artifactfs::error::{Error, IoContext, Kind, Result};

/// The exit code for a command that is not found (POSIX, Shell Command Language, 2.8.2).
pub const NO_COMMAND: u8 = 127;
/// The exit code for a command that cannot be executed (as above).
pub const NOT_RUNNABLE: u8 = 126;

/// Execute a command in the view of a run.
#[derive(Args)]
pub struct Enter {
    /// A directory of the run's view
    #[arg(long)]
    view: Vec<PathBuf>,
    /// The mount point to put it over, one for each --view
    #[arg(long)]
    at: Vec<PathBuf>,
    /// Only try whether a user namespace can do it
    #[arg(long)]
    trial: bool,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub fn enter(verb: Enter) -> Result<u8> {
    let pairs: Vec<_> = verb.view.iter().zip(&verb.at).collect();
    if verb.trial {
        return separate_user(&pairs).map(|()| super::super::exit::DONE);
    }
    let mut command = Command::new(&verb.command[0]);
    command.args(&verb.command[1..]);
    if let Some((view, at)) = pairs.first() {
        let way = look(&pairs);
        tracing::info!("{}: {}", at.display(), way.describe());
        let root = if way == Way::Variable { view } else { at };
        command.env(config::ROOT_VARIABLE, root);
    }
    let error = command.exec();
    let program = verb.command[0].to_string_lossy();
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => NO_COMMAND,
        _ => NOT_RUNNABLE,
    };
    super::super::output::print_error(&Error::io(format!("cannot run {program}"), error), false);
    Ok(code)
}

/// The way in which a command gets its view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Namespace,
    UserNamespace,
    Variable,
}

impl Way {
    fn describe(self) -> &'static str {
        match self {
            Self::Namespace => "seen by the run through a mount namespace",
            Self::UserNamespace => "seen by the run through a user and mount namespace",
            Self::Variable => "no namespace is allowed: the run's view is at $ARTIFACTFS_ROOT",
        }
    }
}

fn look(pairs: &[(&PathBuf, &PathBuf)]) -> Way {
    match separate(UnshareFlags::NEWNS) {
        Ok(()) => match cover(pairs) {
            Ok(()) => return Way::Namespace,
            Err(e) => tracing::info!("{e}"),
        },
        Err(e) => match in_user_namespace(pairs) {
            Ok(()) => return Way::UserNamespace,
            Err(other) => tracing::info!("{e}; {other}"),
        },
    }
    Way::Variable
}

/// Enters a user namespace. Another process tries first, since there is no way back out of one.
fn in_user_namespace(pairs: &[(&PathBuf, &PathBuf)]) -> Result<()> {
    let refused = |e| Error::io("cannot try a user namespace", e);
    let mut trial = Command::new(std::env::current_exe().map_err(refused)?);
    trial.args(["enter", "--trial"]);
    for (view, at) in pairs {
        trial.arg("--view").arg(view).arg("--at").arg(at);
    }
    let ended = trial.args(["--", "true"]).output().map_err(refused)?;
    if !ended.status.success() {
        let message = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        return Err(Error::new(Kind::Denied, message));
    }
    separate_user(pairs)
}

fn separate_user(pairs: &[(&PathBuf, &PathBuf)]) -> Result<()> {
    separate(UnshareFlags::NEWNS | UnshareFlags::NEWUSER)?;
    cover(pairs)
}

#[allow(unsafe_code)]
fn separate(flags: UnshareFlags) -> Result<()> {
    let refused = |e: rustix::io::Errno| Error::io("cannot create a namespace", e.into());
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // SAFETY: this process has one thread and no descriptors are unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(refused)?;
    if flags.contains(UnshareFlags::NEWUSER) {
        let say = |name: &str, text: String| {
            let path = Path::new("/proc/self").join(name);
            fs::write(&path, text).at("write", &path)
        };
        // Without this an unprivileged process may not map its group (user_namespaces(7)).
        say("setgroups", "deny".to_owned())?;
        say("uid_map", format!("{uid} {uid} 1"))?;
        say("gid_map", format!("{gid} {gid} 1"))?;
    }
    // Later mounts outside are seen here; mounts made here are not seen outside.
    let below = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", below).map_err(refused)
}

fn cover(pairs: &[(&PathBuf, &PathBuf)]) -> Result<()> {
    for (view, at) in pairs {
        mount_bind(view.as_path(), at.as_path()).at("mount the view on", at)?;
    }
    // A working directory below a mount point still refers to the covered directory.
    let here = std::env::current_dir().map_err(|e| Error::io("cannot find this directory", e))?;
    match std::env::set_current_dir(&here) {
        Err(e) if pairs.iter().any(|(_, at)| here.starts_with(at)) => {
            Err(Error::new(Kind::Unavailable, format!("cannot go to {}", here.display()))
                .because(e))
        }
        _ => Ok(()),
    }
}
