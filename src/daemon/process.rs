//! The state that a process inherits from its parent, and the state that it must not inherit.
//!
//! Every command begins with [`set_up_signals`]. A process that outlives its command is started
//! with [`detach`]. It inherits neither open files, nor the current directory, nor the parent's
//! terminal, session and run.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit, umask};

use crate::config::{
    CONFIG_VARIABLE, Environment, KEY_FILE_VARIABLE, PROJECT_VARIABLE, ROOT_VARIABLE, RUN_VARIABLE,
};
use crate::error::{Error, Kind, Result};

/// The first descriptor after standard input, output and error.
const FIRST_OTHER: libc::c_int = 3;
/// The descriptors that are marked one by one if the kernel cannot mark all at once (before Linux
/// 5.11).
const DESCRIPTORS_MAX: libc::c_int = 1 << 16;
/// The minimum limit of open files for a mount: 36 were enough to start one, 32 were not.
const DESCRIPTORS_MIN: u64 = 64;
/// The permissions that group and others never get: to write into a repository.
const NEVER_OTHERS: Mode = Mode::WGRP.union(Mode::WOTH);
/// The variables that describe the command that started a daemon, or that command's service.
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
/// The variables that name files and folders, perhaps relative to the parent's current directory.
const NAME_FILES: [&str; 12] = [
    CONFIG_VARIABLE,
    KEY_FILE_VARIABLE,
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

/// Resets SIGCHLD and the signal mask, so that waits for children and signals work. If an ignored
/// SIGCHLD is inherited, the kernel reaps ended children itself, and waiting for them fails. Rust
/// opens closed standard descriptors before `main`.
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

/// Sets the umask so that others can never write into a repository, and its owner always has all
/// permissions.
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

/// Raises this process's limit of open files to the hard limit.
pub fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("cannot raise the limit of open files: {e}");
    }
}

/// Makes `command` inherit nothing from this process but standard input, output and error, and the
/// remaining environment.
#[allow(unsafe_code)]
pub fn detach(command: &mut Command) {
    command.current_dir("/");
    for name in NOT_TAKEN {
        command.env_remove(name);
    }
    let environment = Environment::of_process();
    for name in NAME_FILES {
        if let Some(value) = environment.get(name).filter(|value| is_relative(value))
            && let Ok(value) = std::path::absolute(value)
        {
            command.env(name, value);
        }
    }
    // SAFETY: between fork and exec it makes system calls only, none of which takes a lock or
    // memory.
    unsafe { command.pre_exec(leave) };
}

/// Replaces standard output by the null device, because a parent may wait for its end.
///
/// # Errors
/// Fails if the host has no null device.
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
    // In its own session a terminal that closes does not end it. The call fails for a session
    // leader, which needs no new session.
    let _ = rustix::process::setsid();
    // SAFETY: the calls have no pointers; SIGKILL, SIGSTOP and numbers that the C library keeps are
    // refused.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        // A write over the limit of file sizes fails one request and does not end the process.
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
