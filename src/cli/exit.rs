//! Exit codes, and the code of each kind of error.

use artifactfs::error::Kind;

/// The status of success.
pub const DONE: u8 = 0;
/// The status of a comparison that finds a difference, as diff(1) has it.
pub const DIFFERS: u8 = 1;
/// The status of a wrong command line, as clap and most programs have it.
pub const USAGE: u8 = 2;

/// Returns the exit code for a kind of error.
pub const fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Usage => USAGE,
        Kind::BadName => 3,
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
