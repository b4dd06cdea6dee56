//! Groups: the parts that several writers put before they become one version.
//!
//! A group of an artifact is a list of parts, each a whole tree that one writer put. Later parts
//! hide equal paths of earlier ones. A part holds one reference to its root, like a version.
//! Writers do not wait for each other, and readers see neither parts nor an artifact that has only
//! parts. The caller merges the parts; one transaction commits the result and removes them. A
//! sealed group keeps its name and the number of its version; the next part begins its next
//! generation.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, PutHint, Result};
use crate::model::digest::Digest;
use crate::model::name::{ArtifactType, GroupName, RunId, VersionNumber};
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::model::version::{AddedPart, Committed, Totals};
use crate::registry::counter::next_counter;
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::leases::live::{answer, fingerprint, has_answered, live_lease};
use crate::registry::names::naming;
use crate::registry::objects::table::{PackCounts, add_reference, drop_reference};
use crate::registry::paging::each_below;
use crate::registry::record;
use crate::registry::versions::commit::{commit_in, refuse_other_type};
use crate::registry::{CommitRequest, LeaseId};

/// The maximum number of parts in an open group: one transaction seals them all.
const PARTS_MAX: u64 = 65_536;
/// The maximum length of a writer's name in bytes.
const WRITER_MAX_BYTES: usize = 256;
/// The number of records in one read.
const PAGE: usize = 1_000;

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// The artifact.
    pub path: ArtifactPath,
    /// Its name within the artifact.
    pub group: GroupName,
    /// The artifact's type, if a writer gave one.
    pub artifact_type: Option<ArtifactType>,
    /// The number of its present or last generation: the first is 1.
    pub generation: u64,
    /// The number of open parts; 0: the group is sealed.
    pub parts: u64,
    /// The sum of the parts' totals; a path in several parts counts several times.
    pub totals: Totals,
    /// The sequence of the last part.
    pub last: u64,
    /// The time of the first part.
    pub begun: Timestamp,
    /// The time of the last part.
    pub updated: Timestamp,
    /// The writer of the last part.
    pub writer: String,
    /// The version that its last sealed generation became.
    pub sealed: Option<VersionNumber>,
}

/// A part of an open group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// The number of the part: of two parts the higher one came later. It is never used twice.
    pub sequence: u64,
    /// The root tree.
    pub root: Digest,
    /// The totals of the tree.
    pub totals: Totals,
    /// The time at which it was added.
    pub at: Timestamp,
    /// The name of its writer.
    pub writer: String,
}

/// A request to add a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewPart {
    /// The artifact.
    pub path: ArtifactPath,
    /// The group, which need not exist.
    pub group: GroupName,
    /// The artifact's type, if the writer gave one.
    pub artifact_type: Option<ArtifactType>,
    /// The root tree, which must be registered.
    pub root: Digest,
    /// The totals of the tree.
    pub totals: Totals,
    /// The name of the writer, for people.
    pub writer: String,
    /// The run that writes it, which must be open.
    pub run: Option<RunId>,
    /// The last part that the writer compared with this one. If there is a later one, nothing is
    /// added.
    pub seen: Option<u64>,
}

/// A request to make a version of a group's merged parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealRequest {
    /// The group.
    pub group: GroupName,
    /// The number of merged parts.
    pub parts: u64,
    /// The sequence of the last of them.
    pub last: u64,
    /// The version.
    pub commit: CommitRequest,
}

fn find(view: &dyn View, path: &ArtifactPath, group: &GroupName) -> Result<Option<GroupInfo>> {
    view.get(&keys::group(path, group))?.map(|bytes| record::decode(&bytes)).transpose()
}

fn put(transaction: &mut dyn Transaction, info: &GroupInfo) -> Result<()> {
    transaction.put(&keys::group(&info.path, &info.group), &record::encode(info))
}

/// Returns a group with an open part; a conflict if it is sealed.
fn open(view: &dyn View, path: &ArtifactPath, group: &GroupName) -> Result<GroupInfo> {
    match find(view, path, group)? {
        Some(info) if info.parts > 0 => Ok(info),
        Some(GroupInfo { sealed: Some(version), .. }) => {
            let what = format!("group {group} was sealed as {path}:{version}");
            Err(Error::new(Kind::Conflict, what).hint(PutHint::Upsert))
        }
        _ => Err(Error::new(Kind::NotFound, format!("{path} has no group {group}"))
            .hint(PutHint::ListGroups(Some(path.to_string())))),
    }
}

/// Refuses a part of another type than the artifact or the group.
fn check_type(
    view: &dyn View,
    path: &ArtifactPath,
    group: Option<&GroupInfo>,
    wanted: Option<&ArtifactType>,
) -> Result<()> {
    if let Some(artifact) = naming::artifact(view, path)? {
        return refuse_other_type(&path.to_string(), &artifact.artifact_type, wanted);
    }
    match group.and_then(|info| Some((info, info.artifact_type.as_ref()?))) {
        Some((info, is)) => {
            refuse_other_type(&format!("group {} of {path}", info.group), is, wanted)
        }
        None => Ok(()),
    }
}

