//! The versions that runs used and logged, and the aliases as a run sees them.
//!
//! Edges to a version stay after its deletion: they hold names and numbers, and a number is never
//! used twice.

use super::edge::{EdgeRecord, edge};
use super::run::{known_run, open_run, put_run};
use crate::error::Result;
use crate::model::name::{Alias, RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::run::{Edge, RunInfo};
use crate::model::time::Timestamp;
use crate::model::version::VersionInfo;
use crate::registry::engine::{Durability, Transaction};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::names::naming::{lookup, name_in};
use crate::registry::paging::{Page, page};
use crate::registry::record;

/// Records the run that logged a version, in the transaction that makes the version.
///
/// # Errors
/// A conflict for a run that has ended.
pub(in crate::registry) fn add_logged(
    transaction: &mut dyn Transaction,
    id: &RunId,
    path: &ArtifactPath,
    number: VersionNumber,
    now: Timestamp,
) -> Result<()> {
    let run = open_run(&*transaction, id)?;
    put_run(transaction, &RunInfo { heard: now, ..run })?;
    let edge: EdgeRecord = (now, None);
    transaction.put(&keys::edge(Space::Logged, id, path, number), &record::encode(&edge))?;
    transaction.put(&keys::logger(path, number), &record::encode(id))
}

impl EngineRegistry {
    /// Returns the version of a reference for a run. The first look-up of an alias by an open run
    /// pins its version.
    pub(in crate::registry) fn lookup_for_run(
        &self,
        id: &RunId,
        reference: &Reference,
    ) -> Result<VersionInfo> {
        let Selector::Alias(alias) = &reference.selector else {
            return self.read(|view| lookup(view, reference));
        };
        let key = keys::run_alias(id, &reference.path, alias);
        let pinned = self.read(|view| {
            known_run(view, id)?;
            view.get(&key)?.map(|bytes| record::decode(&bytes)).transpose()
        })?;
        let by_number = |number| Reference {
            path: reference.path.clone(),
            selector: Selector::Version(number),
        };
        if let Some(number) = pinned {
            return self.read(|view| lookup(view, &by_number(number)));
        }
        self.write_aside(Durability::Immediate, |transaction| {
            if let Some(bytes) = transaction.get(&key)? {
                return lookup(&*transaction, &by_number(record::decode(&bytes)?));
            }
            if open_run(&*transaction, id).is_err() {
                return lookup(&*transaction, reference);
            }
            let found = lookup(&*transaction, reference)?;
            transaction.put(&key, &record::encode(&found.number))?;
            Ok(found)
        })
    }

    pub(in crate::registry) fn add_use(
        &self,
        id: &RunId,
        path: &ArtifactPath,
        number: VersionNumber,
        alias: Option<&Alias>,
    ) -> Result<()> {
        let now = (self.clock)();
        let key = keys::edge(Space::Used, id, path, number);
        if self.read(|view| view.get(&key))?.is_some() {
            return Ok(());
        }
        self.write_aside(Durability::Immediate, |transaction| {
            open_run(&*transaction, id)?;
            if transaction.get(&key)?.is_some() {
                return Ok(());
            }
            let edge: EdgeRecord = (now, alias.cloned());
            transaction.put(&key, &record::encode(&edge))?;
            transaction.put(&keys::user(path, number, id), &[])
        })
    }

    pub(in crate::registry) fn edges(
        &self,
        id: &RunId,
        logged: bool,
        after: Option<&(ArtifactPath, VersionNumber)>,
        limit: u32,
    ) -> Result<Page<Edge>> {
        let space = if logged { Space::Logged } else { Space::Used };
        let below = Key::of(space).name(id.as_str());
        let prefix = below.length();
        let (first, to) = below.range();
        let from =
            after.map_or(first, |(path, number)| keys::next(&keys::edge(space, id, path, *number)));
        self.read(|view| {
            known_run(view, id)?;
            let found = page(view, &from, &to, limit as usize)?;
            let edges = found.items.iter().map(|(key, value)| edge(view, key, value, prefix));
            Ok(Page { items: edges.collect::<Result<_>>()?, more: found.more })
        })
    }

    pub(in crate::registry) fn logger(
        &self,
        path: &ArtifactPath,
        number: VersionNumber,
    ) -> Result<Option<RunId>> {
        self.read(|view| {
            let found = view.get(&keys::logger(path, number))?;
            found.map(|bytes| record::decode(&bytes)).transpose()
        })
    }

    pub(in crate::registry) fn users(
        &self,
        path: &ArtifactPath,
        number: VersionNumber,
        after: Option<&RunId>,
        limit: u32,
    ) -> Result<Page<RunId>> {
        let below = keys::below(Space::User, path).number(number.0);
        let prefix = below.length();
        let (first, to) = below.range();
        let from = after.map_or(first, |id| keys::next(&keys::user(path, number, id)));
        self.read(|view| {
            let found = page(view, &from, &to, limit as usize)?;
            let users = found.items.iter().map(|(key, _)| name_in(keys::name_after(key, prefix)));
            Ok(Page { items: users.collect::<Result<_>>()?, more: found.more })
        })
    }
}
