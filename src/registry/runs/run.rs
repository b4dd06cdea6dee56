//! Runs: their beginning, logging, end and removal.

use std::collections::VecDeque;

use super::edge::neighbours;
use crate::error::{Error, Kind, Result, RunHint};
use crate::model::json;
use crate::model::metadata::Metadata;
use crate::model::name::{ProjectName, RunId};
use crate::model::run::{
    MetricRow, Resume, RunInfo, RunLog, RunStart, RunState, TEXT_MAX_BYTES, number,
};
use crate::model::time::Timestamp;
use crate::model::version::Change;
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::names::naming::{name_in, open_project};
use crate::registry::paging::each_below;
use crate::registry::paging::{Filling, Page, page};
use crate::registry::record;

/// The maximum number of rows of metrics in a run.
const ROWS_MAX: u64 = 10_000_000;
/// The maximum number of rows that one transaction removes.
const ROWS_BATCH: usize = 10_000;

/// The number of tokens kept per run: so many concurrent writers may each repeat a request whose
/// reply was lost.
const TOKENS_KEPT: usize = 64;

/// Returns the record of a run.
pub(in crate::registry) fn find_run(view: &dyn View, id: &RunId) -> Result<Option<RunInfo>> {
    view.get(&keys::run(id))?.map(|bytes| record::decode(&bytes)).transpose()
}

pub(super) fn known_run(view: &dyn View, id: &RunId) -> Result<RunInfo> {
    find_run(view, id)?.ok_or_else(|| unknown_run(id))
}

fn unknown_run(id: &RunId) -> Error {
    Error::new(Kind::NotFound, format!("no run {id}")).hint(RunHint::List)
}

/// Returns a run that can be changed, or a conflict if it has ended. A crashed run becomes a
/// running one again: processes that outlive the one that sent its heartbeats can still log.
pub(in crate::registry) fn open_run(view: &dyn View, id: &RunId) -> Result<RunInfo> {
    let run = known_run(view, id)?;
    match run.state {
        RunState::Running => Ok(run),
        RunState::Crashed => Ok(RunInfo { state: RunState::Running, ended: None, ..run }),
        state @ (RunState::Finished | RunState::Failed) => {
            Err(Error::new(Kind::Conflict, format!("run {id} has ended: it is {state}"))
                .hint(RunHint::Resume(id.to_string())))
        }
    }
}

/// Returns a run that may be removed, or a conflict if it is running.
fn ended_run(view: &dyn View, id: &RunId, now: Timestamp) -> Result<RunInfo> {
    let run = known_run(view, id)?.seen_at(now);
    if run.state != RunState::Running {
        return Ok(run);
    }
    Err(Error::new(Kind::Conflict, format!("run {id} is running"))
        .hint(RunHint::Finish(id.to_string())))
}

pub(super) fn put_run(transaction: &mut dyn Transaction, run: &RunInfo) -> Result<()> {
    transaction.put(&keys::run(&run.start.id), &record::encode(run))
}

