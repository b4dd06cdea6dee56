//! The rights of callers.

use crate::error::Result;
use crate::model::access::{Level, Need, Principal, ProjectAccess};
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::zone::Zone;

/// The rights of a caller, and the facts on which they depend.
pub trait Rights {
    /// Returns the caller.
    fn principal(&self) -> &Principal;

    /// Returns whether each project is a zone.
    ///
    /// # Errors
    /// The errors of the registry.
    fn is_zoned(&self) -> Result<bool>;

    /// Returns the caller's rights in a project, whether or not it exists.
    ///
    /// # Errors
    /// The errors of the registry.
    fn level(&self, project: &ProjectName) -> Result<Level>;

    /// Returns the project of a zone.
    ///
    /// # Errors
    /// The errors of the registry.
    fn project_of_zone(&self, zone: Zone) -> Result<Option<ProjectName>>;

    /// Returns the project of a run, if there is such a run.
    ///
    /// # Errors
    /// The errors of the registry.
    fn project_of_run(&self, run: &RunId) -> Result<Option<ProjectName>>;

    /// Returns the project of a sweep, if there is such a sweep.
    ///
    /// # Errors
    /// The errors of the registry.
    fn project_of_sweep(&self, sweep: &SweepId) -> Result<Option<ProjectName>>;

    /// Returns whether the caller may read a run.
    ///
    /// # Errors
    /// The errors of the registry.
    fn reads_run(&self, run: &RunId) -> Result<bool> {
        match self.project_of_run(run)? {
            Some(project) => Ok(self.level(&project)?.suffices(Need::Read)),
            None => Ok(false),
        }
    }
}

/// Returns the rights of a caller in projects without members that the whole team sees: those that
/// are not there, and all in a repository that is one zone.
pub(super) fn in_team(principal: &Principal) -> Level {
    let project = "team".parse().expect("it is a name");
    let access = ProjectAccess::unchanged(project, None);
    access.level(&Principal { projects: Vec::new(), ..principal.clone() })
}

/// Returns the caller's rights in the project of a zone; in a repository that is one zone, those in
/// the team.
pub(super) fn level_in(rights: &dyn Rights, zone: Zone) -> Result<Level> {
    if !rights.is_zoned()? {
        return Ok(in_team(rights.principal()));
    }
    match rights.project_of_zone(zone)? {
        Some(project) => rights.level(&project),
        // Nothing is there, and only an admin of the team may learn that.
        None => match in_team(rights.principal()) {
            Level::Admin => Ok(Level::Admin),
            _ => Ok(Level::None),
        },
    }
}
