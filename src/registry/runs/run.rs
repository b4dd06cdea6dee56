//! Runs: their beginning, logging, end and removal.

use std::collections::VecDeque;

use super::decide::{self, Beginning};
use super::edge::neighbours;
use crate::error::Result;
use crate::model::name::{ProjectName, RunId};
use crate::model::run::{MetricRow, Resume, RunInfo, RunLog, RunStart, RunState};
use crate::model::time::Timestamp;
use crate::model::version::Change;
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::names::naming::{name_in, open_project};
use crate::registry::paging::each_below;
use crate::registry::paging::{Filling, Page, page};
use crate::registry::record;

/// The maximum number of rows that one transaction removes.
const ROWS_BATCH: usize = 10_000;

/// Returns the record of a run.
pub(in crate::registry) fn find_run(view: &dyn View, id: &RunId) -> Result<Option<RunInfo>> {
    view.get(&keys::run(id))?.map(|bytes| record::decode(&bytes)).transpose()
}

pub(super) fn known_run(view: &dyn View, id: &RunId) -> Result<RunInfo> {
    find_run(view, id)?.ok_or_else(|| decide::unknown(id))
}

/// Returns a run that can be changed, or a conflict if it has ended.
pub(in crate::registry) fn open_run(view: &dyn View, id: &RunId) -> Result<RunInfo> {
    decide::open(known_run(view, id)?)
}

pub(super) fn put_run(transaction: &mut dyn Transaction, run: &RunInfo) -> Result<()> {
    transaction.put(&keys::run(&run.start.id), &record::encode(run))
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
        let bytes = view.get(&keys::run(&id))?.ok_or_else(|| decide::unknown(&id))?;
        let run: RunInfo = record::decode(&bytes)?;
        filling.push(run.seen_at(now), bytes.len());
    }
    Ok(filling.page(found.more))
}

impl EngineRegistry {
    pub(in crate::registry) fn begin_run(
        &self,
        start: &RunStart,
        resume: Resume,
    ) -> Result<RunInfo> {
        decide::check(start)?;
        self.clear_rows(&start.id)?;
        let now = (self.clock)();
        self.write_change(&Change::Runs, |transaction| {
            let id = &start.id;
            match decide::begin(find_run(&*transaction, id)?, start, resume, now)? {
                Beginning::Repeated(run) => Ok(run),
                Beginning::Resumed(run) => {
                    put_run(transaction, &run)?;
                    Ok(run)
                }
                Beginning::New(run) => {
                    if let Some(sweep) = &start.sweep {
                        Self::join_sweep(transaction, sweep, start)?;
                    }
                    open_project(transaction, &start.project, now)?;
                    transaction.put(&keys::run_of_project(&start.project, now, id), &[])?;
                    put_run(transaction, &run)?;
                    Ok(run)
                }
            }
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
            let key = keys::log_tokens(id);
            let known = transaction.get(&key)?.map(|bytes| record::decode(&bytes)).transpose()?;
            let mut tokens: VecDeque<u64> = known.unwrap_or_default();
            // The call is repeated, because its reply was lost.
            if run.last_log == log.token || !decide::add_token(&mut tokens, log.token) {
                return Ok(());
            }
            transaction.put(&key, &record::encode(&tokens))?;
            let number = run.rows;
            if let Some(row) = decide::log(run, log, now)? {
                transaction.put(&keys::row(id, number), &record::encode(&row))?;
            }
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
            let run = known_run(&*transaction, id)?;
            let Some(ended) = decide::end(&run, state, exit_code, now)? else { return Ok(run) };
            put_run(transaction, &ended)?;
            Ok(ended)
        })
    }

    /// Ends a run as crashed. Changes nothing if the run has ended or has another holder.
    pub(in crate::registry) fn crash_run(&self, id: &RunId, holder: &str) -> Result<RunInfo> {
        let now = (self.clock)();
        // The check before the write keeps calls that change nothing out of the change log.
        let run = self.read(|view| known_run(view, id))?;
        if decide::crash(&run, holder, now).is_none() {
            return Ok(run.seen_at(now));
        }
        self.write_change(&Change::Runs, |transaction| {
            let run = known_run(&*transaction, id)?;
            let Some(crashed) = decide::crash(&run, holder, now) else {
                return Ok(run.seen_at(now));
            };
            put_run(transaction, &crashed)?;
            Ok(crashed)
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
            let run = decide::remove(known_run(&*transaction, id)?, now)?;
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
