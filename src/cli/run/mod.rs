//! `run`: runs a command as a run, or does one step of a run for scripts.

mod code;
mod supervise;
mod view;

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Map;

use super::context::{Context, parse};
use super::run_output::{edge_lines, edges_json};
use super::{connect, exit};
use artifactfs::config::{self, Origin};
use artifactfs::daemon::{DaemonRecord, daemons};
use artifactfs::error::{Error, IoContext, Kind, Result};
use artifactfs::model::metadata::Metadata;
use artifactfs::model::name::{ProjectName, RunId};
use artifactfs::model::run::{
    Resume, RunInfo, RunLog, RunStart, RunState, parse_metric, parse_setting,
};
use artifactfs::ops::documents;
use artifactfs::ops::process_id::this_process;
use artifactfs::ops::runs;
use artifactfs::registry::Registry;
use supervise::Signals;
pub use view::{Enter, enter};

/// The time between two heartbeats of a run.
const BEAT_EVERY: Duration = Duration::from_secs(60);
/// The project of runs that name none, as in W&B.
const NO_PROJECT: &str = "uncategorized";
/// The number that a shell adds to the signal that ended a command.
const BY_SIGNAL: i32 = 128;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Run {
    #[command(subcommand)]
    step: Option<Step>,
    #[command(flatten)]
    begin: Begin,
    /// Log the script or notebook of COMMAND and the state of its git work tree, as an artifact of
    /// type code
    #[arg(long)]
    save_code: bool,
    /// The command to run
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Args)]
struct Begin {
    /// The project [default: $ARTIFACTFS_PROJECT, or uncategorized]
    #[arg(short, long)]
    project: Option<String>,
    /// The id of the run [default: eight random letters and digits]
    #[arg(long)]
    id: Option<String>,
    /// Resume the run of this id, which has ended
    #[arg(long, requires = "id", value_name = "WHEN")]
    resume: Option<WhenThere>,
    /// The name of the run, for people
    #[arg(long)]
    name: Option<String>,
    /// The group of runs that it belongs to
    #[arg(long)]
    group: Option<String>,
    /// The type of job: train, evaluate, …
    #[arg(long, value_name = "TYPE")]
    job_type: Option<String>,
    /// A setting; VALUE is JSON, or else text; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// The sweep that it belongs to
    #[arg(long, value_name = "ID")]
    sweep: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum WhenThere {
    /// Begin the run if it does not exist
    Allow,
    /// Refuse if the run does not exist
    Must,
    /// Refuse if the run exists
    Never,
}

#[derive(Subcommand)]
enum Step {
    /// Begin a run and print its id, for $ARTIFACTFS_RUN
    Start(Begin),
    /// Add results, metrics or settings to a run
    Log(Log),
    /// End a run
    Finish(Finish),
    /// List the versions that a run logged
    Logged(Which),
    /// List the versions that a run used
    Used(Which),
}

#[derive(Args)]
struct Log {
    #[command(flatten)]
    which: Which,
    /// A result; VALUE is JSON, or else text; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    summary: Vec<String>,
    /// A metric of this step; its last value is a result too; may be given several times
    #[arg(long, value_name = "KEY=NUMBER")]
    metric: Vec<String>,
    /// A setting; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// The step [default: the number of steps logged so far]
    #[arg(long, requires = "metric")]
    step: Option<u64>,
}

#[derive(Args)]
struct Finish {
    #[command(flatten)]
    which: Which,
    /// The exit code of its command: 0 means finished, any other failed
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    exit_code: i32,
}

#[derive(Args)]
struct Which {
    /// The run [default: $ARTIFACTFS_RUN]
    id: Option<String>,
}

impl Which {
    fn parse(&self, context: &Context) -> Result<RunId> {
        which(context, self.id.as_deref())
    }
}

/// Returns the run `id`, or that of `$ARTIFACTFS_RUN` if `id` is `None`.
pub fn which(context: &Context, id: Option<&str>) -> Result<RunId> {
    match id {
        Some(id) => parse(id),
        None => context.run()?.ok_or_else(|| {
            Error::new(Kind::Usage, "no run is named, neither by an id nor by $ARTIFACTFS_RUN")
                .hint("`artifactfs runs ls PROJECT` lists the runs of a project")
        }),
    }
}

impl Begin {
    /// Returns the start of a run and its resume mode; `holder` is the process that keeps it alive.
    fn parse(
        &self,
        context: &Context,
        registry: &dyn Registry,
        holder: Option<String>,
        command: &[OsString],
    ) -> Result<(RunStart, Resume)> {
        let id = self.id.as_deref().map(parse).transpose()?;
        let resume = match self.resume {
            None | Some(WhenThere::Never) => Resume::Never,
            Some(WhenThere::Allow) => Resume::Allow,
            Some(WhenThere::Must) => Resume::Must,
        };
        let start = RunStart {
            project: self.project(context, registry, id.as_ref())?,
            id: id.unwrap_or_else(|| runs::new_id(&context.access.host)),
            name: self.name.clone(),
            group: self.group.as_deref().map(parse).transpose()?,
            job_type: self.job_type.clone(),
            sweep: self.sweep.as_deref().map(parse).transpose()?,
            config: settings(&self.config)?,
            holder,
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            token: context.access.host.random() as u64,
        };
        Ok((start, resume))
    }