fn add(totals: &mut Totals, more: &Totals) {
    totals.files = totals.files.saturating_add(more.files);
    totals.directories = totals.directories.saturating_add(more.directories);
    totals.symlinks = totals.symlinks.saturating_add(more.symlinks);
    totals.external = totals.external.saturating_add(more.external);
    totals.size_bytes = totals.size_bytes.saturating_add(more.size_bytes);
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
        if new.writer.len() > WRITER_MAX_BYTES {
            let what = format!("a writer's name has at most {WRITER_MAX_BYTES} bytes");
            return Err(Error::new(Kind::Usage, what));
        }
        let NewPart { path, group, root, totals, .. } = new;
        let (now, asked) = ((self.clock)(), fingerprint(new));
        self.write(Durability::Immediate, |transaction| {
            let mut held = live_lease(&*transaction, lease)?;
            // The call is repeated, because its reply was lost.
            if let Some(added) = &held.part
                && has_answered(&*transaction, lease, &asked)?
            {
                return Ok(added.clone());
            }
            let found = find(&*transaction, path, group)?;
            check_type(&*transaction, path, found.as_ref(), new.artifact_type.as_ref())?;
            if let Some(run) = &new.run {
                crate::registry::runs::run::open_run(&*transaction, run)?;
            }
            let mut info = found.unwrap_or_else(|| unwritten(new, now));
            let first = info.parts == 0;
            refuse_part(&info, new)?;
            let mut counts = PackCounts::default();
            if !add_reference(transaction, &mut counts, root)? {
                let what = format!("the root tree {root} is not in the repository");
                return Err(Error::new(Kind::Conflict, what).hint("nothing was added; begin again"));
            }
            counts.store(transaction)?;
            let sequence = next_counter(transaction, "part")?;
            let (totals, writer) = (*totals, new.writer.clone());
            let part = PartInfo { sequence, root: *root, totals, at: now, writer: writer.clone() };
            transaction.put(&keys::part(path, group, sequence), &record::encode(&part))?;
            if first {
                (info.begun, info.totals) = (now, Totals::default());
                info.generation += 1;
            }
            add(&mut info.totals, &totals);
            info.parts += 1;
            (info.last, info.updated, info.writer) = (sequence, now, writer);
            info.artifact_type = info.artifact_type.or_else(|| new.artifact_type.clone());
            put(transaction, &info)?;
            let begins_after = info.sealed.filter(|_| first);
            let added = AddedPart { sequence, generation: info.generation, begins_after };
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
            let mut info = open(&*transaction, &commit.version.path, group)?;
            if (info.parts, info.last) != (request.parts, request.last) {
                let what = format!("the parts of group {group} have changed");
                return Err(Error::new(Kind::Stale, what).hint("merge them again"));
            }
            let (path, wanted) = (&commit.version.path, commit.version.artifact_type.as_ref());
            check_type(&*transaction, path, Some(&info), wanted)?;
            let mut commit = commit.clone();
            let known = info.artifact_type.clone();
            commit.version.artifact_type = commit.version.artifact_type.or(known);
            let committed = commit_in(transaction, &commit, now)?;
            remove_parts(transaction, path, group, u64::MAX)?;
            (info.parts, info.totals) = (0, Totals::default());
            info.sealed = Some(committed.number);
            put(transaction, &info)?;
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
            let Some(mut info) = find(&*transaction, path, group)?.filter(|info| info.parts > 0)
            else {
                return Ok(());
            };
            remove_parts(transaction, path, group, last)?;
            (info.parts, info.totals) = (0, Totals::default());
            each_below(&*transaction, keys::parts(path, group), &mut |_, value| {
                let part: PartInfo = record::decode(value)?;
                info.parts += 1;
                add(&mut info.totals, &part.totals);
                Ok(())
            })?;
            if info.parts == 0 {
                info.generation -= 1;
            }
            match (info.parts, info.sealed) {
                (0, None) => transaction.delete(&keys::group(path, group)),
                _ => put(transaction, &info),
            }
        })
    }
}

/// Returns a new group before its first part.
fn unwritten(new: &NewPart, now: Timestamp) -> GroupInfo {
    GroupInfo {
        path: new.path.clone(),
        group: new.group.clone(),
        artifact_type: None,
        generation: 0,
        parts: 0,
        totals: Totals::default(),
        last: 0,
        begun: now,
        updated: now,
        writer: String::new(),
        sealed: None,
    }
}

/// Refuses a part that was not compared with all parts, and a part beyond [`PARTS_MAX`].
fn refuse_part(info: &GroupInfo, new: &NewPart) -> Result<()> {
    let GroupInfo { group, path, parts, last, .. } = info;
    if *parts > 0 && new.seen.is_some_and(|seen| *last > seen) {
        let what = format!("group {group} of {path} has parts that were not compared");
        return Err(Error::new(Kind::Stale, what).hint("look at them and try again"));
    }
    if *parts >= PARTS_MAX {
        let what = format!("group {group} of {path} has {PARTS_MAX} parts already");
        return Err(Error::new(Kind::Full, what)
            .hint("finish it and go on with the next; or put more files at once"));
    }
    Ok(())
}
