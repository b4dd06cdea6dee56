//! `mount`: starts the daemon as a separate process and waits until it reports ready or failed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::context::Context;
use super::{connect, exit};
use artifactfs::content::cache::Cache;
use artifactfs::content::options::StoreOptions;
use artifactfs::daemon::{Daemon, MountRequest, process};
use artifactfs::error::{Error, IoContext, Kind, Result, WireError};
use artifactfs::mount::MountOptions;
use artifactfs::ops::prefetch::Mode;
use artifactfs::ops::repository::Layout;

/// The longest time that the daemon may take to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Mount {
    /// An empty directory for the read-only mount
    directory: PathBuf,
    /// Also mount writable drafts, on this empty directory
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Commit a changed draft after this time without changes or open writers
    #[arg(long, value_name = "SECONDS", requires = "staging", value_parser = clap::value_parser!(u64).range(1..))]
    autocommit: Option<u64>,
    /// Options: allow_other, passthrough (both root's default), no_allow_other, no_passthrough,
    /// noexec, prefetch=none|auto|all, metadata_timeout=SECONDS, data_timeout=SECONDS,
    /// watchdog=SECONDS (0: none)
    #[arg(short = 'o', long = "options", value_delimiter = ',', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Also serve `GET /metrics` on this address and port
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Print only on standard output whether the daemon is ready
    #[arg(long, hide = true, requires = "foreground")]
    started: bool,
}

impl Mount {
    /// Returns whether this process serves the mounts.
    pub fn is_daemon(&self) -> bool {
        self.foreground
    }
}

/// The report of a daemon to the command that started it.
#[derive(Serialize, Deserialize)]
enum Ready {
    Up,
    Failed(WireError),
}

/// Parses `-o` into options of the mount and of the store.
fn options(texts: &[String], access: &StoreOptions) -> Result<(MountOptions, StoreOptions)> {
    let root = rustix::process::geteuid().is_root();
    let mut options = MountOptions {
        allow_other: root,
        noexec: false,
        passthrough: root,
        prefetch: Mode::Auto,
        watchdog_seconds: WATCHDOG_SECONDS,
    };
    let mut access = access.clone();
    for text in texts {
        let (name, value) =
            text.split_once('=').map_or((text.as_str(), None), |(n, v)| (n, Some(v)));
        match (name, value) {
            ("allow_other", None) => options.allow_other = true,
            ("no_allow_other", None) => options.allow_other = false,
            ("noexec", None) => options.noexec = true,
            ("passthrough", None) => options.passthrough = true,
            ("no_passthrough", None) => options.passthrough = false,
            ("prefetch", Some("none")) => options.prefetch = Mode::None,
            ("prefetch", Some("auto")) => options.prefetch = Mode::Auto,
            ("prefetch", Some("all")) => options.prefetch = Mode::All,
            ("metadata_timeout", Some(value)) => access.deadlines.metadata = seconds(name, value)?,
            ("data_timeout", Some(value)) => access.deadlines.data = seconds(name, value)?,
            ("watchdog", Some("0")) => options.watchdog_seconds = 0,
            ("watchdog", Some(value)) => options.watchdog_seconds = seconds(name, value)?.as_secs(),
            // Mounts always have these.
            ("ro" | "nosuid" | "nodev", None) => {}
            _ => {
                let what = format!("unknown mount option {text:?}");
                return Err(Error::new(Kind::Usage, what).hint(format!("known: {OPTIONS}")));
            }
        }
    }
    access.reads_ahead = options.prefetch != Mode::None;
    if access.cache.is_some() {
        Cache::check_limit(access.cache_bytes)?;
    }
    Ok((options, access))
}

/// The options that `-o` takes.
const OPTIONS: &str = "allow_other, no_allow_other, noexec, passthrough, no_passthrough, \
    prefetch=none|auto|all, metadata_timeout=SECONDS, data_timeout=SECONDS, watchdog=SECONDS";
/// The default time without any reply after which the watchdog ends a mount.
const WATCHDOG_SECONDS: u64 = 120;

fn seconds(name: &str, text: &str) -> Result<Duration> {
    let wrong = || {
        Error::new(Kind::Usage, format!("{name}={text} is not a number of seconds"))
            .hint("write it as a number from 1 to 86400")
    };
    let seconds: u64 = text.parse().map_err(|_| wrong())?;
    if (1..=86_400).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
}