    fn project(
        &self,
        context: &Context,
        registry: &dyn Registry,
        id: Option<&RunId>,
    ) -> Result<ProjectName> {
        let configured = &context.config.project;
        let of_command = matches!(configured.origin, Origin::Environment(_));
        let named = self.project.as_ref().or(configured.value.as_ref().filter(|_| of_command));
        if let Some(project) = named {
            return parse(project);
        }
        if let Some(sweep) = &self.sweep {
            return Ok(runs::sweep(registry, &parse(sweep)?)?.project);
        }
        for known in [id.cloned(), context.run()?].into_iter().flatten() {
            match runs::find(registry, &known) {
                Err(e) if e.kind() == Kind::NotFound => {}
                run => return Ok(run?.start.project),
            }
        }
        parse(configured.value.as_deref().unwrap_or(NO_PROJECT))
    }
}

fn settings(texts: &[String]) -> Result<Metadata> {
    Metadata::from_object(
        texts.iter().map(|text| parse_setting(text)).collect::<Result<Map<_, _>>>()?,
    )
}

/// Parses settings as pairs of a key and JSON text.
fn values(texts: &[String]) -> Result<Vec<(String, String)>> {
    let value = |text: &String| parse_setting(text).map(|(key, value)| (key, value.to_string()));
    texts.iter().map(value).collect()
}

pub fn run(context: &Context, verb: Run) -> Result<u8> {
    match verb.step {
        None if verb.command.is_empty() => Err(Error::new(Kind::Usage, "run needs a command")
            .hint("`artifactfs run -- COMMAND…`, or one of start, log, finish, logged, used")),
        None => run_command(context, &verb),
        Some(Step::Start(begin)) => start(context, &begin),
        Some(Step::Log(verb)) => log(context, &verb),
        Some(Step::Finish(verb)) => finish(context, &verb),
        Some(Step::Logged(which)) => edges(context, &which, true),
        Some(Step::Used(which)) => edges(context, &which, false),
    }
}

fn start(context: &Context, begin: &Begin) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let (start, resume) = begin.parse(context, &*repository.registry, None, &[])?;
    let run = runs::begin(&*repository.registry, start, resume)?;
    context.output.print(documents::run(&run), || vec![run.start.id.to_string()]);
    Ok(exit::DONE)
}

fn log(context: &Context, verb: &Log) -> Result<u8> {
    let log = RunLog {
        config: values(&verb.config)?,
        summary: values(&verb.summary)?,
        metrics: verb.metric.iter().map(|text| parse_metric(text)).collect::<Result<_>>()?,
        step: verb.step,
        token: context.access.host.random() as u64,
    };
    if log.config.is_empty() && log.summary.is_empty() && log.metrics.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing to log")
            .hint("give --summary, --metric or --config; `put` logs files"));
    }
    let id = verb.which.parse(context)?;
    let repository = connect::open_repository(context)?;
    let run = runs::log(&*repository.registry, &id, log)?;
    context.output.print(documents::run(&run), Vec::new);
    Ok(exit::DONE)
}

fn finish(context: &Context, verb: &Finish) -> Result<u8> {
    let id = verb.which.parse(context)?;
    let repository = connect::open_repository(context)?;
    let state = if verb.exit_code == 0 { RunState::Finished } else { RunState::Failed };
    let run = runs::end(&*repository.registry, &id, state, verb.exit_code)?;
    context.output.print(documents::run(&run), || vec![format!("{}  {}", run.start.id, run.state)]);
    Ok(exit::DONE)
}

