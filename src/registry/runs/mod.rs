//! RUNS: the users and makers of versions, and the sweeps they belong to.

mod decide;
mod edge;
pub(super) mod run;
pub(super) mod sweeps;
pub(super) mod uses;

use super::subject::subject;
use crate::error::Result;
use crate::model::name::{Alias, ProjectName, RunId, SweepId, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::run::{Edge, MetricRow, Resume, RunInfo, RunLog, RunStart, RunState, SweepInfo};
use crate::model::time::Timestamp;
use crate::model::version::VersionInfo;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::paging::Page;

subject! {
    /// The runs and sweeps.
    ///
    /// # Contract
    /// Only an open run changes, and an alias keeps for a run the version of its first look-up. The
    /// uses of a run are exactly those that were added. An implementation records the run that logs
    /// a version in the transaction that makes the version. Calls need the right to read the run's
    /// project; calls that change a run need the right to write to it.
    Runs, RunsCall;

    /// Begins a run, or resumes one that has ended.
    begin_run = BeginRun(start: RunStart, resume: Resume) -> RunInfo;
    /// Returns a run in its present state.
    run = FindRun(id: RunId) -> RunInfo;
    /// Returns the runs of a project above `after`, in the order of their beginning, at most
    /// `limit`.
    runs = Runs(project: ProjectName, after: Option<(Timestamp, RunId)>, limit: u32) -> Page<RunInfo>;
    /// Records a heartbeat of a run.
    heartbeat = Heartbeat(id: RunId) -> ();
    /// Adds config, metrics and results to an open run.
    log = Log(id: RunId, log: RunLog) -> RunInfo;
    /// Returns rows of metrics from row `from` on, at most `limit`.
    rows = Rows(id: RunId, from: u64, limit: u32) -> Page<MetricRow>;
    /// Ends a run as crashed if it is open and its process is still `holder`, which the caller
    /// found dead.
    crash_run = CrashRun(id: RunId, holder: String) -> RunInfo;
    /// Ends an open run.
    end_run = EndRun(id: RunId, state: RunState, exit_code: Option<i32>) -> RunInfo;
    /// Removes a run that has ended, also from the users of versions.
    remove_run = RemoveRun(id: RunId) -> RunInfo;
    /// Returns the version that a reference stands for in a run: an alias keeps the version of its
    /// first look-up.
    lookup_for_run = LookupForRun(id: RunId, reference: Reference) -> VersionInfo;
    /// Records that an open run uses a version; `alias` is the alias through which it was found, if
    /// any.
    add_use = AddUse(id: RunId, path: ArtifactPath, number: VersionNumber, alias: Option<Alias>) -> ();
    /// Returns the versions that a run used (or `logged`) above `after`, in the order of names, at
    /// most `limit`.
    edges = Edges(id: RunId, logged: bool, after: Option<(ArtifactPath, VersionNumber)>, limit: u32) -> Page<Edge>;
    /// Returns the run that logged a version.
    logger = Logger(path: ArtifactPath, number: VersionNumber) -> Option<RunId>;
    /// Returns the runs that used a version, above `after` in the order of ids, at most `limit`.
    users = Users(path: ArtifactPath, number: VersionNumber, after: Option<RunId>, limit: u32) -> Page<RunId>;
    /// Makes a sweep.
    create_sweep = CreateSweep(sweep: SweepInfo) -> SweepInfo;
    /// Returns a sweep.
    sweep = FindSweep(id: SweepId) -> SweepInfo;
    /// Returns the sweeps of a project above `after`, in the order of ids, at most `limit`.
    sweeps = Sweeps(project: ProjectName, after: Option<SweepId>, limit: u32) -> Page<SweepInfo>;
    /// Returns the runs of a sweep above `after`, in the order of ids, at most `limit`.
    runs_of_sweep = RunsOfSweep(id: SweepId, after: Option<RunId>, limit: u32) -> Page<RunInfo>;
}

impl Runs for EngineRegistry {
    fn begin_run(&self, start: RunStart, resume: Resume) -> Result<RunInfo> {
        self.begin_run(&start, resume)
    }

    fn run(&self, id: RunId) -> Result<RunInfo> {
        self.run(&id)
    }

    fn runs(
        &self,
        project: ProjectName,
        after: Option<(Timestamp, RunId)>,
        limit: u32,
    ) -> Result<Page<RunInfo>> {
        self.runs(&project, after.as_ref(), limit)
    }

    fn heartbeat(&self, id: RunId) -> Result<()> {
        self.heartbeat(&id)
    }

    fn log(&self, id: RunId, log: RunLog) -> Result<RunInfo> {
        self.log(&id, &log)
    }

    fn rows(&self, id: RunId, from: u64, limit: u32) -> Result<Page<MetricRow>> {
        self.rows(&id, from, limit)
    }

    fn crash_run(&self, id: RunId, holder: String) -> Result<RunInfo> {
        self.crash_run(&id, &holder)
    }

    fn end_run(&self, id: RunId, state: RunState, exit_code: Option<i32>) -> Result<RunInfo> {
        self.end_run(&id, state, exit_code)
    }

    fn remove_run(&self, id: RunId) -> Result<RunInfo> {
        self.remove_run(&id)
    }

    fn lookup_for_run(&self, id: RunId, reference: Reference) -> Result<VersionInfo> {
        self.lookup_for_run(&id, &reference)
    }

    fn add_use(
        &self,
        id: RunId,
        path: ArtifactPath,
        number: VersionNumber,
        alias: Option<Alias>,
    ) -> Result<()> {
        self.add_use(&id, &path, number, alias.as_ref())
    }

    fn edges(
        &self,
        id: RunId,
        logged: bool,
        after: Option<(ArtifactPath, VersionNumber)>,
        limit: u32,
    ) -> Result<Page<Edge>> {
        self.edges(&id, logged, after.as_ref(), limit)
    }

    fn logger(&self, path: ArtifactPath, number: VersionNumber) -> Result<Option<RunId>> {
        self.logger(&path, number)
    }

    fn users(
        &self,
        path: ArtifactPath,
        number: VersionNumber,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunId>> {
        self.users(&path, number, after.as_ref(), limit)
    }

    fn create_sweep(&self, sweep: SweepInfo) -> Result<SweepInfo> {
        self.create_sweep(&sweep)
    }

    fn sweep(&self, id: SweepId) -> Result<SweepInfo> {
        self.sweep(&id)
    }

    fn sweeps(
        &self,
        project: ProjectName,
        after: Option<SweepId>,
        limit: u32,
    ) -> Result<Page<SweepInfo>> {
        self.sweeps(&project, after.as_ref(), limit)
    }

    fn runs_of_sweep(
        &self,
        id: SweepId,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunInfo>> {
        self.runs_of_sweep(&id, after.as_ref(), limit)
    }
}
