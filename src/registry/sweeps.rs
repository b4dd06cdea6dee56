//! Sweeps: runs that are tried for the best value of one metric.

use super::embedded::{Embedded, each_below};
use super::engine::{Durability, Transaction, View};
use super::keys::{self, Key, Space};
use super::naming::name_in;
use super::record;
use super::runs::find_run;
use crate::error::{Error, Kind, Result};
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::run::{RunInfo, RunStart, SweepInfo};

fn known_sweep(view: &dyn View, id: &SweepId) -> Result<SweepInfo> {
    match view.get(&keys::sweep(id))? {
        Some(bytes) => record::decode(&bytes),
        None => Err(Error::new(Kind::NotFound, format!("no sweep {id}"))
            .hint("`artifactfs sweep ls PROJECT` lists the sweeps of a project")),
    }
}

impl Embedded {
    /// A run becomes part of a sweep, in the transaction that begins it.
    pub(super) fn join_sweep(
        transaction: &mut dyn Transaction,
        id: &SweepId,
        start: &RunStart,
    ) -> Result<()> {
        let sweep = known_sweep(&*transaction, id)?;
        if sweep.project != start.project {
            let what = format!("sweep {id} belongs to project {}", sweep.project);
            return Err(Error::new(Kind::Conflict, what).hint("begin the run there (-p)"));
        }
        transaction.put(&keys::run_of_sweep(id, &start.id), &[])
    }

    pub(super) fn make_sweep(&self, sweep: &SweepInfo) -> Result<SweepInfo> {
        let now = (self.clock)();
        let sweep = SweepInfo { created: now, ..sweep.clone() };
        self.write(Durability::Immediate, |transaction| {
            if let Some(bytes) = transaction.get(&keys::sweep(&sweep.id))? {
                let there: SweepInfo = record::decode(&bytes)?;
                // Asked twice, by who heard no answer.
                if (SweepInfo { created: now, ..there.clone() }) == sweep {
                    return Ok(there);
                }
                let what = format!("sweep {} is there already", sweep.id);
                return Err(Error::new(Kind::Conflict, what).hint("choose another id"));
            }
            super::commit::open_project(transaction, &sweep.project, now)?;
            transaction.put(&keys::sweep_of_project(&sweep.project, &sweep.id), &[])?;
            transaction.put(&keys::sweep(&sweep.id), &record::encode(&sweep))?;
            Ok(sweep.clone())
        })
    }

    pub(super) fn show_sweep(&self, id: &SweepId) -> Result<SweepInfo> {
        self.read(|view| known_sweep(view, id))
    }

    pub(super) fn list_sweeps(&self, project: &ProjectName) -> Result<Vec<SweepInfo>> {
        self.read(|view| {
            let below = Key::of(Space::SweepOfProject).name(project.as_str());
            let prefix = below.length();
            let mut found = Vec::new();
            each_below(view, below, &mut |key, _| {
                let id: SweepId = name_in(keys::name_after(key, prefix))?;
                found.push(known_sweep(view, &id)?);
                Ok(())
            })?;
            Ok(found)
        })
    }

    pub(super) fn list_runs_of_sweep(
        &self,
        id: &SweepId,
        after: Option<&RunId>,
        limit: u32,
    ) -> Result<Vec<RunInfo>> {
        let now = (self.clock)();
        self.read(|view| {
            known_sweep(view, id)?;
            let below = Key::of(Space::RunOfSweep).name(id.as_str());
            let prefix = below.length();
            let (first, to) = below.range();
            let from = after.map_or(first, |run| keys::next(&keys::run_of_sweep(id, run)));
            let mut runs = Vec::new();
            for (key, _) in view.scan(&from, &to, limit as usize)? {
                let run: RunId = name_in(keys::name_after(&key, prefix))?;
                runs.extend(find_run(view, &run)?.map(|run| run.seen_at(now)));
            }
            Ok(runs)
        })
    }
}
