//! Runs: beginning them, detecting those that crashed, listing and comparing them.

use std::fs;

use serde_json::Value;

use super::process_id::is_dead;
use crate::error::{Error, Kind, Result, RunHint};
use crate::model::host::Host;
use crate::model::name::{Alias, ProjectName, RunId, SweepId, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::run::{
    Edge, Goal, MetricRow, Resume, RunInfo, RunLog, RunStart, RunState, SweepInfo, compare,
    is_value,
};
use crate::model::version::VersionInfo;
use crate::registry::Registry;

/// The number of records read at once.
const PAGE: u32 = 500;
/// The number of rows of metrics read at once.
const ROWS_PAGE: u32 = 10_000;
/// The maximum length of a process environment that is searched, in bytes.
const ENVIRONMENT_MAX_BYTES: u64 = 4 << 20;

/// Returns a new random id of eight letters and digits.
pub fn new_id(host: &Host) -> RunId {
    const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let (mut random, base) = (host.random(), DIGITS.len() as u128);
    let id: String = (0..8)
        .map(|_| {
            let digit = DIGITS[(random % base) as usize];
            random /= base;
            char::from(digit)
        })
        .collect();
    id.parse().expect("letters and digits are an id")
}

/// Returns a run in its current state. If its process is known to be dead, the run has crashed, and
/// that is recorded.
pub fn settled(registry: &dyn Registry, run: RunInfo) -> Result<RunInfo> {
    match &run.start.holder {
        Some(holder) if run.state == RunState::Running && is_dead(holder) => {
            registry.crash_run(run.start.id.clone(), holder.clone())
        }
        _ => Ok(run),
    }
}

/// Returns a run in its current state.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such run.
pub fn find(registry: &dyn Registry, id: &RunId) -> Result<RunInfo> {
    settled(registry, registry.run(id.clone())?)
}

/// Removes a run that has ended. A run whose process is dead has ended, even if that is not
/// recorded yet.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such run, and as
/// [`Runs::remove_run`](crate::registry::Runs::remove_run).
pub fn remove(registry: &dyn Registry, id: &RunId) -> Result<()> {
    find(registry, id)?;
    match registry.remove_run(id.clone()) {
        // It was there: another process removed it, or this call did and its reply was lost.
        Err(e) if e.kind() == Kind::NotFound => Ok(()),
        removed => removed.map(drop),
    }
}

/// Begins or resumes a run.
///
/// # Errors
/// [`Kind::Conflict`] or [`Kind::NotFound`], depending on `resume`.
pub fn begin(registry: &dyn Registry, start: RunStart, resume: Resume) -> Result<RunInfo> {
    match find(registry, &start.id) {
        Err(e) if e.kind() != Kind::NotFound => return Err(e),
        _ => {}
    }
    registry.begin_run(start, resume)
}

/// Refuses a project that does not exist.
fn refuse_unknown(registry: &dyn Registry, project: &ProjectName) -> Result<()> {
    registry.artifacts(project.clone(), None, 1).map(drop)
}

/// Calls `each` with every run of a project, oldest first.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such project, and the errors of `each`.
pub fn each_run(
    registry: &dyn Registry,
    project: &ProjectName,
    each: &mut dyn FnMut(RunInfo) -> Result<()>,
) -> Result<()> {
    refuse_unknown(registry, project)?;
    let mut after = None;
    loop {
        let page = registry.runs(project.clone(), after.take(), PAGE)?;
        after = page.items.last().map(|run| (run.created, run.start.id.clone()));
        page.items.into_iter().try_for_each(&mut *each)?;
        if after.is_none() || !page.more {
            return Ok(());
        }
    }
}

/// Returns all runs of a sweep, in their current state.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such sweep.
pub fn of_sweep(registry: &dyn Registry, id: &SweepId) -> Result<Vec<RunInfo>> {
    let mut all: Vec<RunInfo> = Vec::new();
    loop {
        let after = all.last().map(|run| run.start.id.clone());
        let page = registry.runs_of_sweep(id.clone(), after, PAGE)?;
        let done = page.items.is_empty() || !page.more;
        for run in page.items {
            all.push(settled(registry, run)?);
        }
        if done {
            return Ok(all);
        }
    }
}

/// Returns the versions that a run used, or logged if `logged`, oldest first.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such run.
pub fn edges(registry: &dyn Registry, id: &RunId, logged: bool) -> Result<Vec<Edge>> {
    let mut all: Vec<Edge> = Vec::new();
    loop {
        let after = all.last().map(|edge| (edge.path.clone(), edge.number));
        let page = registry.edges(id.clone(), logged, after, PAGE)?;
        let done = page.items.is_empty() || !page.more;
        all.extend(page.items);
        if done {
            all.sort_by_key(|edge| edge.at);
            return Ok(all);
        }
    }
}

/// Returns the runs that used a version, in the order of ids.
pub(crate) fn users(
    registry: &dyn Registry,
    path: &ArtifactPath,
    number: VersionNumber,
) -> Result<Vec<RunId>> {
    let mut all: Vec<RunId> = Vec::new();
    loop {
        let after = all.last().cloned();
        let page = registry.users(path.clone(), number, after, PAGE)?;
        let done = page.items.is_empty() || !page.more;
        all.extend(page.items);
        if done {
            return Ok(all);
        }
    }
}

/// Returns the sweeps of a project, in the order of ids.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such project.
pub fn sweeps(registry: &dyn Registry, project: &ProjectName) -> Result<Vec<SweepInfo>> {
    refuse_unknown(registry, project)?;
    let mut all: Vec<SweepInfo> = Vec::new();
    loop {
        let after = all.last().map(|sweep| sweep.id.clone());
        let page = registry.sweeps(project.clone(), after, PAGE)?;
        let done = page.items.is_empty() || !page.more;
        all.extend(page.items);
        if done {
            return Ok(all);
        }
    }
}

/// Returns the rows of metrics of a run, in their order.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such run.
pub fn rows(registry: &dyn Registry, id: &RunId) -> Result<Vec<MetricRow>> {
    let mut all: Vec<MetricRow> = Vec::new();
    loop {
        let page = registry.rows(id.clone(), all.len() as u64, ROWS_PAGE)?;
        let done = page.items.is_empty() || !page.more;
        all.extend(page.items);
        if done {
            return Ok(all);
        }
    }
}

/// Reports whether a run has the value `wanted` under `path`. A path that names no field is looked
/// up in config, then in summary.
pub fn matches(run: &RunInfo, path: &str, wanted: &Value) -> bool {
    let found = run.value(path).or_else(|| {
        let inside = |place: &str| run.value(&format!("{place}.{path}"));
        inside("config").or_else(|| inside("summary"))
    });
    is_value(found.as_ref(), wanted)
}

/// Sorts runs by the value under `path`. Runs without one, or with NaN or infinity, come last in
/// either direction.
pub fn sort(runs: &mut [RunInfo], path: &str, descending: bool) {
    runs.sort_by_cached_key(|run| run.created);
    let mut keyed: Vec<_> = runs.iter().map(|run| (run.value(path), run.clone())).collect();
    keyed.sort_by(|(a, _), (b, _)| compare(a.as_ref(), b.as_ref(), descending));
    for (place, (_, run)) in runs.iter_mut().zip(keyed) {
        *place = run;
    }
}

/// Returns the run of a sweep whose summary has the best value of the sweep's metric.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such sweep, or no run has a number there.
pub fn best(registry: &dyn Registry, id: &SweepId) -> Result<RunInfo> {
    let sweep = registry.sweep(id.clone())?;
    let path = format!("summary.{}", sweep.metric);
    let mut runs = of_sweep(registry, id)?;
    runs.retain(|run| run.value(&path).is_some_and(|value| value.is_number()));
    sort(&mut runs, &path, sweep.goal == Goal::Maximize);
    runs.into_iter().next().ok_or_else(|| {
        let what = format!("no run of sweep {id} has a number {} in its summary", sweep.metric);
        Error::new(Kind::NotFound, what).hint(RunHint::LogSummary(sweep.metric.clone()))
    })
}

/// Records that a run uses a version, which was found by `alias` if that is given. A run that has
/// ended or is gone is no error: its readers go on.
pub(crate) fn record_use(
    registry: &dyn Registry,
    run: &RunId,
    (path, number): (&ArtifactPath, VersionNumber),
    alias: Option<Alias>,
) -> Result<()> {
    match registry.add_use(run.clone(), path.clone(), number, alias) {
        Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => {
            tracing::info!("{path}:{number} is read after run {run}: {e}");
            Ok(())
        }
        recorded => recorded,
    }
}

/// Returns the version that a reference stands for in a run, and records that the run uses it.
///
/// # Errors
/// [`Kind::NotFound`] for a run or a version that is not there.
pub(crate) fn use_version(
    registry: &dyn Registry,
    run: &RunId,
    reference: Reference,
) -> Result<VersionInfo> {
    let alias = match &reference.selector {
        Selector::Alias(alias) => Some(alias.clone()),
        Selector::Version(_) => None,
    };
    let info = registry.lookup_for_run(run.clone(), reference)?;
    record_use(registry, run, (&info.path, info.number), alias)?;
    Ok(info)
}

/// Returns the version that a reference stands for; a run, if one is given, uses it from now on.
///
/// # Errors
/// [`Kind::NotFound`] for a run or a version that is not there.
pub fn lookup(
    registry: &dyn Registry,
    run: Option<&RunId>,
    reference: Reference,
) -> Result<VersionInfo> {
    match run {
        Some(run) => use_version(registry, run, reference),
        None => registry.lookup(reference),
    }
}

/// Logs values of a run.
///
/// # Errors
/// As [`Runs::log`](crate::registry::Runs::log).
pub fn log(registry: &dyn Registry, id: &RunId, log: RunLog) -> Result<RunInfo> {
    registry.log(id.clone(), log)
}

/// Ends a run.
///
/// # Errors
/// As [`Runs::end_run`](crate::registry::Runs::end_run).
pub fn end(registry: &dyn Registry, id: &RunId, state: RunState, code: i32) -> Result<RunInfo> {
    registry.end_run(id.clone(), state, Some(code))
}

/// Records a heartbeat of a run.
///
/// # Errors
/// As [`Runs::heartbeat`](crate::registry::Runs::heartbeat).
pub fn heartbeat(registry: &dyn Registry, id: &RunId) -> Result<()> {
    registry.heartbeat(id.clone())
}

/// Creates a sweep.
///
/// # Errors
/// As [`Runs::create_sweep`](crate::registry::Runs::create_sweep).
pub fn create_sweep(registry: &dyn Registry, sweep: SweepInfo) -> Result<SweepInfo> {
    registry.create_sweep(sweep)
}

/// Returns a sweep.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such sweep.
pub fn sweep(registry: &dyn Registry, id: &SweepId) -> Result<SweepInfo> {
    registry.sweep(id.clone())
}

/// Returns the run that a process was started in, from its environment.
pub(crate) fn of_process(pid: u32) -> Option<RunId> {
    use std::io::Read;
    let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut environment = Vec::new();
    file.take(ENVIRONMENT_MAX_BYTES).read_to_end(&mut environment).ok()?;
    let variable = format!("{}=", crate::model::run::RUN_VARIABLE);
    let mut lines = environment.split(|byte| *byte == 0);
    let value = lines.find_map(|line| line.strip_prefix(variable.as_bytes()))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}
