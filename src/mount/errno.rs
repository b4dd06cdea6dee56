//! What a kind of error means to a system call.

use fuser::Errno;

use crate::error::{Error, Kind};

/// The errno.
pub const fn of(kind: Kind) -> Errno {
    match kind {
        Kind::Usage | Kind::BadName => Errno::EINVAL,
        Kind::NotFound => Errno::ENOENT,
        Kind::Conflict => Errno::EBUSY,
        Kind::Denied => Errno::EACCES,
        Kind::ReadOnly => Errno::EROFS,
        Kind::Corrupt | Kind::Unavailable => Errno::EIO,
        Kind::TimedOut => Errno::ETIMEDOUT,
        Kind::WouldBlock => Errno::EAGAIN,
        Kind::Full => Errno::ENOSPC,
        Kind::Stale => Errno::ESTALE,
        Kind::Unsupported => Errno::EOPNOTSUPP,
    }
}

/// The errno of an error that a reader meets; damage and failures leave a line in the log.
pub fn report(what: &str, error: &Error) -> Errno {
    match error.kind() {
        Kind::Corrupt | Kind::Unavailable | Kind::TimedOut | Kind::Unsupported | Kind::Full => {
            tracing::error!("{what}: {error}");
        }
        _ => tracing::debug!("{what}: {error}"),
    }
    of(error.kind())
}
