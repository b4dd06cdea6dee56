//! Logging: structured lines in the journal, on stderr, or in a daemon's log file.
//!
//! A daemon logs the same line at most once a minute, and few lines altogether. Its file is
//! replaced before it is long. So a reader that tries again and again does not fill the disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// The time for which a repeated line is left out; then it is logged again, after a count.
const SAME_LINE_AFTER: Duration = Duration::from_secs(60);
/// The maximum number of lines whose last time is remembered.
const LINES_KEPT: usize = 256;
/// The maximum number of lines logged at once, however different they are.
const BURST_LINES: f64 = 500.0;
/// The number of lines a second after that.
const LINES_PER_SECOND: f64 = 0.5;
/// The maximum length of a log file; the previous one is kept beside it.
const LOG_MAX_BYTES: u64 = 8 << 20;

/// The log file of this process, if it is a daemon.
static KEPT: OnceLock<Kept> = OnceLock::new();

/// The readers of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The readers of a daemon's log. Programs that read files get an errno, so the log says what
    /// happened.
    Log,
    /// The operator of a server. The log also holds the audit log and the log of requests.
    Server,
    /// The user of a command, who gets its error from the command itself.
    Person,
    /// A program, or a user who wants nothing but errors.
    Nobody,
}

/// Starts logging: warnings, and more with each `-v`. Without it, a person gets no line of level
/// error, and [`Audience::Nobody`] no line at all. `$ARTIFACTFS_LOG` takes the directives of tracing-subscriber's
/// `EnvFilter` and overrides both.
pub fn start(verbose: u8, audience: Audience) {
    let level = match (verbose, audience) {
        (0, Audience::Nobody) => "off",
        (0, Audience::Server) => "warn,artifactfs=info,audit=info,access=info",
        (0, _) => "warn",
        (1, _) => "info",
        (2, _) => "debug",
        _ => "trace",
    };
    let wanted = EnvFilter::try_from_env("ARTIFACTFS_LOG").ok();
    let logs = matches!(audience, Audience::Log | Audience::Server);
    let errors = verbose > 0 || wanted.is_some() || logs;
    let filter = wanted.unwrap_or_else(|| EnvFilter::new(format!("{level},fuser=error")));
    let with_errors = filter_fn(move |line| errors || *line.level() != Level::ERROR);
    let lines = fmt::layer().with_writer(|| Lines);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let journal = stderr_is_journal().then(|| tracing_journald::layer().ok()).flatten();
    let lines = journal.is_none().then_some(lines);
    tracing_subscriber::registry().with(filter).with(with_errors).with(lines).with(journal).init();
}

/// Reports whether stderr is the journal that systemd names by device and inode (systemd.exec(5)).
/// The variable alone proves nothing: programs started from a desktop's terminal inherit it.
#[expect(clippy::disallowed_methods, reason = "it is a variable of systemd")]
fn stderr_is_journal() -> bool {
    let Ok(said) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(meta) = fs::metadata("/proc/self/fd/2") else { return false };
    said == format!("{}:{}", meta.dev(), meta.ino())
}

/// Bounds what this process logs from now on; its stderr is the file at `path`.
pub fn keep(path: &Path) {
    let limit = Mutex::new(Limit::new(Instant::now()));
    // The second call of a process changes nothing.
    let _ = KEPT.set(Kept { path: path.to_owned(), limit });
}

struct Kept {
    path: PathBuf,
    limit: Mutex<Limit>,
}

/// The writer of lines, one a call.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(kept) = KEPT.get() else { return io::stderr().write(line) };
        let mut limit = kept.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = limit.pass(line, Instant::now()) {
            begin_again(&kept.path)?;
            if left_out > 0 {
                writeln!(io::stderr(), "lines left out, repeated or too many: {left_out}")?;
            }
            io::stderr().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The state that decides which lines are logged.
struct Limit {
    /// The last time of each line, by its hash.
    said: HashMap<u64, Instant>,
    /// The number of lines that may be logged now.
    room: f64,
    since: Instant,
    left_out: u64,
}

impl Limit {
    fn new(now: Instant) -> Self {
        Self { said: HashMap::new(), room: BURST_LINES, since: now, left_out: 0 }
    }

    /// Returns how many lines before this one were left out, or `None` if this one is left out,
    /// too.
    fn pass(&mut self, line: &[u8], now: Instant) -> Option<u64> {
        let grown = now.duration_since(self.since).as_secs_f64() * LINES_PER_SECOND;
        self.room = (self.room + grown).min(BURST_LINES);
        self.since = now;
        // The time comes before the first space.
        let words = line.iter().position(|byte| *byte == b' ').map_or(line, |at| &line[at..]);
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        let key = hasher.finish();
        let lately = |said: &Instant| now.duration_since(*said) < SAME_LINE_AFTER;
        if self.said.get(&key).is_some_and(lately) || self.room < 1.0 {
            self.left_out += 1;
            return None;
        }
        if self.said.len() == LINES_KEPT {
            self.said.retain(|_, said| lately(said));
        }
        if self.said.len() < LINES_KEPT {
            self.said.insert(key, now);
        }
        self.room -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Puts a long log aside. If another daemon of the repository did so, its file becomes stderr.
#[allow(unsafe_code)]
#[expect(clippy::disallowed_methods, reason = "a log need not survive a power loss")]
fn begin_again(path: &Path) -> io::Result<()> {
    let mine = fs::metadata("/proc/self/fd/2")?;
    let there = fs::metadata(path).ok();
    let same = there.is_some_and(|meta| (meta.dev(), meta.ino()) == (mine.dev(), mine.ino()));
    if same && mine.len() < LOG_MAX_BYTES {
        return Ok(());
    }
    if same {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    let file = File::options().create(true).append(true).open(path)?;
    // SAFETY: both descriptors are open; the second is replaced in one step.
    let made = unsafe { libc::dup2(file.as_raw_fd(), libc::STDERR_FILENO) };
    if made < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_again_after_a_minute_with_a_count() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        assert_eq!(limit.pass(b"1 damaged\n", start), Some(0));
        for _ in 0..1000 {
            assert_eq!(limit.pass(b"2 damaged\n", start), None);
        }
        assert_eq!(limit.pass(b"3 other\n", start), Some(1000));
        assert_eq!(limit.pass(b"4 damaged\n", start + SAME_LINE_AFTER), Some(0));
    }

    #[test]
    fn lines_that_differ_are_bounded_too() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let said = |limit: &mut Limit, now| {
            (0..10_000)
                .filter(|k| limit.pass(format!("t {now:?} {k}").as_bytes(), now).is_some())
                .count()
        };
        assert_eq!(said(&mut limit, start), 500);
        assert_eq!(said(&mut limit, start + Duration::from_secs(60)), 30);
    }
}
