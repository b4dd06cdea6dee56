//! Output for people and programs: data on stdout, everything else on stderr.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::hints;
use super::text::harmless;
use artifactfs::error::Error;
use artifactfs::model::host::Host;
use artifactfs::model::time::Timestamp;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::put::Progress;

/// The output settings of a verb.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// True to print one JSON document instead of text.
    pub json: bool,
    /// True to print nothing but data and errors.
    pub quiet: bool,
}

impl Output {
    /// Prints `document` with `--json`, otherwise the lines of `text`.
    pub fn print(self, document: Value, text: impl FnOnce() -> Vec<String>) {
        let mut out = std::io::stdout().lock();
        let printed = if self.json {
            writeln!(out, "{document:#}")
        } else {
            let terminal = out.is_terminal();
            let shown = |line: &String| if terminal { on_terminal(line) } else { line.clone() };
            text().iter().try_for_each(|line| writeln!(out, "{}", shown(line)))
        };
        end_quietly(printed.and_then(|()| out.flush()), self.json);
    }

    /// Prints a line on stderr, unless `--json` or `--quiet` is given.
    pub fn note(self, text: &str) {
        if !self.json && !self.quiet {
            print_line(&on_stderr(text));
        }
    }
}

/// Escapes control characters except line ends: names come from others, and a terminal obeys them.
fn on_terminal(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| harmless(line.as_bytes())).collect();
    lines.join("\n")
}

fn on_stderr(text: &str) -> String {
    if std::io::stderr().is_terminal() { on_terminal(text) } else { text.to_owned() }
}

/// Writes a line to stderr; a failure is ignored, since nothing reads it then.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Ends the process if printing failed: with 0 if the reader closed the pipe (`| head`).
pub fn end_quietly(printed: std::io::Result<()>, json: bool) {
    match printed {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            let error = Error::io("cannot write to stdout", e);
            print_error(&error, json);
            std::process::exit(i32::from(super::exit::code(error.kind())));
        }
        Ok(()) => {}
    }
}

/// Prints an error: the message, then the hint.
pub fn print_error(error: &Error, json: bool) {
    let hints: Vec<String> = error.hints().iter().map(hints::text).collect();
    if json {
        let hint = hints.join("; ");
        let hint = (!hint.is_empty()).then_some(hint);
        let document = json!({
            "error": { "kind": error.kind(), "message": error.message(), "hint": hint }
        });
        print_line(&format!("{document:#}"));
        return;
    }
    print_line(&format!("artifactfs: {}", on_stderr(&error.message())));
    for hint in hints {
        print_line(&format!("  hint: {}", on_stderr(&hint)));
    }
}

/// Formats a number of bytes: `1.50 MiB`.
pub fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// Formats the time that passed since `since`: `3 minutes`.
pub fn age(since: Timestamp) -> String {
    let now = Host::system().now().0;
    let passed = Duration::from_millis(now.saturating_sub(since.0));
    HumanDuration(passed).to_string()
}

/// Formats rows as lines; a column is as wide as its widest cell, trailing blanks are cut.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// Joins names with commas.
pub fn joined<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Describes tags, expiry and protecting aliases of a version; empty if it has none.
pub fn remarks(info: &VersionInfo) -> String {
    let mut parts = Vec::new();
    if !info.tags.is_empty() {
        parts.push(format!("tags {}", joined(&info.tags)));
    }
    if let Some(at) = info.expires {
        let left = at.0.saturating_sub(Host::system().now().0);
        parts.push(match left {
            0 => "expired".to_owned(),
            left => format!("expires in {}", HumanDuration(Duration::from_millis(left))),
        });
    }
    if !info.protected.is_empty() {
        parts.push(format!("protected by {}", joined(&info.protected)));
    }
    parts.join("; ")
}

/// A progress bar on a terminal, nothing in a pipe.
pub struct Bar(ProgressBar);

impl Bar {
    /// Creates a bar labelled `what`; `total_bytes` is `None` if the total is not known.
    pub fn new(what: &'static str, total_bytes: Option<u64>, output: Output) -> Self {
        if output.json || output.quiet || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = total_bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let style = match total_bytes {
            Some(_) => "{msg} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
            None => "{spinner} {msg} {bytes}  {bytes_per_sec}  {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(style).expect("the template is a constant"));
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Progress for Bar {
    fn advance(&self, _files: u64, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
