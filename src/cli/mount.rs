//! `mount` and `umount`, and the daemon between them.
//!
//! `mount` starts the daemon as a process of its own and waits until it says that it is ready, or
//! why not. The daemon writes what it serves into a file of its own, by which `umount` and
//! `status` find it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::draft::open_desk as open_drafts;
use super::{Context, connect, exit, watchdog};
use crate::content::store::Access;
use crate::error::{Error, IoContext, Kind, Result, WireError};
use crate::mount::{
    MountOptions, Mounted, SOURCE_NAME, Watcher, mount_read_only, mount_staging, mounts,
    unmount_if_idle,
};
use crate::ops::drafts::{DraftDesk, DraftService};
use crate::ops::holder;
use crate::ops::prefetch::Mode;
use crate::ops::repository::{Layout, Repository};
use crate::registry::Registry;
use crate::server::{Server, Services, serve_metrics};

/// How long the daemon may take to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END_DEADLINE: Duration = Duration::from_secs(30);
/// How often to look whether it has.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// How often the daemon frees what dead writers left.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Mount {
    /// An empty directory
    directory: PathBuf,
    /// Also mount drafts, to be written to, on this empty directory
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Commit a draft that was quiet for so long, and that nobody has open for writing
    #[arg(long, value_name = "SECONDS", requires = "staging", value_parser = clap::value_parser!(u64).range(1..))]
    autocommit: Option<u64>,
    /// Options: allow_other, passthrough (both root's default), no_allow_other, no_passthrough, noexec,
    /// prefetch=none|auto|all, metadata_timeout=SECONDS, data_timeout=SECONDS, watchdog=SECONDS (0: none)
    #[arg(short = 'o', long = "options", value_delimiter = ',', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Also answer `GET /metrics` on this address and port
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Where the daemon says that it is ready
    #[arg(long, hide = true)]
    ready_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Umount {
    /// Where it is mounted
    directory: PathBuf,
    /// Also when it is in use: it goes when its last user does
    #[arg(short, long)]
    lazy: bool,
}

/// What a daemon serves, as its file in the repository says.
#[derive(Debug, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// Its process.
    pub pid: u32,
    /// Its process, so that a reused id does not pass for it.
    pub holder: String,
    /// The read-only mount.
    pub mount: PathBuf,
    /// The staging mount.
    pub staging: Option<PathBuf>,
}

/// What the daemon tells the command that started it.
#[derive(Serialize, Deserialize)]
enum Ready {
    Up,
    Failed(WireError),
}

/// What `-o` says: how to mount, and how a remote store is read.
fn options(texts: &[String], access: &Access) -> Result<(MountOptions, Access)> {
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
            // What is always so may be said.
            ("ro" | "nosuid" | "nodev", None) => {}
            _ => {
                let what = format!("unknown mount option {text:?}");
                return Err(Error::new(Kind::Usage, what).hint(format!("known: {OPTIONS}")));
            }
        }
    }
    access.looks_ahead = options.prefetch != Mode::None;
    Ok((options, access))
}

/// What `-o` takes.
const OPTIONS: &str = "allow_other, no_allow_other, noexec, passthrough, no_passthrough, \
    prefetch=none|auto|all, metadata_timeout=SECONDS, data_timeout=SECONDS, watchdog=SECONDS";
/// How long a mount may not answer at all before it is ended.
const WATCHDOG_SECONDS: u64 = 120;

fn seconds(name: &str, text: &str) -> Result<Duration> {
    let wrong = || {
        Error::new(Kind::Usage, format!("{name}={text} is no number of seconds"))
            .hint("write it as a number from 1 to 86400")
    };
    let seconds: u64 = text.parse().map_err(|_| wrong())?;
    if (1..=86_400).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
}

pub fn mount(context: &Context, verb: Mount) -> Result<u8> {
    options(&verb.options, &context.access)?;
    let layout = connect::layout_of(&context.repo)?;
    if !verb.foreground {
        return start_daemon(context, &layout, &verb);
    }
    let started = Daemon::start(context, &layout, &verb);
    if let Some(path) = &verb.ready_file {
        tell_starter(path, &started)?;
    }
    let daemon = started?;
    if verb.ready_file.is_none() {
        tell_mounted(context, &verb);
    }
    daemon.serve()?;
    Ok(exit::DONE)
}

