//! NAMES: projects, artifacts and aliases.

pub(super) mod alias;
mod changes;
pub(super) mod decide;
pub(super) mod naming;
pub(super) mod properties;

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

/// A change of an artifact's properties; fields that are `None` or empty change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactUpdate {
    /// The new description.
    pub description: Option<String>,
    /// The time to live of versions that inherit it, in milliseconds; `Some(None)`: for ever.
    pub ttl_milliseconds: Option<Option<u64>>,
    /// The tags to add.
    pub tag: Vec<Tag>,
    /// The tags to remove.
    pub untag: Vec<Tag>,
    /// The aliases to protect, which need not exist yet.
    pub protect: Vec<Alias>,
    /// The aliases to protect no longer.
    pub unprotect: Vec<Alias>,
}

/// A change of the aliases of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AliasChange {
    /// The aliases to add, also if another version has them now.
    Add(Vec<Alias>),
    /// The aliases to remove; the version must have each.
    Remove(Vec<Alias>),
    /// The complete new list of aliases.
    Set(Vec<Alias>),
}

/// A part of the change log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changes {
    /// The value of `after` for the next call.
    pub last: u64,
    /// The changes, oldest first.
    pub(crate) changes: Vec<Change>,
    /// True if the log no longer reaches back so far: everything may have changed.
    pub lost: bool,
}

subject! {
    /// The names of projects, artifacts and versions.
    ///
    /// # Contract
    /// Each result was true at one moment, and an alias that moved never moves back by itself. An
    /// implementation adds every change of names to the log that [`changes`](Self::changes) reads,
    /// in the transaction that makes the change. Calls need the right to read a project;
    /// `update_artifact` and `change_aliases` need the right to write to it.
    Names, NamesCall;

    /// Returns all projects.
    projects = Projects() -> Vec<ProjectInfo>;
    /// Returns whether there is such a project.
    has_project = HasProject(project: ProjectName) -> bool;
    /// Returns the artifacts of a project above `after`, in the order of names, at most `limit`.
    artifacts = Artifacts(project: ProjectName, after: Option<ArtifactName>, limit: u32) -> Page<ArtifactInfo>;
    /// Returns an artifact.
    artifact = FindArtifact(path: ArtifactPath) -> ArtifactInfo;
    /// Changes the properties of an artifact.
    update_artifact = UpdateArtifact(path: ArtifactPath, update: ArtifactUpdate) -> ArtifactInfo;
    /// Returns the version that a reference stands for now.
    lookup = Lookup(reference: Reference) -> VersionInfo;
    /// Changes the aliases of a version. A conflict if that takes a protected alias off a version,
    /// unless `also_protected`.
    change_aliases = ChangeAliases(reference: Reference, change: AliasChange, also_protected: bool) -> VersionInfo;
    /// Returns the changes after `after`. If there are none, waits up to `wait_milliseconds` for
    /// one.
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
