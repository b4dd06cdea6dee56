//! The decisions about runs: pure functions of the records that were seen.

use std::collections::VecDeque;

use crate::error::{Error, Kind, Result, RunHint};
use crate::model::json;
use crate::model::metadata::Metadata;
use crate::model::name::RunId;
use crate::model::run::{
    MetricRow, Resume, RunInfo, RunLog, RunStart, RunState, TEXT_MAX_BYTES, number,
};
use crate::model::time::Timestamp;

/// The maximum number of rows of metrics in a run.
const ROWS_MAX: u64 = 10_000_000;

/// The number of tokens kept per run: so many concurrent writers may each repeat a request whose
/// reply was lost.
const TOKENS_KEPT: usize = 64;

/// The beginning of a run.
#[derive(Debug)]
pub(super) enum Beginning {
    /// The request is a repeated one: nothing changes.
    Repeated(RunInfo),
    /// A run that had ended is running again.
    Resumed(RunInfo),
    /// There is a new run.
    New(RunInfo),
}

/// Decides how a run begins; `seen` is the run with its id.
///
/// # Errors
/// [`Kind::Conflict`] for an id of another project or sweep, of a running run, and of an ended one
/// that is not resumed; [`Kind::NotFound`] if there is none to resume.
pub(super) fn begin(
    seen: Option<RunInfo>,
    start: &RunStart,
    resume: Resume,
    now: Timestamp,
) -> Result<Beginning> {
    let id = &start.id;
    let Some(run) = seen else {
        if resume == Resume::Must {
            let what = format!("no run {id} to resume");
            return Err(Error::new(Kind::NotFound, what).hint(RunHint::ResumeOrBegin));
        }
        return Ok(Beginning::New(RunInfo::new(start.clone(), now)));
    };
    if run.start.project != start.project {
        let what = format!("run {id} belongs to project {}", run.start.project);
        return Err(Error::new(Kind::Conflict, what)
            .hint("an id is one run in the whole repository: choose another"));
    }
    if run.start.token == start.token {
        return Ok(Beginning::Repeated(run));
    }
    let run = run.seen_at(now);
    let refused = match (resume, run.state) {
        (Resume::Never, _) => "already exists",
        (_, RunState::Running) => "is running",
        _ => return resumed(RunInfo { heard: now, ..run }, start.clone()).map(Beginning::Resumed),
    };
    Err(Error::new(Kind::Conflict, format!("run {id} {refused}")).hint(RunHint::ResumeOrRename))
}

fn resumed(mut run: RunInfo, start: RunStart) -> Result<RunInfo> {
    if start.sweep.is_some() && start.sweep != run.start.sweep {
        let what = format!("run {} cannot join another sweep", start.id);
        return Err(Error::new(Kind::Conflict, what).hint(RunHint::LeaveSweep));
    }
    run.start = RunStart {
        name: start.name.or(run.start.name),
        group: start.group.or(run.start.group),
        job_type: start.job_type.or(run.start.job_type),
        sweep: run.start.sweep,
        config: merge(&run.start.config, &start.config)?,
        ..start
    };
    (run.state, run.ended, run.exit_code) = (RunState::Running, None, None);
    Ok(run)
}

/// Returns a run that can be changed. A crashed run becomes a running one again: processes that
/// outlive the one that sent its heartbeats can still log.
///
/// # Errors
/// [`Kind::Conflict`] if it has ended.
pub(super) fn open(run: RunInfo) -> Result<RunInfo> {
    match run.state {
        RunState::Running => Ok(run),
        RunState::Crashed => Ok(RunInfo { state: RunState::Running, ended: None, ..run }),
        state @ (RunState::Finished | RunState::Failed) => {
            let id = &run.start.id;
            Err(Error::new(Kind::Conflict, format!("run {id} has ended: it is {state}"))
                .hint(RunHint::Resume(id.to_string())))
        }
    }
}

/// Refuses to remove a run that is running at `now`.
///
/// # Errors
/// [`Kind::Conflict`] if it is running.
pub(super) fn remove(run: RunInfo, now: Timestamp) -> Result<RunInfo> {
    let run = run.seen_at(now);
    if run.state != RunState::Running {
        return Ok(run);
    }
    let id = &run.start.id;
    Err(Error::new(Kind::Conflict, format!("run {id} is running"))
        .hint(RunHint::Finish(id.to_string())))
}