/// Refuses config and texts that are too long for a listing.
fn check(start: &RunStart) -> Result<()> {
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

/// Resumes a run that has ended.
fn reopen(transaction: &mut dyn Transaction, mut run: RunInfo, start: RunStart) -> Result<RunInfo> {
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
    put_run(transaction, &run)?;
    Ok(run)
}

/// Returns the runs whose ids are at the end of the keys of a range, after `prefix` bytes.
pub(in crate::registry) fn page_of_runs(
    view: &dyn View,
    (from, to): (&[u8], &[u8]),
    prefix: usize,
    limit: u32,
    now: Timestamp,
) -> Result<Page<RunInfo>> {
    let found = page(view, from, to, limit as usize)?;
    let mut filling = Filling::new(limit);
    for (key, _) in &found.items {
        if filling.is_full() {
            return Ok(filling.page(true));
        }
        let id: RunId = name_in(keys::name_after(key, prefix))?;
        let bytes = view.get(&keys::run(&id))?.ok_or_else(|| unknown_run(&id))?;
        let run: RunInfo = record::decode(&bytes)?;
        filling.push(run.seen_at(now), bytes.len());
    }
    Ok(filling.page(found.more))
}

/// Records the token of a log request. Returns `false` if it is among the last [`TOKENS_KEPT`].
fn is_new_token(transaction: &mut dyn Transaction, id: &RunId, token: u64) -> Result<bool> {
    let key = keys::log_tokens(id);
    let known = transaction.get(&key)?.map(|bytes| record::decode(&bytes)).transpose()?;
    let mut tokens: VecDeque<u64> = known.unwrap_or_default();
    if tokens.contains(&token) {
        return Ok(false);
    }
    tokens.push_back(token);
    if tokens.len() > TOKENS_KEPT {
        tokens.pop_front();
    }
    transaction.put(&key, &record::encode(&tokens))?;
    Ok(true)
}

impl EngineRegistry {
    pub(in crate::registry) fn begin_run(
        &self,
        start: &RunStart,
        resume: Resume,
    ) -> Result<RunInfo> {
        check(start)?;
        self.clear_rows(&start.id)?;
        let now = (self.clock)();
        self.write_change(&Change::Runs, |transaction| {
            let id = &start.id;
            if let Some(run) = find_run(&*transaction, id)? {
                if run.start.project != start.project {
                    let what = format!("run {id} belongs to project {}", run.start.project);
                    return Err(Error::new(Kind::Conflict, what)
                        .hint("an id is one run in the whole repository: choose another"));
                }
                // The call is repeated, because its reply was lost.
                if run.start.token == start.token {
                    return Ok(run);
                }
                let seen = run.seen_at(now);
                let refused = match (resume, seen.state) {
                    (Resume::Never, _) => "already exists",
                    (_, RunState::Running) => "is running",
                    _ => return reopen(transaction, RunInfo { heard: now, ..seen }, start.clone()),
                };
                return Err(Error::new(Kind::Conflict, format!("run {id} {refused}"))
                    .hint(RunHint::ResumeOrRename));
            }
            if resume == Resume::Must {
                let what = format!("no run {id} to resume");
                return Err(Error::new(Kind::NotFound, what).hint(RunHint::ResumeOrBegin));
            }
            if let Some(sweep) = &start.sweep {
                Self::join_sweep(transaction, sweep, start)?;
            }
            let run = RunInfo::new(start.clone(), now);
            open_project(transaction, &start.project, now)?;
            transaction.put(&keys::run_of_project(&start.project, now, id), &[])?;
            put_run(transaction, &run)?;
            Ok(run)
        })
    }

    pub(in crate::registry) fn run(&self, id: &RunId) -> Result<RunInfo> {
        let now = (self.clock)();
        self.read(|view| Ok(known_run(view, id)?.seen_at(now)))
    }

    pub(in crate::registry) fn runs(
        &self,
        project: &ProjectName,
        after: Option<&(Timestamp, RunId)>,
        limit: u32,
    ) -> Result<Page<RunInfo>> {
        let now = (self.clock)();
        let (first, to) = Key::of(Space::RunOfProject).name(project.as_str()).range();
        let from = after.map_or(first, |(created, id)| {
            keys::next(&keys::run_of_project(project, *created, id))
        });
        let prefix = Key::of(Space::RunOfProject).name(project.as_str()).number(0).length();
        self.read(|view| page_of_runs(view, (&from, &to), prefix, limit, now))
    }

    /// Changes an open run in a transaction.
    fn change_run(
        &self,
        id: &RunId,
        durability: Durability,
        mut change: impl FnMut(&mut dyn Transaction, &mut RunInfo) -> Result<()>,
    ) -> Result<RunInfo> {
        let now = (self.clock)();
        self.write_aside(durability, |transaction| {
            let mut run = open_run(&*transaction, id)?;
            run.heard = now;
            change(transaction, &mut run)?;
            put_run(transaction, &run)?;
            Ok(run)
        })
    }

    pub(in crate::registry) fn heartbeat(&self, id: &RunId) -> Result<()> {
        self.change_run(id, Durability::Eventual, |_, _| Ok(())).map(drop)
    }

    pub(in crate::registry) fn log(&self, id: &RunId, log: &RunLog) -> Result<RunInfo> {
        let now = (self.clock)();
        self.change_run(id, Durability::Immediate, |transaction, run| {
            // The call is repeated, because its reply was lost.
            if run.last_log == log.token || !is_new_token(transaction, id, log.token)? {
                return Ok(());
            }
            run.last_log = log.token;
            run.start.config = set(&run.start.config, &log.config)?;
            let results =
                log.metrics.iter().map(|(key, value)| (key.clone(), number(*value).to_string()));
            let results: Vec<_> = results.chain(log.summary.iter().cloned()).collect();
            run.summary = set(&run.summary, &results)?;
            if log.metrics.is_empty() {
                return Ok(());
            }
            if run.rows >= ROWS_MAX {
                let what = format!("run {id} has {ROWS_MAX} rows of metrics already");
                return Err(Error::new(Kind::Full, what).hint("log fewer steps"));
            }
            let step = log.step.unwrap_or(run.rows);
            let row = MetricRow { step, at: now, values: log.metrics.clone() };
            transaction.put(&keys::row(id, run.rows), &record::encode(&row))?;
            run.rows += 1;
            Ok(())
        })
    }

    pub(in crate::registry) fn rows(
        &self,
        id: &RunId,
        from: u64,
        limit: u32,
    ) -> Result<Page<MetricRow>> {
        self.read(|view| {
            known_run(view, id)?;
            let (_, to) = Key::of(Space::Row).name(id.as_str()).range();
            let found = page(view, &keys::row(id, from), &to, limit as usize)?;
            let rows = found.items.iter().map(|(_, value)| record::decode(value));
            Ok(Page { items: rows.collect::<Result<_>>()?, more: found.more })
        })
    }

    pub(in crate::registry) fn end_run(
        &self,
        id: &RunId,
        state: RunState,
        exit_code: Option<i32>,
    ) -> Result<RunInfo> {
        let now = (self.clock)();
        self.write_change(&Change::Runs, |transaction| {
            let mut run = known_run(&*transaction, id)?;
            // The call is repeated, because its reply was lost.
            if (run.state, run.exit_code) == (state, exit_code) {
                return Ok(run);
            }
            run = open_run(&*transaction, id)?;
            (run.state, run.exit_code, run.ended) = (state, exit_code, Some(now));
            put_run(transaction, &run)?;
            Ok(run)
        })
    }

    /// Ends a run as crashed. Changes nothing if the run has ended or has another holder.
    pub(in crate::registry) fn crash_run(&self, id: &RunId, holder: &str) -> Result<RunInfo> {
        let now = (self.clock)();
        let lives = |run: &RunInfo| {
            run.state == RunState::Running && run.start.holder.as_deref() == Some(holder)
        };
        // The check before the write keeps calls that change nothing out of the change log.
        let run = self.read(|view| known_run(view, id))?;
        if !lives(&run) {
            return Ok(run.seen_at(now));
        }
        self.write_change(&Change::Runs, |transaction| {
            let mut run = known_run(&*transaction, id)?;
            if lives(&run) {
                (run.state, run.exit_code, run.ended) = (RunState::Crashed, None, Some(now));
                put_run(transaction, &run)?;
            }
            Ok(run.seen_at(now))
        })
    }

    /// Removes the rows of a run that does not exist, in batches; an existing run keeps its rows.
    fn clear_rows(&self, id: &RunId) -> Result<()> {
        let (from, to) = Key::of(Space::Row).name(id.as_str()).range();
        let left = |view: &dyn View| {
            let gone = find_run(view, id)?.is_none();
            Ok(gone && !view.scan(&from, &to, 1)?.is_empty())
        };
        while self.read(left)? {
            self.write_aside(Durability::Immediate, |transaction| {
                if find_run(&*transaction, id)?.is_none() {
                    let page = transaction.scan(&from, &to, ROWS_BATCH)?;
                    page.iter().try_for_each(|(key, _)| transaction.delete(key))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Removes a run, then its rows: a run that cannot be removed loses none. If the removal is
    /// interrupted, the next one, or the next run of that id, removes the rows that remain.
    pub(in crate::registry) fn remove_run(&self, id: &RunId) -> Result<RunInfo> {
        let run = self.forget_run(id);
        self.clear_rows(id)?;
        run
    }

    fn forget_run(&self, id: &RunId) -> Result<RunInfo> {
        let now = (self.clock)();
        self.write_change(&Change::Runs, |transaction| {
            let run = ended_run(&*transaction, id, now)?;
            for (path, number) in neighbours(&*transaction, Space::Used, id)? {
                transaction.delete(&keys::user(&path, number, id))?;
            }
            for (path, number) in neighbours(&*transaction, Space::Logged, id)? {
                transaction.delete(&keys::logger(&path, number))?;
            }
            for space in [Space::Used, Space::Logged, Space::RunAlias] {
                let mut gone = Vec::new();
                each_below(&*transaction, Key::of(space).name(id.as_str()), &mut |key, _| {
                    gone.push(key.to_vec());
                    Ok(())
                })?;
                gone.iter().try_for_each(|key| transaction.delete(key))?;
            }
            if let Some(sweep) = &run.start.sweep {
                transaction.delete(&keys::run_of_sweep(sweep, id))?;
            }
            transaction.delete(&keys::run_of_project(&run.start.project, run.created, id))?;
            transaction.delete(&keys::log_tokens(id))?;
            transaction.delete(&keys::run(id))?;
            Ok(run)
        })
    }
}