fn edges(context: &Context, which: &Which, logged: bool) -> Result<u8> {
    let id = which.parse(context)?;
    let repository = connect::open_repository(context)?;
    let edges = runs::edges(&*repository.registry, &id, logged)?;
    context.output.print(edges_json(&edges), || edge_lines(&edges));
    Ok(exit::DONE)
}

fn run_command(context: &Context, verb: &Run) -> Result<u8> {
    // Signals are blocked before other threads start, so that none of these receives one that is
    // meant for the command.
    let signals = Signals::hold().map_err(|e| Error::io("cannot hold signals back", e))?;
    let repository = Arc::new(connect::open_repository(context)?);
    let registry = &repository.registry;
    let (start, resume) =
        verb.begin.parse(context, &**registry, Some(this_process()), &verb.command)?;
    let run = runs::begin(&**registry, start, resume)?;
    let id = run.start.id.clone();
    let ended = run_begun(context, verb, &signals, &repository, &run);
    let (state, code) = match &ended {
        Ok(status) => outcome(*status),
        Err(_) => (RunState::Failed, i32::from(view::NO_COMMAND)),
    };
    let recorded = runs::end(&**registry, &id, state, code);
    ended?;
    match recorded {
        // The command has ended the run itself.
        Err(e) if e.kind() == Kind::Conflict => tracing::info!("{e}"),
        // This failure must not hide the exit status of the command.
        Err(e) => context.output.note(&format!("artifactfs: cannot end run {id}: {e}")),
        Ok(_) => {}
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn run_begun(
    context: &Context,
    verb: &Run,
    signals: &Signals,
    repository: &Arc<artifactfs::ops::repository::Repository>,
    run: &RunInfo,
) -> Result<ExitStatus> {
    let id = &run.start.id;
    // The id is for people; a pipe gets only the output of the command.
    if std::io::stderr().is_terminal() {
        context.output.note(&format!("artifactfs: run {id} of project {}", run.start.project));
    }
    tracing::info!("run {id} of project {}", run.start.project);
    if verb.save_code {
        code::save(context, repository, run, &verb.command)?;
    }
    let layout = &repository.layout;
    // A daemon that is only used elsewhere serves nothing at its mount point.
    let here = daemons(layout)?.into_iter().filter(DaemonRecord::is_in_place);
    let mounts: Vec<_> = here.map(|daemon| daemon.mount).collect();
    if mounts.is_empty() {
        tracing::info!("nothing is mounted: only what commands such as `get` read is recorded");
    }
    // An open mount point is not unmounted without --lazy.
    let held = mounts.iter().map(|mount| File::open(mount).at("open", mount));
    let _held = held.collect::<Result<Vec<_>>>()?;
    let program = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let mut command = Command::new(program);
    command.args((0..context.verbose).map(|_| "-v")).arg("enter");
    for mount in &mounts {
        command.arg("--view").arg(mount.join(".runs").join(id.as_str())).arg("--at").arg(mount);
    }
    command.arg("--").args(&verb.command);
    command.env(config::RUN_VARIABLE, id.as_str()).env(config::REPO_VARIABLE, &layout.root);
    command.env(config::PROJECT_VARIABLE, run.start.project.as_str());
    let mut child = command.spawn().map_err(|e| Error::io("cannot start the command", e))?;
    let (stop, stopped) = channel::<()>();
    let (registry, beaten) = (Arc::clone(&repository.registry), id.clone());
    std::thread::spawn(move || {
        while stopped.recv_timeout(BEAT_EVERY) == Err(RecvTimeoutError::Timeout) {
            if let Err(e) = runs::heartbeat(&*registry, &beaten) {
                tracing::warn!("cannot send the heartbeat of run {beaten}: {e}");
            }
        }
    });
    let status = signals.watch(&mut child).map_err(|e| Error::io("cannot wait for the command", e));
    drop(stop);
    status
}

/// Returns the state of a run whose command ended with `status`, and the exit code for the shell.
fn outcome(status: ExitStatus) -> (RunState, i32) {
    match (status.code(), status.signal()) {
        (Some(0), _) => (RunState::Finished, 0),
        (Some(code), _) => (RunState::Failed, code),
        (None, signal) => (RunState::Crashed, BY_SIGNAL + signal.unwrap_or_default()),
    }
}
