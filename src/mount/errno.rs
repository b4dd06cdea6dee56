//! The errno of each kind of error.

use rustix::io::Errno;

use crate::error::{Error, Kind};

/// Returns the errno of a kind.
pub(crate) const fn of(kind: Kind) -> Errno {
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

/// Logs an error, damage and failures at level `error`, and returns its errno.
pub(crate) fn report(what: &str, error: &Error) -> Errno {
    match error.kind() {
        Kind::Corrupt | Kind::Unavailable | Kind::TimedOut | Kind::Unsupported | Kind::Full => {
            tracing::error!("{what}: {error}");
        }
        _ => tracing::debug!("{what}: {error}"),
    }
    of(error.kind())
}
