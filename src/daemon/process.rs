//! What a process takes along from whoever started it, and what it must not.
//!
//! Every command begins with [`set_up_signals`]. A process that outlives its command is started with [`detach`]: what
//! its starter had open, where it stood, and what belongs to its terminal, session or run stay behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit, umask};

use crate::config::{PROJECT_VARIABLE, ROOT_VARIABLE};
use crate::error::{Error, Kind, Result};
use crate::ops::runs::RUN_VARIABLE;

/// The first descriptor after standard input, output and error.
const FIRST_OTHER: libc::c_int = 3;
/// Descriptors looked at one by one where the kernel cannot mark all of them (before Linux 5.11).
const DESCRIPTORS_MAX: libc::c_int = 1 << 16;
/// The minimum limit of open files for a mount: 36 were enough to start one, 32 were not.
const DESCRIPTORS_MIN: u64 = 64;
/// What group and others never get: to write into a repository.
const NEVER_OTHERS: Mode = Mode::WGRP.union(Mode::WOTH);
/// What is said of the command that started a daemon, or of the service it belongs to.
const NOT_TAKEN: [&str; 10] = [
    RUN_VARIABLE,
    PROJECT_VARIABLE,
    ROOT_VARIABLE,
    "JOURNAL_STREAM",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "PWD",
    "OLDPWD",
];
/// Files and folders that are named by the environment, perhaps from where the starter stands.
const NAME_FILES: [&str; 10] = [
    "HOME",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// Undoes what a starter may have set so that waiting for children and hearing signals work. Where an ignored
/// SIGCHLD is inherited, the kernel takes ended children away, and waiting for them fails. Standard
/// descriptors that are closed Rust opens before `main`.
#[allow(unsafe_code)]
pub fn set_up_signals() {
    // SAFETY: the set is initialised before it is read; no handler is installed.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Keeps what is made in a repository from being written by others, whatever the umask is; what its owner needs
/// is never taken.
pub fn protect() {
    let inherited = umask(NEVER_OTHERS);
    umask((inherited | NEVER_OTHERS) - Mode::RWXU);
}

/// Checks that this process may open enough files to serve a mount.
///
/// # Errors
/// [`Kind::Usage`] if the hard limit is below `DESCRIPTORS_MIN`.
pub fn ensure_descriptors() -> Result<()> {
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < DESCRIPTORS_MIN => {
            let what = format!(
                "this process may have {most} files open, and a mount needs {DESCRIPTORS_MIN}"
            );
            Err(Error::new(Kind::Usage, what).hint("raise the limit: `ulimit -Hn`"))
        }
        _ => Ok(()),
    }
}

/// Lets this process open as many files as it may.
pub fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the number of open files stays as it is: {e}");
    }
}

/// Makes `command` leave everything of its starter but standard input, output and error.
#[allow(unsafe_code)]
pub fn detach(command: &mut Command) {
    command.current_dir("/");
    for name in NOT_TAKEN {
        command.env_remove(name);
    }
    for name in NAME_FILES {
        if let Some(value) = std::env::var_os(name).filter(|value| is_relative(value))
            && let Ok(value) = std::path::absolute(value)
        {
            command.env(name, value);
        }
    }
    // SAFETY: between fork and exec it makes system calls only, none of which takes a lock or memory.
    unsafe { command.pre_exec(leave) };
}

/// Puts the null device in the place of standard output, which whoever started this process may wait for.
///
/// # Errors
/// None but of a host without a null device.
#[allow(unsafe_code)]
pub fn close_output() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    // SAFETY: both descriptors are open; the second is replaced in one step.
    let made = unsafe { libc::dup2(null.as_raw_fd(), libc::STDOUT_FILENO) };
    if made < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn is_relative(value: &OsStr) -> bool {
    !value.is_empty() && Path::new(value).is_relative()
}

#[allow(unsafe_code)]
fn leave() -> io::Result<()> {
    // Its own session: a terminal that closes does not end it. One that leads its session already stays in it.
    let _ = rustix::process::setsid();
    // SAFETY: the calls have no pointers; SIGKILL, SIGSTOP and numbers that the C library keeps are refused.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        // What a limit on file sizes refuses is an error of one request and not the end of the process.
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        let marked = libc::syscall(libc::SYS_close_range, FIRST_OTHER, libc::c_uint::MAX, flags);
        if marked != 0 {
            for descriptor in FIRST_OTHER..DESCRIPTORS_MAX {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    Ok(())
}