fn tell_mounted(context: &Context, verb: &Mount) {
    let document = json!({
        "mount": verb.directory.to_string_lossy(),
        "staging": verb.staging.as_ref().map(|path| path.to_string_lossy()),
    });
    context.output.print(document, || {
        let staging = verb.staging.iter().map(|path| path.display().to_string());
        std::iter::once(verb.directory.display().to_string()).chain(staging).collect()
    });
}

/// Starts this program again as a daemon, and waits for its word.
fn start_daemon(context: &Context, layout: &Layout, verb: &Mount) -> Result<u8> {
    let word = tempfile::tempdir().map_err(|e| Error::io("cannot make a temporary folder", e))?;
    let ready_file = word.path().join("ready");
    let log_path = layout.root.join("daemon.log");
    let log = File::options().create(true).append(true).open(&log_path).at("open", &log_path)?;
    let program = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let mut command = Command::new(program);
    command.arg("--repo").arg(&layout.root).arg("mount").arg("--foreground");
    if let Some(cache) = &context.access.cache {
        command.arg("--cache-dir").arg(std::path::absolute(cache).at("find", cache)?);
    }
    command.arg("--cache-size").arg(context.access.cache_bytes.to_string());
    command.arg("--ready-file").arg(&ready_file);
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
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().map_err(|e| Error::io("cannot start the daemon", e))?;
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        if let Ok(text) = fs::read(&ready_file) {
            return match serde_json::from_slice(&text) {
                Ok(Ready::Up) => {
                    tell_mounted(context, verb);
                    Ok(exit::DONE)
                }
                Ok(Ready::Failed(error)) => Err(error.into()),
                Err(e) => Err(Error::new(Kind::Unavailable, "the daemon is not clear").because(e)),
            };
        }
        let ended = child.try_wait().map_err(|e| Error::io("cannot wait for the daemon", e))?;
        if let Some(status) = ended {
            let what = format!("the daemon ended before it was ready: {status}");
            return Err(Error::new(Kind::Unavailable, what)
                .hint(format!("its last words are in {}", log_path.display())));
        }
        if Instant::now() > deadline {
            // It is of no use, and must not go on by itself.
            let _ = child.kill();
            let what = format!("the daemon was not ready in {} s", READY_DEADLINE.as_secs());
            return Err(Error::new(Kind::Unavailable, what)
                .hint(format!("its last words are in {}", log_path.display())));
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// Tells whoever started the daemon; the file appears whole.
fn tell_starter(path: &Path, started: &Result<Daemon>) -> Result<()> {
    let word = match started {
        Ok(_) => Ready::Up,
        Err(error) => Ready::Failed(error.to_wire()),
    };
    let text = serde_json::to_vec(&word).expect("a word is plain text");
    let part = path.with_extension("part");
    fs::write(&part, text).and_then(|()| fs::rename(&part, path)).at("write", path)
}

/// A process that serves mounts.
struct Daemon {
    repository: Arc<Repository>,
    connection: Arc<connect::Connection>,
    mounts: Vec<Mounted>,
    watchers: Vec<Watcher>,
    record: PathBuf,
    /// Answer for the drafts, and for what it did.
    servers: Vec<Server>,
    /// Ends the mounts if this process hangs.
    watchdog: Option<Child>,
    /// The drafts that are committed when they were quiet, and for how long.
    autocommit: Option<(Arc<DraftDesk>, Duration)>,
}

/// Opens the drafts, and answers for them.
fn open_desk(repository: &Arc<Repository>) -> Result<(Arc<DraftDesk>, Server)> {
    let desk = Arc::new(open_drafts(repository)?);
    desk.hash_ahead();
    let service: Arc<dyn DraftService> = Arc::<DraftDesk>::clone(&desk);
    let services = Services { drafts: Some(service), ..Services::default() };
    let server = Server::start(&repository.layout.staging_socket(), services)?;
    Ok((desk, server))
}

/// How often drafts are looked at that may have been quiet long enough.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Daemon {
    fn start(context: &Context, layout: &Layout, verb: &Mount) -> Result<Self> {
        let (options, access) = options(&verb.options, &context.access)?;
        // Its own session: a terminal that closes does not end it.
        if verb.ready_file.is_some() {
            rustix::process::setsid()
                .map_err(|e| Error::io("cannot leave the session", e.into()))?;
        }
        let connection = Arc::new(connect::Connection::open(layout)?);
        let registry: Arc<dyn Registry> = Arc::<connect::Connection>::clone(&connection);
        let repository = Arc::new(Repository::new(layout.clone(), registry, &access)?);
        if let Err(e) = holder::release_orphans(&repository) {
            tracing::warn!("what dead writers left is not freed yet: {e}");
        }
        // Everything that can be refused comes before the first mount.
        let desk = verb.staging.is_some().then(|| open_desk(&repository)).transpose()?;
        let (mounted, watcher) =
            mount_read_only(Arc::clone(&repository), &verb.directory, options)?;
        let mut record = DaemonRecord {
            pid: std::process::id(),
            holder: holder::this_process(),
            mount: mounted.target().to_owned(),
            staging: None,
        };
        let (mut mounts, mut watchers) = (vec![mounted], vec![watcher]);
        if let (Some(target), Some((desk, _))) = (&verb.staging, &desk) {
            match mount_staging(Arc::clone(&repository), Arc::clone(desk), target, options) {
                Ok((mounted, watcher)) => {
                    record.staging = Some(mounted.target().to_owned());
                    mounts.push(mounted);
                    watchers.push(watcher);
                }
                Err(e) => {
                    mounts.into_iter().for_each(Mounted::unmount);
                    return Err(e);
                }
            }
        }
        let quiet = verb.autocommit.map(Duration::from_secs);
        let autocommit = desk.as_ref().map(|(desk, _)| Arc::clone(desk)).zip(quiet);
        let mut servers: Vec<_> = desk.into_iter().map(|(_, server)| server).collect();
        let record = write_record(layout, &record)?;
        let stats = Services { stats: Some(Arc::clone(&repository)), ..Services::default() };
        servers.push(Server::start(&layout.daemon_socket(std::process::id()), stats)?);
        if let Some(address) = verb.metrics_listen {
            serve_metrics(address, Arc::clone(&repository))?;
        }
        let targets: Vec<_> = mounts.iter().map(|mounted| mounted.target().to_owned()).collect();
        let seconds = options.watchdog_seconds;
        let watchdog = (seconds > 0).then(|| watchdog::start(seconds, &targets)).transpose()?;
        Ok(Self { repository, connection, mounts, watchers, record, servers, watchdog, autocommit })
    }

    /// Serves until it is told to end or its mounts are gone.
    fn serve(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::io("cannot wait for signals", e))?;
        let waited = runtime.block_on(self.wait());
        for watcher in self.watchers {
            watcher.stop();
        }
        for mounted in self.mounts {
            mounted.unmount();
        }
        drop(self.servers);
        if let Some(mut watchdog) = self.watchdog {
            drop(watchdog.stdin.take());
            // It ends when its input does.
            let _ = watchdog.wait();
        }
        self.connection.close();
        if let Err(e) = fs::remove_file(&self.record) {
            tracing::debug!("{} was not removed: {e}", self.record.display());
        }
        waited
    }

    async fn wait(&self) -> Result<()> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("cannot wait for signals", e));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        let mut swept = Instant::now();
        let mut committing: Option<tokio::task::JoinHandle<()>> = None;
        let mut looked = Instant::now();
        let mut tick = tokio::time::interval(POLL_EVERY);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hang_up.recv() => return Ok(()),
                _ = tick.tick() => {}
            }
            if self.mounts.iter().any(Mounted::has_ended) {
                return Ok(());
            }
            let idle = committing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
            if let (Some((desk, quiet)), true) = (&self.autocommit, idle)
                && looked.elapsed() > LOOK_EVERY
            {
                looked = Instant::now();
                let (desk, quiet) = (Arc::clone(desk), *quiet);
                committing = Some(tokio::task::spawn_blocking(move || desk.autocommit(quiet)));
            }
            if swept.elapsed() > SWEEP_EVERY {
                swept = Instant::now();
                let repository = Arc::clone(&self.repository);
                tokio::task::spawn_blocking(move || {
                    if let Err(e) = holder::release_orphans(&repository) {
                        tracing::warn!("what dead writers left is not freed yet: {e}");
                    }
                });
            }
        }
    }
}

