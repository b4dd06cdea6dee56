//! Groups: the parts that several writers put before they become one version.
//!
//! A group of an artifact is a list of parts, each a whole tree that one writer put. Later parts
//! hide equal paths of earlier ones. A part holds one reference to its root, like a version.
//! Writers do not wait for each other, and readers see neither parts nor an artifact that has only
//! parts. The caller merges the parts; one transaction commits the result and removes them. A
//! sealed group keeps its name and the number of its version; the next part begins its next
//! generation.

use super::decide;
use super::group::{GroupInfo, NewPart, PartInfo, SealRequest};
use crate::error::{Error, Kind, Result};
use crate::model::name::{ArtifactType, GroupName};
use crate::model::reference::ArtifactPath;
use crate::model::version::{AddedPart, Committed, Totals};
use crate::registry::LeaseId;
use crate::registry::counter::next_counter;
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::live::{answer, fingerprint, has_answered, live_lease};
use crate::registry::leases::zones;
use crate::registry::names::naming;
use crate::registry::objects::table::{PackCounts, add_reference, drop_reference};
use crate::registry::paging::each_below;
use crate::registry::record;
use crate::registry::runs::run::open_run;
use crate::registry::versions::commit::commit_in;

/// The number of records in one read.
const PAGE: usize = 1_000;

fn find(view: &dyn View, path: &ArtifactPath, group: &GroupName) -> Result<Option<GroupInfo>> {
    view.get(&keys::group(path, group))?.map(|bytes| record::decode(&bytes)).transpose()
}

fn put(transaction: &mut dyn Transaction, info: &GroupInfo) -> Result<()> {
    transaction.put(&keys::group(&info.path, &info.group), &record::encode(info))
}

/// Returns a group with an open part; a conflict if it is sealed.
fn open(view: &dyn View, path: &ArtifactPath, group: &GroupName) -> Result<GroupInfo> {
    decide::open(find(view, path, group)?, path, group)
}

/// Refuses a part of another type than the artifact or the group.
fn check_type(
    view: &dyn View,
    path: &ArtifactPath,
    group: Option<&GroupInfo>,
    wanted: Option<&ArtifactType>,
) -> Result<()> {
    let artifact = naming::artifact(view, path)?.map(|artifact| artifact.artifact_type);
    decide::check_type(path, artifact.as_ref(), group, wanted)
}

/// Removes the parts up to `last`, and their references to roots.
fn remove_parts(
    transaction: &mut dyn Transaction,
    path: &ArtifactPath,
    group: &GroupName,
    last: u64,
) -> Result<()> {
    let mut counts = PackCounts::default();
    let mut gone = Vec::new();
    each_below(&*transaction, keys::parts(path, group), &mut |key, value| {
        let part: PartInfo = record::decode(value)?;
        if part.sequence <= last {
            gone.push((key.to_vec(), part.root));
        }
        Ok(())
    })?;
    for (key, root) in gone {
        transaction.delete(&key)?;
        drop_reference(transaction, &mut counts, &root)?;
    }
    counts.store(transaction)
}

impl EngineRegistry {
    /// Returns a group. Fails with [`Kind::Conflict`] if a part of type `wanted` could not be
    /// added.
    pub(in crate::registry) fn group(
        &self,
        path: &ArtifactPath,
        group: &GroupName,
        wanted: Option<&ArtifactType>,
    ) -> Result<Option<GroupInfo>> {
        self.read(|view| {
            let found = find(view, path, group)?;
            check_type(view, path, found.as_ref(), wanted)?;
            Ok(found)
        })
    }

    pub(in crate::registry) fn open_group(
        &self,
        path: &ArtifactPath,
        group: &GroupName,
    ) -> Result<GroupInfo> {
        self.read(|view| open(view, path, group))
    }

