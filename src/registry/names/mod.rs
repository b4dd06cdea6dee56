//! NAMES: projects, artifacts and aliases.

pub(super) mod alias;
mod changes;
pub(super) mod naming;
pub(super) mod properties;
pub(super) mod protection;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::name::{Alias, ArtifactName, ProjectName, Tag};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::{ArtifactInfo, Change, ProjectInfo, VersionInfo};
use crate::registry::engine_registry::{CHANGES_WAIT_MAX, EngineRegistry};
use crate::registry::keys;
use crate::registry::paging::Page;

/// A change of what is said about an artifact; what is `None` or empty stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactUpdate {
    /// The whole description.
    pub description: Option<String>,
    /// How long versions live that inherit it, in milliseconds; `Some(None)`: for ever.
    pub ttl_milliseconds: Option<Option<u64>>,
    /// Tags to add.
    pub tag: Vec<Tag>,
    /// Tags to remove.
    pub untag: Vec<Tag>,
    /// Aliases to protect, which need not exist yet.
    pub protect: Vec<Alias>,
    /// Aliases to protect no longer.
    pub unprotect: Vec<Alias>,
}

/// A change of the aliases of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AliasChange {
    /// These too, taken from whichever version has them.
    Add(Vec<Alias>),
    /// Not these any more; each must be there.
    Remove(Vec<Alias>),
    /// These and no others.
    Set(Vec<Alias>),
}

/// What happened to names since a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changes {
    /// Ask with this next time.
    pub last: u64,
    /// What changed, oldest first.
    pub changes: Vec<Change>,
    /// The log no longer reaches back so far: everything may have changed.
    pub lost: bool,
}

subject! {
    /// Names of projects, artifacts and versions.
    ///
    /// # Contract
    /// A caller may rely on this: what is looked up was true in one moment, and an alias that has moved is never seen to
    /// move back by itself. An implementation puts every change of names into the log that [`changes`](Self::changes)
    /// reads, in the transaction that makes the change. It needs the right to read a project; `update_artifact` and
    /// `change_aliases` need the right to write to it.
    Names, NamesCall;

    /// All projects.
    projects = Projects() -> Vec<ProjectInfo>;
    /// Whether there is such a project.
    has_project = HasProject(project: ProjectName) -> bool;
    /// The artifacts of a project above `after`, in the order of names, at most `limit`.
    artifacts = Artifacts(project: ProjectName, after: Option<ArtifactName>, limit: u32) -> Page<ArtifactInfo>;
    /// An artifact.
    artifact = FindArtifact(path: ArtifactPath) -> ArtifactInfo;
    /// Changes what is said about an artifact.
    update_artifact = UpdateArtifact(path: ArtifactPath, update: ArtifactUpdate) -> ArtifactInfo;
    /// The version a reference stands for now.
    lookup = Lookup(reference: Reference) -> VersionInfo;
    /// Changes the aliases of a version. Taking a protected alias off a version is refused unless `also_protected`.
    change_aliases = ChangeAliases(reference: Reference, change: AliasChange, also_protected: bool) -> VersionInfo;
    /// What changed after `after`; waits up to `wait_milliseconds` for something to change.
    changes = ChangesAfter(after: u64, wait_milliseconds: u64) -> Changes;
}

impl Names for EngineRegistry {
    fn projects(&self) -> Result<Vec<ProjectInfo>> {
        self.projects()
    }

    fn has_project(&self, project: ProjectName) -> Result<bool> {
        self.read(|view| Ok(view.get(&keys::project(&project))?.is_some()))
    }

    fn artifacts(
        &self,
        project: ProjectName,
        after: Option<ArtifactName>,
        limit: u32,
    ) -> Result<Page<ArtifactInfo>> {
        self.artifacts(&project, after.as_ref(), limit)
    }

    fn artifact(&self, path: ArtifactPath) -> Result<ArtifactInfo> {
        self.artifact(&path)
    }

    fn update_artifact(&self, path: ArtifactPath, update: ArtifactUpdate) -> Result<ArtifactInfo> {
        self.update_artifact(&path, &update)
    }

    fn lookup(&self, reference: Reference) -> Result<VersionInfo> {
        self.read(|view| naming::lookup(view, &reference))
    }

    fn change_aliases(
        &self,
        reference: Reference,
        change: AliasChange,
        also_protected: bool,
    ) -> Result<VersionInfo> {
        self.change_aliases(&reference, &change, also_protected)
    }

    fn changes(&self, after: u64, wait_milliseconds: u64) -> Result<Changes> {
        let wait = Duration::from_millis(wait_milliseconds.min(CHANGES_WAIT_MAX));
        self.wait_for_change(after, wait);
        self.changes_now(after)
    }
}
