//! What a kind of error means to `$?`.

use artifactfs::error::Kind;

/// Done.
pub const DONE: u8 = 0;
/// A usage error, or "they differ".
pub const USAGE_OR_DIFFERS: u8 = 1;

/// The exit code.
pub const fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Usage => USAGE_OR_DIFFERS,
        Kind::BadName => 2,
        Kind::NotFound => 10,
        Kind::Conflict => 11,
        Kind::Denied | Kind::ReadOnly => 12,
        Kind::Corrupt => 13,
        Kind::Full => 14,
        Kind::Unavailable | Kind::TimedOut | Kind::WouldBlock | Kind::Stale | Kind::Unsupported => {
            15
        }
    }
}