/// Decides the end of a run; `None` if the request is a repeated one.
///
/// # Errors
/// [`Kind::Conflict`] if it has ended otherwise.
pub(super) fn end(
    run: &RunInfo,
    state: RunState,
    exit_code: Option<i32>,
    now: Timestamp,
) -> Result<Option<RunInfo>> {
    if (run.state, run.exit_code) == (state, exit_code) {
        return Ok(None);
    }
    let mut run = open(run.clone())?;
    (run.state, run.exit_code, run.ended) = (state, exit_code, Some(now));
    Ok(Some(run))
}

/// Decides the crash of a run; `None` if the run has ended or has another holder.
pub(super) fn crash(run: &RunInfo, holder: &str, now: Timestamp) -> Option<RunInfo> {
    let lives = run.state == RunState::Running && run.start.holder.as_deref() == Some(holder);
    let (state, ended) = (RunState::Crashed, Some(now));
    lives.then(|| RunInfo { state, exit_code: None, ended, ..run.clone() })
}

/// Applies a log request to an open run. Returns the row of metrics, if it has one; its number is
/// that of the rows before it.
///
/// # Errors
/// [`Kind::Full`] for a row beyond [`ROWS_MAX`]; [`Kind::Usage`] for values that are not JSON.
pub(super) fn log(run: &mut RunInfo, log: &RunLog, now: Timestamp) -> Result<Option<MetricRow>> {
    run.last_log = log.token;
    run.start.config = set(&run.start.config, &log.config)?;
    let results = log.metrics.iter().map(|(key, value)| (key.clone(), number(*value).to_string()));
    let results: Vec<_> = results.chain(log.summary.iter().cloned()).collect();
    run.summary = set(&run.summary, &results)?;
    if log.metrics.is_empty() {
        return Ok(None);
    }
    if run.rows >= ROWS_MAX {
        let what = format!("run {} has {ROWS_MAX} rows of metrics already", run.start.id);
        return Err(Error::new(Kind::Full, what).hint("log fewer steps"));
    }
    let step = log.step.unwrap_or(run.rows);
    run.rows += 1;
    Ok(Some(MetricRow { step, at: now, values: log.metrics.clone() }))
}

/// Adds the token of a log request. Returns `false` if it is among the last [`TOKENS_KEPT`].
pub(super) fn add_token(tokens: &mut VecDeque<u64>, token: u64) -> bool {
    if tokens.contains(&token) {
        return false;
    }
    tokens.push_back(token);
    if tokens.len() > TOKENS_KEPT {
        tokens.pop_front();
    }
    true
}

/// Refuses config and texts that are too long for a listing.
///
/// # Errors
/// [`Kind::Usage`] for these.
pub(super) fn check(start: &RunStart) -> Result<()> {
    start.config.check()?;
    let command: usize = start.command.iter().map(String::len).sum();
    let texts = [start.name.as_ref(), start.job_type.as_ref()];
    let longest = texts.into_iter().flatten().map(String::len).max().unwrap_or_default();
    if longest.max(command) <= TEXT_MAX_BYTES {
        return Ok(());
    }
    let what = format!("name, job type and command of a run have at most {TEXT_MAX_BYTES} bytes");
    Err(Error::new(Kind::Usage, what).hint(RunHint::UseConfig))
}

/// Returns the error for a run that does not exist.
pub(super) fn unknown(id: &RunId) -> Error {
    Error::new(Kind::NotFound, format!("no run {id}")).hint(RunHint::List)
}

/// Merges settings; newer ones replace older ones.
fn merge(older: &Metadata, newer: &Metadata) -> Result<Metadata> {
    let mut merged = older.to_object();
    merged.extend(newer.to_object());
    Metadata::from_object(merged)
}

