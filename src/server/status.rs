//! The HTTP status of each kind of error.

use crate::error::Kind;

/// Returns the status of a kind (RFC 9110).
pub(crate) const fn of(kind: Kind) -> u16 {
    match kind {
        Kind::Usage | Kind::BadName => 400,
        Kind::Denied | Kind::ReadOnly => 403,
        Kind::NotFound => 404,
        Kind::Conflict => 409,
        Kind::Stale => 410,
        Kind::Unsupported => 501,
        Kind::Corrupt => 500,
        Kind::Unavailable | Kind::WouldBlock => 503,
        Kind::TimedOut => 504,
        Kind::Full => 507,
    }
}
