//! Calls whose arguments or replies name several projects. The guard leaves out the projects that the
//! caller may not read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::rights::{Rights, in_team, level_in};
use crate::error::Result;
use crate::model::access::{Need, ProjectAccess};
use crate::model::digest::Digest;
use crate::model::name::{ProjectName, RunId};
use crate::model::object::Located;
use crate::model::run::{Edge, RunInfo};
use crate::model::version::Change;
use crate::model::zone::Zone;
use crate::registry::access::AccessCall;
use crate::registry::call::Call;
use crate::registry::groups::{GroupsCall, group::GroupInfo};
use crate::registry::leases::LeasesCall;
use crate::registry::names::NamesCall;
use crate::registry::objects::ObjectsCall;
use crate::registry::paging::Page;
use crate::registry::runs::RunsCall;
use crate::registry::subject::pack;
use crate::registry::{Changes, LeaseInfo, Registry};

/// Makes a call that has to be narrowed, and returns its encoded reply; returns any other call.
pub(super) fn narrow(
    rights: &dyn Rights,
    registry: &dyn Registry,
    call: Call,
) -> Result<std::result::Result<Vec<u8>, Call>> {
    let reads = |project: &ProjectName| Ok(rights.level(project)?.suffices(Need::Read));
    let reply = match call {
        Call::Names(NamesCall::Projects {}) => {
            pack(&visible(registry.projects()?, |found| reads(&found.name))?)
        }
        Call::Names(NamesCall::ChangesAfter { after, wait_milliseconds }) => {
            pack(&changes(rights, &registry.changes(after, wait_milliseconds)?)?)
        }
        Call::Objects(ObjectsCall::LocateObjects { digests }) => {
            pack(&locate(rights, registry, digests)?)
        }
        Call::Objects(ObjectsCall::Doubt { found }) => {
            let own = |(digest, _): &_| may(rights, Digest::zone(digest), Need::Write);
            pack(&registry.doubt(visible(found, own)?)?)
        }
        Call::Leases(LeasesCall::Leases {}) => {
            let own = |lease: &LeaseInfo| may(rights, lease.id.zone(), Need::Write);
            pack(&visible(registry.leases()?, own)?)
        }
        Call::Groups(GroupsCall::OpenGroups { path: None, after, limit }) => {
            let read = |after| {
                let items = registry.open_groups(None, after, limit)?;
                Ok(Page { more: items.len() == limit as usize, items })
            };
            let key = |info: &GroupInfo| (info.path.clone(), info.group.clone());
            let sees = |info: &GroupInfo| reads(&info.path.project);
            pack(&visible_page(after, read, key, sees)?.items)
        }
        Call::Runs(RunsCall::Edges { id, logged, after, limit }) => {
            let read = |after| registry.edges(id.clone(), logged, after, limit);
            let key = |edge: &Edge| (edge.path.clone(), edge.number);
            pack(&visible_page(after, read, key, |edge| reads(&edge.path.project))?)
        }
        Call::Runs(RunsCall::Logger { path, number }) => {
            let run = registry.logger(path, number)?.into_iter().collect();
            pack(&visible(run, |run| rights.reads_run(run))?.pop())
        }
        Call::Runs(RunsCall::Users { path, number, after, limit }) => {
            let read = |after| registry.users(path.clone(), number, after, limit);
            pack(&visible_page(after, read, RunId::clone, |run| rights.reads_run(run))?)
        }
        Call::Runs(RunsCall::RunsOfSweep { id, after, limit }) => {
            let read = |after| registry.runs_of_sweep(id.clone(), after, limit);
            let key = |run: &RunInfo| run.start.id.clone();
            pack(&visible_page(after, read, key, |run| reads(&run.start.project))?)
        }
        Call::Access(AccessCall::ZonedProjects { after, limit }) => {
            let read = |after| registry.zoned_projects(after, limit);
            let key = |access: &ProjectAccess| access.project.clone();
            pack(&visible_page(after, read, key, |access| reads(&access.project))?)
        }
        call => return Ok(Err(call)),
    };
    reply.map(Ok)
}

/// Returns the items that may be seen.
fn visible<T>(items: Vec<T>, mut sees: impl FnMut(&T) -> Result<bool>) -> Result<Vec<T>> {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if sees(&item)? {
            kept.push(item);
        }
    }
    Ok(kept)
}

/// Returns the items of a page that may be seen. If there are none, it reads on, because a client
/// takes an empty page for the last.
fn visible_page<T, K>(
    mut after: Option<K>,
    read: impl Fn(Option<K>) -> Result<Page<T>>,
    key: impl Fn(&T) -> K,
    mut sees: impl FnMut(&T) -> Result<bool>,
) -> Result<Page<T>> {
    loop {
        let page = read(after)?;
        let (last, more) = (page.items.last().map(&key), page.more);
        let items = visible(page.items, &mut sees)?;
        if !items.is_empty() || !more || last.is_none() {
            return Ok(Page { items, more });
        }
        after = last;
    }
}

/// Returns whether the caller has a right in the project of a zone.
fn may(rights: &dyn Rights, zone: Zone, need: Need) -> Result<bool> {
    Ok(level_in(rights, zone)?.suffices(need))
}

fn locate(
    rights: &dyn Rights,
    registry: &dyn Registry,
    digests: Vec<Digest>,
) -> Result<Vec<Option<Located>>> {
    if !rights.is_zoned()? {
        return match in_team(rights.principal()).suffices(Need::Read) {
            true => registry.locate(digests),
            false => Ok(vec![None; digests.len()]),
        };
    }
    // A call is about thousands of objects, and mostly of one zone.
    let mut known = HashMap::new();
    let reads = digests.iter().map(|digest| match known.entry(digest.zone()) {
        Entry::Occupied(known) => Ok(*known.get()),
        Entry::Vacant(place) => Ok(*place.insert(may(rights, digest.zone(), Need::Read)?)),
    });
    let reads: Vec<bool> = reads.collect::<Result<_>>()?;
    let readable = digests.iter().zip(&reads).filter(|(_, reads)| **reads);
    let found = registry.locate(readable.map(|(digest, _)| *digest).collect())?;
    let mut found = found.into_iter();
    Ok(reads.into_iter().map(|reads| if reads { found.next().flatten() } else { None }).collect())
}

/// Returns changes without those of projects that the caller may not read.
///
/// # Errors
/// The errors of looking up rights.
pub fn changes(rights: &dyn Rights, all: &Changes) -> Result<Changes> {
    let Changes { last, lost, changes } = all;
    let changes = visible(changes.clone(), |change| match change {
        Change::Artifact(path) => Ok(rights.level(&path.project)?.suffices(Need::Read)),
        _ => Ok(true),
    })?;
    Ok(Changes { last: *last, lost: *lost, changes })
}
