//! Users of a file, as far as the kernel reveals them by granting a lease or not.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The writers of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// No process has it open for writing or mapped for writing.
    None,
    /// At least one process has.
    Some,
    /// The file system, or the rights of this user, do not reveal it.
    Untold,
}

impl Writers {
    /// Checks a file that is open for reading only, by a lease. The kernel grants it only if no
    /// process can write to the file, not even through a mapping of a closed one.
    pub(crate) fn of(file: &File) -> Self {
        match lease(file, libc::F_RDLCK) {
            Ok(()) => Self::None,
            Err(Some(libc::EAGAIN)) => Self::Some,
            Err(_) => Self::Untold,
        }
    }
}

/// Returns whether `file`, which is open for reading and writing, is also open or mapped elsewhere,
/// as far as the file system reveals it.
pub(crate) fn is_used_elsewhere(file: &File) -> bool {
    lease(file, libc::F_WRLCK) == Err(Some(libc::EAGAIN))
}

/// Takes a lease and releases it at once; the error is the errno if the kernel does not grant it.
#[allow(unsafe_code)]
fn lease(file: &File, kind: libc::c_int) -> std::result::Result<(), Option<i32>> {
    /// `F_SETSIG` of fcntl(2), which libc does not have for this target.
    const F_SETSIG: libc::c_int = 10;
    let fd = file.as_raw_fd();
    // SAFETY: these commands take an integer each and touch no memory; the descriptor is open for
    // as long as `file` is borrowed. If the file is opened meanwhile, the kernel sends a signal;
    // SIGURG is ignored unless the process has a handler for it.
    let granted = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, kind) == 0
    };
    if !granted {
        return Err(io::Error::last_os_error().raw_os_error());
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    Ok(())
}
