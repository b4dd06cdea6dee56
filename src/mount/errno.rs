//! What a kind of error means to a system call.

use rustix::io::Errno;

use crate::error::{Error, Kind};

/// The errno.
pub const fn of(kind: Kind) -> Errno {
    match kind {
        Kind::Usage | Kind::BadName => Errno::INVAL,
        Kind::NotFound => Errno::NOENT,
        Kind::Conflict => Errno::BUSY,
        Kind::Denied => Errno::ACCESS,
        Kind::ReadOnly => Errno::ROFS,
        Kind::Corrupt | Kind::Unavailable => Errno::IO,
        Kind::TimedOut => Errno::TIMEDOUT,
        Kind::WouldBlock => Errno::AGAIN,
        Kind::Full => Errno::NOSPC,
        Kind::Stale => Errno::STALE,
        Kind::Unsupported => Errno::OPNOTSUPP,
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