pub fn mount(context: &Context, verb: Mount) -> Result<u8> {
    options(&verb.options, &context.access)?;
    process::ensure_descriptors()?;
    let layout = connect::layout_of(context)?;
    if !verb.foreground {
        return start_daemon(context, &layout, &verb);
    }
    process::raise_descriptors();
    if verb.started {
        artifactfs::telemetry::keep(&log_of(&layout));
    }
    let started = request_of(context, &verb).and_then(|request| Daemon::start(&layout, &request));
    let reported = if verb.started { report_to_starter(&started) } else { Ok(()) };
    let daemon = started?;
    if let Err(e) = reported {
        // The command that requested the mounts is gone, so no process would unmount them.
        daemon.end();
        return Err(e);
    }
    if !verb.started {
        print_mounted(context, &verb);
    }
    daemon.serve()?;
    Ok(exit::DONE)
}

fn request_of(context: &Context, verb: &Mount) -> Result<MountRequest> {
    let (options, store) = options(&verb.options, &context.access)?;
    Ok(MountRequest {
        directory: verb.directory.clone(),
        staging: verb.staging.clone(),
        options,
        store,
        autocommit: verb.autocommit.map(Duration::from_secs),
        metrics_listen: verb.metrics_listen,
    })
}

/// Returns the path of the log that a daemon writes to.
fn log_of(layout: &Layout) -> PathBuf {
    layout.root.join("daemon.log")
}

fn print_mounted(context: &Context, verb: &Mount) {
    let document = json!({
        "mount": verb.directory.to_string_lossy(),
        "staging": verb.staging.as_ref().map(|path| path.to_string_lossy()),
    });
    context.output.print(document, || {
        let staging = verb.staging.iter().map(|path| path.display().to_string());
        std::iter::once(verb.directory.display().to_string()).chain(staging).collect()
    });
}

/// Starts this program again as a daemon, and waits for its report.
fn start_daemon(context: &Context, layout: &Layout, verb: &Mount) -> Result<u8> {
    let log_path = log_of(layout);
    let log = File::options().create(true).append(true).open(&log_path).at("open", &log_path)?;
    let program = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let mut command = Command::new(program);
    command.arg("--repo").arg(&layout.root).args(["mount", "--foreground", "--started"]);
    if let Some(cache) = &context.access.cache {
        command.arg("--cache-dir").arg(std::path::absolute(cache).at("find", cache)?);
    }
    command.arg("--cache-size").arg(context.access.cache_bytes.to_string());
    if let Some(staging) = &verb.staging {
        command.arg("--staging").arg(std::path::absolute(staging).at("find", staging)?);
    }
    for option in &verb.options {
        command.args(["-o", option]);
    }
    if let Some(seconds) = verb.autocommit {
        command.args(["--autocommit", &seconds.to_string()]);
    }
    if let Some(address) = verb.metrics_listen {
        command.args(["--metrics-listen", &address.to_string()]);
    }
    command.arg("--").arg(std::path::absolute(&verb.directory).at("find", &verb.directory)?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    process::detach(&mut command);
    let mut child = command.spawn().map_err(|e| Error::io("cannot start the daemon", e))?;
    let why = || format!("its last words are in {}", log_path.display());
    let Some(word) = word_of(&mut child) else {
        // The command gives up, so the daemon must not serve mounts later.
        let _ = child.kill();
        let what = format!("the daemon was not ready in {} s", READY_DEADLINE.as_secs());
        return Err(Error::new(Kind::Unavailable, what).hint(why()));
    };
    if word.is_empty() {
        let status = child.wait().map_err(|e| Error::io("cannot wait for the daemon", e))?;
        let what = format!("the daemon ended before it was ready: {status}");
        return Err(Error::new(Kind::Unavailable, what).hint(why()));
    }
    match serde_json::from_slice(&word) {
        Ok(Ready::Up) => {
            print_mounted(context, verb);
            Ok(exit::DONE)
        }
        Ok(Ready::Failed(error)) => Err(error.into()),
        Err(e) => {
            Err(Error::new(Kind::Unavailable, "cannot parse the report of the daemon").because(e))
        }
    }
}

/// Reads the output of a daemon to its end; returns `None` after [`READY_DEADLINE`].
fn word_of(child: &mut Child) -> Option<Vec<u8>> {
    let mut output = child.stdout.take()?;
    let (sender, word) = channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        // A report that breaks off is found by the parser.
        let _ = output.read_to_end(&mut text);
        sender.send(text)
    });
    word.recv_timeout(READY_DEADLINE).ok()
}

/// Sends the report to the process that started the daemon, and closes the pipe to it.
fn report_to_starter(started: &Result<Daemon>) -> Result<()> {
    let word = match started {
        Ok(_) => Ready::Up,
        Err(error) => Ready::Failed(error.to_wire()),
    };
    let text = serde_json::to_vec(&word).expect("a word is plain text");
    let mut output = std::io::stdout();
    let written = output.write_all(&text).and_then(|()| output.flush());
    process::close_output().map_err(|e| Error::io("cannot close standard output", e))?;
    written.map_err(|e| Error::io("cannot report to the process that started the daemon", e))
}