    pub(in crate::registry) fn open_groups(
        &self,
        path: Option<&ArtifactPath>,
        after: Option<&(ArtifactPath, GroupName)>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>> {
        let all = || Key::of(Space::Group);
        let (first, to) = path.map_or_else(all, |path| keys::below(Space::Group, path)).range();
        let start = after.map_or(first, |(path, group)| keys::next(&keys::group(path, group)));
        self.read(|view| {
            let (mut found, mut from): (Vec<GroupInfo>, _) = (Vec::new(), start.clone());
            loop {
                let page = view.scan(&from, &to, PAGE)?;
                for (_, value) in &page {
                    let info: GroupInfo = record::decode(value)?;
                    found.extend(Some(info).filter(|info| info.parts > 0));
                    if found.len() >= limit as usize {
                        return Ok(found);
                    }
                }
                match page.last() {
                    Some((key, _)) if page.len() == PAGE => from = keys::next(key),
                    _ => return Ok(found),
                }
            }
        })
    }

    pub(in crate::registry) fn parts(
        &self,
        path: &ArtifactPath,
        group: &GroupName,
        after: u64,
        limit: u32,
    ) -> Result<Vec<PartInfo>> {
        let (_, to) = keys::parts(path, group).range();
        let from = keys::part(path, group, after.saturating_add(1));
        self.read(|view| {
            let page = view.scan(&from, &to, limit as usize)?;
            page.iter().map(|(_, value)| record::decode(value)).collect()
        })
    }

    pub(in crate::registry) fn add_part(&self, lease: LeaseId, new: &NewPart) -> Result<AddedPart> {
        decide::check_part(new)?;
        let NewPart { path, group, root, .. } = new;
        let (now, asked) = ((self.clock)(), fingerprint(new));
        self.write(Durability::Immediate, |transaction| {
            let mut held = live_lease(&*transaction, lease)?;
            // The call is repeated, because its reply was lost.
            if let Some(added) = &held.part
                && has_answered(&*transaction, lease, &asked)?
            {
                return Ok(added.clone());
            }
            zones::check_project(&*transaction, lease, &path.project, root)?;
            let found = find(&*transaction, path, group)?;
            check_type(&*transaction, path, found.as_ref(), new.artifact_type.as_ref())?;
            if let Some(run) = &new.run {
                open_run(&*transaction, run)?;
            }
            decide::refuse_part(found.as_ref(), new)?;
            let mut counts = PackCounts::default();
            if !add_reference(transaction, &mut counts, root)? {
                let what = format!("the root tree {root} is not in the repository");
                return Err(Error::new(Kind::Conflict, what).hint("nothing was added; begin again"));
            }
            counts.store(transaction)?;
            let sequence = next_counter(transaction, "part")?;
            let (info, part, added) = decide::add_part(found, new, sequence, now);
            transaction.put(&keys::part(path, group, sequence), &record::encode(&part))?;
            put(transaction, &info)?;
            held.part = Some(added.clone());
            answer(transaction, lease, &held, &asked)?;
            Ok(added)
        })
    }

    pub(in crate::registry) fn seal_group(
        &self,
        lease: LeaseId,
        request: &SealRequest,
    ) -> Result<Committed> {
        let SealRequest { group, commit, .. } = request;
        let (now, asked) = ((self.clock)(), fingerprint(request));
        self.write_names(&commit.version.path, |transaction| {
            let mut held = live_lease(&*transaction, lease)?;
            if let Some(committed) = &held.committed
                && has_answered(&*transaction, lease, &asked)?
            {
                return Ok(committed.clone());
            }
            let project = &commit.version.path.project;
            zones::check_project(&*transaction, lease, project, &commit.root)?;
            let info = open(&*transaction, &commit.version.path, group)?;
            decide::refuse_seal(&info, request)?;
            let (path, wanted) = (&commit.version.path, commit.version.artifact_type.as_ref());
            check_type(&*transaction, path, Some(&info), wanted)?;
            let mut commit = commit.clone();
            let known = info.artifact_type.clone();
            commit.version.artifact_type = commit.version.artifact_type.or(known);
            let committed = commit_in(transaction, &commit, now)?;
            remove_parts(transaction, path, group, u64::MAX)?;
            put(transaction, &decide::sealed(info, committed.number))?;
            held.committed = Some(committed.clone());
            answer(transaction, lease, &held, &asked)?;
            Ok(committed)
        })
    }

    /// Removes the parts up to `last`; later parts stay. A repeated call changes nothing.
    pub(in crate::registry) fn discard_group(
        &self,
        path: &ArtifactPath,
        group: &GroupName,
        last: u64,
    ) -> Result<()> {
        self.write(Durability::Immediate, |transaction| {
            let Some(info) = find(&*transaction, path, group)?.filter(|info| info.parts > 0) else {
                return Ok(());
            };
            remove_parts(transaction, path, group, last)?;
            let (mut parts, mut totals) = (0, Totals::default());
            each_below(&*transaction, keys::parts(path, group), &mut |_, value| {
                let part: PartInfo = record::decode(value)?;
                parts += 1;
                decide::add_totals(&mut totals, &part.totals);
                Ok(())
            })?;
            match decide::discarded(info, parts, totals) {
                Some(info) => put(transaction, &info),
                None => transaction.delete(&keys::group(path, group)),
            }
        })
    }
}
