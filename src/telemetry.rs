//! What the program says of itself: structured lines on stderr or in a daemon's log file.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging: warnings, and with each `-v` more. `$ARTIFACTFS_LOG` takes the directives of
/// tracing-subscriber's `EnvFilter` and beats both.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("ARTIFACTFS_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},fuser=error")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