fn write_record(layout: &Layout, record: &DaemonRecord) -> Result<PathBuf> {
    let folder = layout.daemons();
    fs::create_dir_all(&folder).at("create", &folder)?;
    let path = folder.join(record.pid.to_string());
    let text = serde_json::to_vec(record).expect("a record is plain text");
    let part = folder.join(format!(".{}", record.pid));
    fs::write(&part, text).and_then(|()| fs::rename(&part, &path)).at("write", &path)?;
    Ok(path)
}

/// The daemons of a repository that run; files of dead ones are removed.
///
/// # Errors
/// When the folder cannot be read.
pub fn daemons(layout: &Layout) -> Result<Vec<DaemonRecord>> {
    let folder = layout.daemons();
    let mut running = Vec::new();
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(running),
        entries => entries.at("list", &folder)?,
    };
    for entry in entries {
        let path = entry.at("list", &folder)?.path();
        let Ok(text) = fs::read(&path) else { continue };
        let Ok(record) = serde_json::from_slice::<DaemonRecord>(&text) else {
            continue;
        };
        if holder::is_dead(&record.holder) {
            // Another command may have removed it at the same moment.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(layout.daemon_socket(record.pid));
        } else {
            running.push(record);
        }
    }
    Ok(running)
}

pub fn umount(context: &Context, verb: Umount) -> Result<u8> {
    // A dead mount cannot be canonicalized; its name can be used as it is.
    let absolute = std::path::absolute(&verb.directory).at("find", &verb.directory)?;
    let target = fs::canonicalize(&absolute).unwrap_or(absolute);
    let found = mounts().into_iter().rfind(|(_, point)| *point == target);
    if let Some((source, _)) = found.as_ref().filter(|(source, _)| source != SOURCE_NAME) {
        let what = format!("{} is a mount of {source}, not ours", target.display());
        return Err(Error::new(Kind::Conflict, what).hint("`umount` unmounts it"));
    }
    if found.is_none() {
        let what = format!("{} is not mounted", target.display());
        return Err(Error::new(Kind::NotFound, what).hint("`artifactfs status` lists the mounts"));
    }
    let layout = connect::layout_of(&context.repo)?;
    let daemon = daemons(&layout)?.into_iter().find(|daemon| {
        daemon.mount == target || daemon.staging.as_ref().is_some_and(|path| *path == target)
    });
    // One that is in use stays as it is, and everything with it.
    unmount_if_idle(&target, verb.lazy)?;
    if let Some(daemon) = &daemon
        && unmount_others(context, daemon, &target)?
    {
        wait_for_end(daemon)?;
    }
    let shown = target.display().to_string();
    context.output.print(json!({ "unmounted": shown }), Vec::new);
    Ok(exit::DONE)
}

