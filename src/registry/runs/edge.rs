//! The edges between runs and versions, as keys and values.

use crate::error::{Error, Kind, Result};
use crate::model::name::{Alias, ArtifactName, ProjectName, RunId, VersionNumber};
use crate::model::reference::ArtifactPath;
use crate::model::run::Edge;
use crate::model::time::Timestamp;
use crate::registry::engine::View;
use crate::registry::keys::{self, Key, Space};
use crate::registry::names::naming::name_in;
use crate::registry::paging::each_below;
use crate::registry::record;

/// Returns the version at the end of a key, after `prefix` bytes.
fn version_in(key: &[u8], prefix: usize) -> Result<(ArtifactPath, VersionNumber)> {
    let damaged = || Error::new(Kind::Corrupt, "a key of the registry is damaged");
    let names = key.get(prefix..key.len().saturating_sub(8)).ok_or_else(damaged)?;
    let mut parts = names.split(|b| *b == 0);
    let project: ProjectName = name_in(parts.next().ok_or_else(damaged)?)?;
    let artifact: ArtifactName = name_in(parts.next().ok_or_else(damaged)?)?;
    let number = keys::number_of(key).ok_or_else(damaged)?;
    Ok((ArtifactPath { project, artifact }, VersionNumber(number)))
}

/// The record of an edge: its time, and the alias through which the version was found.
pub(super) type EdgeRecord = (Timestamp, Option<Alias>);

/// Decodes an edge from a key, whose first `prefix` bytes are those of the run, and its value.
pub(super) fn edge(view: &dyn View, key: &[u8], value: &[u8], prefix: usize) -> Result<Edge> {
    let (path, number) = version_in(key, prefix)?;
    let (at, alias): EdgeRecord = record::decode(value)?;
    let deleted = view.get(&keys::version(&path, number))?.is_none();
    Ok(Edge { path, number, at, alias, deleted })
}

/// Returns the versions in all keys of a run in `space`.
pub(super) fn neighbours(
    view: &dyn View,
    space: Space,
    id: &RunId,
) -> Result<Vec<(ArtifactPath, VersionNumber)>> {
    let below = Key::of(space).name(id.as_str());
    let prefix = below.length();
    let mut found = Vec::new();
    each_below(view, below, &mut |key, _| {
        found.push(version_in(key, prefix)?);
        Ok(())
    })?;
    Ok(found)
}
