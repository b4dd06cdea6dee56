//! The names that a mount shows: projects, running runs, versions, and what changed among them.

use std::collections::HashMap;

use super::listing;
use super::repository::Repository;
use super::runs;
use crate::error::{Kind, Result};
use crate::model::name::{Alias, ProjectName, RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::run::RunState;
use crate::model::version::VersionInfo;
use crate::registry::Changes;

/// Names that are looked up one by one; of more, all versions of the artifact are listed.
const LOOK_UPS_MAX: usize = 32;

/// Reports whether there is a project of this name.
///
/// # Errors
/// When the registry fails.
pub(crate) fn has_project(repository: &Repository, project: &ProjectName) -> Result<bool> {
    let found = repository.registry.has_project(project.clone());
    match &repository.resolved {
        Some(resolved) => resolved.project(project, found),
        None => found,
    }
}

/// Returns the names of all projects.
///
/// # Errors
/// When the registry fails.
pub(crate) fn projects(repository: &Repository) -> Result<Vec<ProjectName>> {
    let projects = repository.registry.projects()?;
    Ok(projects.into_iter().map(|project| project.name).collect())
}

/// Returns the ids of all running runs, project by project.
///
/// # Errors
/// When the registry fails.
pub(crate) fn running_runs(repository: &Repository) -> Result<Vec<RunId>> {
    let mut running = Vec::new();
    for project in projects(repository)? {
        runs::each_run(&*repository.registry, &project, &mut |run| {
            if run.state == RunState::Running {
                running.push(run.start.id);
            }
            Ok(())
        })?;
    }
    Ok(running)
}

/// Fails unless there is a run with this id.
///
/// # Errors
/// [`Kind::NotFound`] if there is none; when the registry fails.
pub(crate) fn check_run(repository: &Repository, run: &RunId) -> Result<()> {
    repository.registry.run(run.clone()).map(drop)
}

/// Returns the version that `reference` means, in a run the one that it meant to that run first. While
/// a shared registry cannot be reached, it is the one that the reference meant before.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such version or run; when the registry fails.
pub(crate) fn version(
    repository: &Repository,
    run: Option<&RunId>,
    reference: Reference,
) -> Result<VersionInfo> {
    match run {
        Some(run) => repository.registry.lookup_for_run(run.clone(), reference),
        None => {
            let found = repository.registry.lookup(reference.clone());
            match &repository.resolved {
                Some(resolved) => resolved.version(&reference, found),
                None => found,
            }
        }
    }
}

/// Records that a run uses a version, found by `alias` if by one.
///
/// # Errors
/// When the registry fails. A run that has ended records nothing, without an error.
pub(crate) fn record_use(
    repository: &Repository,
    run: &RunId,
    used: (&ArtifactPath, VersionNumber),
    alias: Option<Alias>,
) -> Result<()> {
    runs::record_use(&*repository.registry, run, used, alias)
}

/// Returns all versions of all artifacts of a project without their metadata: none if there is no such project, since
/// a project may have drafts only.
///
/// # Errors
/// When the registry fails.
pub(crate) fn versions_of_project(
    repository: &Repository,
    project: &ProjectName,
) -> Result<Vec<VersionInfo>> {
    let artifacts = or_empty(listing::artifacts(&*repository.registry, project))?;
    let mut versions = Vec::new();
    for artifact in artifacts {
        versions.extend(listing::versions(&*repository.registry, &artifact.path)?);
    }
    Ok(versions)
}

/// Returns the version of each of `selectors` that has one; of many selectors, of all selectors of the artifact.
///
/// # Errors
/// When the registry fails.
pub(crate) fn resolve_selectors(
    repository: &Repository,
    path: &ArtifactPath,
    selectors: &[&Selector],
) -> Result<HashMap<Selector, VersionNumber>> {
    let mut resolved = HashMap::new();
    if selectors.len() > LOOK_UPS_MAX {
        for info in or_empty(listing::versions(&*repository.registry, path))? {
            resolved.extend(selectors_of(&info).map(|selector| (selector, info.number)));
        }
        return Ok(resolved);
    }
    for selector in selectors.iter().copied() {
        if resolved.contains_key(selector) {
            continue;
        }
        let reference = Reference { path: path.clone(), selector: selector.clone() };
        match repository.registry.lookup(reference) {
            Ok(info) => drop(resolved.insert(selector.clone(), info.number)),
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(resolved)
}

/// Returns the number and the aliases of a version.
pub(crate) fn selectors_of(info: &VersionInfo) -> impl Iterator<Item = Selector> + '_ {
    let aliases = info.aliases.iter().cloned().map(Selector::Alias);
    std::iter::once(Selector::Version(info.number)).chain(aliases)
}

/// Returns the position of the newest change of names.
///
/// # Errors
/// When the registry fails.
pub(crate) fn last_change(repository: &Repository) -> Result<u64> {
    Ok(repository.registry.changes(u64::MAX - 1, 0)?.last)
}

/// Returns the changes of names after the position `last`; waits for one for up to `wait_milliseconds`.
///
/// # Errors
/// When the registry fails.
pub(crate) fn changes(
    repository: &Repository,
    last: u64,
    wait_milliseconds: u64,
) -> Result<Changes> {
    repository.registry.changes(last, wait_milliseconds)
}

/// Takes what is not there for an empty list.
fn or_empty<T>(listed: Result<Vec<T>>) -> Result<Vec<T>> {
    match listed {
        Err(e) if e.kind() == Kind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}