/// Unmounts what else the daemon serves; `false` when that is in use, and goes with its last user.
fn unmount_others(context: &Context, daemon: &DaemonRecord, done: &Path) -> Result<bool> {
    let mut idle = true;
    for other in daemon.staging.iter().chain([&daemon.mount]).filter(|path| *path != done) {
        if !mounts().iter().any(|(_, at)| at == other) {
            continue;
        }
        match unmount_if_idle(other, false) {
            Err(e) if e.kind() == Kind::Conflict => {
                unmount_if_idle(other, true)?;
                let what = format!("{}: it goes when its last user does", e.message());
                context.output.note(&format!("artifactfs: {what}"));
                idle = false;
            }
            unmounted => unmounted?,
        }
    }
    Ok(idle)
}

/// The daemon ends by itself when its mounts are gone; one that does not is told to.
fn wait_for_end(daemon: &DaemonRecord) -> Result<()> {
    let start = Instant::now();
    let mut told = false;
    while !holder::is_dead(&daemon.holder) {
        if start.elapsed() > END_DEADLINE {
            let what = format!("the daemon, process {}, does not end", daemon.pid);
            return Err(Error::new(Kind::Unavailable, what)
                .hint(format!("`kill -9 {}`: nothing committed is lost", daemon.pid)));
        }
        if start.elapsed() > END_DEADLINE / 10 && !told {
            told = true;
            let pid = i32::try_from(daemon.pid).ok().and_then(Pid::from_raw);
            // It may just have ended.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        std::thread::sleep(POLL_EVERY);
    }
    Ok(())
}
