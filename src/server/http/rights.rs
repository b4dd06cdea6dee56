//! The rights of users in the projects of a repository, looked up at most once a second.

use std::sync::Arc;

use super::access_cache::{Keep, if_there};
use super::app::Served;
use crate::error::{Kind, Result};
use crate::model::access::{Level, Principal};
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::zone::Zone;
use crate::ops::repository::Repository;
use crate::registry::guard::Rights;

/// The rights of a user.
pub(super) struct UserRights<'a> {
    served: &'a Served,
    principal: &'a Principal,
}

impl<'a> UserRights<'a> {
    pub(super) fn new(served: &'a Served, principal: &'a Principal) -> Self {
        Self { served, principal }
    }

    fn repository(&self) -> &Repository {
        &self.served.team.repository
    }
}

/// Turns [`Kind::NotFound`] into `None`.
fn if_found<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

impl Rights for UserRights<'_> {
    fn principal(&self) -> &Principal {
        self.principal
    }

    fn is_zoned(&self) -> Result<bool> {
        let look_up = || self.repository().registry.is_zoned();
        let keep = |zoned: &bool| if *zoned { Keep::Always } else { Keep::Shortly };
        self.served.access_cache.zoned.get(&(), keep, look_up)
    }

    fn level(&self, project: &ProjectName) -> Result<Level> {
        let look_up = || Ok(Arc::new(self.repository().registry.project_access(project.clone())?));
        let access = self.served.access_cache.access.get(project, |_| Keep::Shortly, look_up)?;
        Ok(access.level(self.principal))
    }

    fn project_of_zone(&self, zone: Zone) -> Result<Option<ProjectName>> {
        let look_up = || self.repository().registry.project_of_zone(zone);
        let keep = |found: &Option<_>| if found.is_some() { Keep::Always } else { Keep::Never };
        self.served.access_cache.zones.get(&zone, keep, look_up)
    }

    fn project_of_run(&self, run: &RunId) -> Result<Option<ProjectName>> {
        let look_up = || {
            let found = if_found(self.repository().registry.run(run.clone()))?;
            Ok(found.map(|run| run.start.project))
        };
        self.served.access_cache.runs.get(run, if_there, look_up)
    }

    fn project_of_sweep(&self, sweep: &SweepId) -> Result<Option<ProjectName>> {
        let look_up = || {
            let found = if_found(self.repository().registry.sweep(sweep.clone()))?;
            Ok(found.map(|sweep| sweep.project))
        };
        self.served.access_cache.sweeps.get(sweep, if_there, look_up)
    }
}
