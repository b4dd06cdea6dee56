//! Sweeps: sets of runs that are compared by a metric.

use crate::error::{Error, Kind, Result, RunHint};
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::run::{RunInfo, RunStart, SweepInfo};
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::names::naming::{name_in, open_project};
use crate::registry::paging::Page;
use crate::registry::paging::{Filling, page};
use crate::registry::record;
use crate::registry::runs::run::page_of_runs;

/// Returns the encoded record of a sweep, or `NotFound`.
fn known(view: &dyn View, id: &SweepId) -> Result<Vec<u8>> {
    view.get(&keys::sweep(id))?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("no sweep {id}")).hint(RunHint::ListSweeps)
    })
}

fn known_sweep(view: &dyn View, id: &SweepId) -> Result<SweepInfo> {
    record::decode(&known(view, id)?)
}

impl EngineRegistry {
    /// Adds a run to a sweep, in the transaction that begins the run.
    pub(in crate::registry) fn join_sweep(
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

    pub(in crate::registry) fn create_sweep(&self, sweep: &SweepInfo) -> Result<SweepInfo> {
        sweep.config.check()?;
        let now = (self.clock)();
        let sweep = SweepInfo { created: now, ..sweep.clone() };
        self.write_aside(Durability::Immediate, |transaction| {
            if let Some(bytes) = transaction.get(&keys::sweep(&sweep.id))? {
                let there: SweepInfo = record::decode(&bytes)?;
                // The call is repeated, because its reply was lost.
                if (SweepInfo { created: now, ..there.clone() }) == sweep {
                    return Ok(there);
                }
                let what = format!("sweep {} already exists", sweep.id);
                return Err(Error::new(Kind::Conflict, what).hint("choose another id"));
            }
            open_project(transaction, &sweep.project, now)?;
            transaction.put(&keys::sweep_of_project(&sweep.project, &sweep.id), &[])?;
            transaction.put(&keys::sweep(&sweep.id), &record::encode(&sweep))?;
            Ok(sweep.clone())
        })
    }

    pub(in crate::registry) fn sweep(&self, id: &SweepId) -> Result<SweepInfo> {
        self.read(|view| known_sweep(view, id))
    }

    pub(in crate::registry) fn sweeps(
        &self,
        project: &ProjectName,
        after: Option<&SweepId>,
        limit: u32,
    ) -> Result<Page<SweepInfo>> {
        let below = Key::of(Space::SweepOfProject).name(project.as_str());
        let prefix = below.length();
        let (first, to) = below.range();
        let from = after.map_or(first, |id| keys::next(&keys::sweep_of_project(project, id)));
        self.read(|view| {
            let found = page(view, &from, &to, limit as usize)?;
            let mut filling = Filling::new(limit);
            for (key, _) in &found.items {
                if filling.is_full() {
                    return Ok(filling.page(true));
                }
                let id: SweepId = name_in(keys::name_after(key, prefix))?;
                let bytes = known(view, &id)?;
                filling.push(record::decode(&bytes)?, bytes.len());
            }
            Ok(filling.page(found.more))
        })
    }

    pub(in crate::registry) fn runs_of_sweep(
        &self,
        id: &SweepId,
        after: Option<&RunId>,
        limit: u32,
    ) -> Result<Page<RunInfo>> {
        let now = (self.clock)();
        let below = Key::of(Space::RunOfSweep).name(id.as_str());
        let prefix = below.length();
        let (first, to) = below.range();
        let from = after.map_or(first, |run| keys::next(&keys::run_of_sweep(id, run)));
        self.read(|view| {
            known_sweep(view, id)?;
            page_of_runs(view, (&from, &to), prefix, limit, now)
        })
    }
}
