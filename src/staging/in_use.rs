//! Who uses a file of the host, as far as the kernel tells by granting a lease or not.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Whether somebody may write to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody has it open for writing, or mapped so that stores reach it.
    None,
    /// Somebody has.
    Some,
    /// The file system does not tell, or not this user.
    Untold,
}

impl Writers {
    /// Finds out by a lease on a file that is open for reading only: the kernel grants it only when nobody
    /// can write to the file, not even by a mapping of a closed one.
    pub fn of(file: &File) -> Self {
        match lease(file, libc::F_RDLCK) {
            Ok(()) => Self::None,
            Err(Some(libc::EAGAIN)) => Self::Some,
            Err(_) => Self::Untold,
        }
    }
}

/// Whether somebody but the holder of `file`, which is open for reading and writing, has it open or
/// mapped, as far as the file system tells.
pub fn is_used_elsewhere(file: &File) -> bool {
    lease(file, libc::F_WRLCK) == Err(Some(libc::EAGAIN))
}

/// Takes a lease and gives it back at once. The error number when it is not granted.
#[allow(unsafe_code)]
fn lease(file: &File, kind: libc::c_int) -> std::result::Result<(), Option<i32>> {
    /// `F_SETSIG` of fcntl(2), which libc does not have for this target.
    const F_SETSIG: libc::c_int = 10;
    let fd = file.as_raw_fd();
    // SAFETY: these commands take an integer each and touch no memory; the descriptor is open for as
    // long as `file` is borrowed. Who opens the file meanwhile makes the kernel send a signal; SIGURG
    // is one that is ignored unless somebody waits for it.
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
