//! What the program says of itself: structured lines in the journal, on stderr, or in a daemon's log
//! file.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

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
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    // systemd says so to what it starts, whose stderr is the journal (systemd.exec(5)).
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let lines = journal.is_none().then_some(lines);
    tracing_subscriber::registry().with(filter).with(lines).with(journal).init();
}
