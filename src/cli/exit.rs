//! What a kind of error means to `$?`.

use artifactfs::error::Kind;

/// Done.
pub const DONE: u8 = 0;
/// What was compared differs, as with diff(1).
pub const DIFFERS: u8 = 1;
/// The command line is wrong; clap's own choice, and that of most programs.
pub const USAGE: u8 = 2;

/// The exit code.
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