/// Returns `metadata` with keys set to values, which are JSON texts.
fn set(metadata: &Metadata, values: &[(String, String)]) -> Result<Metadata> {
    let mut object = metadata.to_object();
    for (key, value) in values {
        let value = json::parse(value)
            .map_err(|e| Error::new(Kind::Usage, format!("{key} is not JSON: {}", e.message())))?;
        object.insert(key.clone(), value);
    }
    Metadata::from_object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(token: u64) -> RunStart {
        RunStart {
            id: "r1".parse().unwrap(),
            project: "p".parse().unwrap(),
            name: None,
            group: None,
            job_type: None,
            sweep: None,
            config: Metadata::default(),
            holder: None,
            command: Vec::new(),
            token,
        }
    }

    fn run(state: RunState) -> RunInfo {
        let run = RunInfo::new(start(1), Timestamp(0));
        let ended = (state != RunState::Running).then_some(Timestamp(5));
        RunInfo { state, ended, ..run }
    }

    /// The outcome of a beginning in a word.
    fn begun(seen: Option<RunInfo>, token: u64, resume: Resume) -> &'static str {
        match begin(seen, &start(token), resume, Timestamp(10)) {
            Ok(Beginning::Repeated(_)) => "repeated",
            Ok(Beginning::Resumed(run)) => {
                assert_eq!((run.state, run.ended), (RunState::Running, None));
                "resumed"
            }
            Ok(Beginning::New(run)) => {
                assert_eq!(run.created, Timestamp(10));
                "new"
            }
            Err(e) if e.kind() == Kind::NotFound => "not found",
            Err(e) if e.kind() == Kind::Conflict => "conflict",
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn a_run_begins_by_what_there_is_and_what_may_be_resumed() {
        use RunState::{Crashed, Failed, Finished, Running};
        for (state, never, allow, must) in [
            (None, "new", "new", "not found"),
            (Some(Running), "conflict", "conflict", "conflict"),
            (Some(Finished), "conflict", "resumed", "resumed"),
            (Some(Failed), "conflict", "resumed", "resumed"),
            (Some(Crashed), "conflict", "resumed", "resumed"),
        ] {
            let seen = || state.map(run);
            for (resume, expected) in
                [(Resume::Never, never), (Resume::Allow, allow), (Resume::Must, must)]
            {
                assert_eq!(begun(seen(), 2, resume), expected, "{state:?} {resume:?}");
                if state.is_some() {
                    assert_eq!(begun(seen(), 1, resume), "repeated", "{state:?} {resume:?}");
                }
            }
        }
    }

    #[test]
    fn an_end_is_repeated_without_a_change_and_never_changed() {
        let finished = |run: &RunInfo| end(run, RunState::Finished, Some(0), Timestamp(9));
        let ended = finished(&run(RunState::Running)).unwrap().unwrap();
        assert_eq!((ended.state, ended.ended), (RunState::Finished, Some(Timestamp(9))));
        assert!(finished(&ended).unwrap().is_none());
        assert_eq!(finished(&run(RunState::Failed)).unwrap_err().kind(), Kind::Conflict);
        assert!(finished(&run(RunState::Crashed)).unwrap().is_some());
    }

    #[test]
    fn only_the_holder_of_a_running_run_crashes_it() {
        let mut held = run(RunState::Running);
        held.start.holder = Some("h".to_owned());
        assert_eq!(crash(&held, "h", Timestamp(9)).unwrap().state, RunState::Crashed);
        assert!(crash(&held, "other", Timestamp(9)).is_none());
        held.state = RunState::Finished;
        assert!(crash(&held, "h", Timestamp(9)).is_none());
    }

    #[test]
    fn a_row_has_the_given_step_or_the_number_of_rows_before_it() {
        let mut run = run(RunState::Running);
        for (given, expected) in [(None, 0), (Some(7), 7), (None, 2)] {
            let request = RunLog {
                metrics: vec![("loss".to_owned(), 0.5)],
                step: given,
                ..RunLog::default()
            };
            let row = log(&mut run, &request, Timestamp(3)).unwrap().unwrap();
            assert_eq!(row.step, expected);
        }
        assert_eq!(run.rows, 3);
        assert_eq!(run.summary.to_object()["loss"], 0.5);
        assert!(log(&mut run, &RunLog::default(), Timestamp(4)).unwrap().is_none());
        run.rows = ROWS_MAX;
        let request = RunLog { metrics: vec![("loss".to_owned(), 0.5)], ..RunLog::default() };
        assert_eq!(log(&mut run, &request, Timestamp(4)).unwrap_err().kind(), Kind::Full);
    }

    #[test]
    fn a_token_counts_once_as_long_as_it_is_kept() {
        let mut tokens = VecDeque::new();
        assert!(add_token(&mut tokens, 0) && !add_token(&mut tokens, 0));
        (1..=TOKENS_KEPT as u64).for_each(|token| assert!(add_token(&mut tokens, token)));
        assert!(tokens.len() == TOKENS_KEPT && add_token(&mut tokens, 0));
    }
}
