//! Groups: several writers add parts, which are merged into one version when the group is finished.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::garbage::{Reclaim, free};
use super::lease::Lease;
use super::merge_walk::{MergeWalk, Step};
use super::orphans;
use super::put::{PutReport, PutRequest, Upsert, merge};
use super::repository::Repository;
use super::with_lease::with_lease;
use crate::content::directory::lookup;
use crate::content::reader::Reader;
use crate::error::{Error, Kind, PutHint, Result};
use crate::model::digest::Digest;
use crate::model::name::{EntryName, GroupName};
use crate::model::new_version::NewVersion;
use crate::model::reference::ArtifactPath;
use crate::model::tree::Target;
use crate::model::version::{AddedPart, Committed, Totals};
use crate::registry::{CommitRequest, GroupInfo, NewPart, PartInfo, Registry, SealRequest};

/// The maximum number of trees merged at once. It bounds memory to so many nodes a level, a few
/// MiB.
const MERGED_AT_ONCE: usize = 256;
/// The time during which an operation is retried while other writers add parts.
const RETRY_DEADLINE: Duration = Duration::from_secs(120);
/// The number of groups or parts read at once.
const PAGE: u32 = 1_000;

/// A request to finish a group.
pub struct FinishRequest {
    /// The group.
    pub group: GroupName,
    /// The version that is to be made.
    pub version: NewVersion,
}

/// The result of finishing a group.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The version.
    pub committed: Committed,
    /// The root tree.
    pub root: Digest,
    /// The totals of that tree.
    pub totals: Totals,
    /// The number of parts that it is made of.
    pub parts: u64,
}

/// Calls `each` with every part of every open group.
///
/// # Errors
/// The errors of `each`.
pub fn each_part(
    registry: &dyn Registry,
    each: &mut dyn FnMut(PartInfo) -> Result<()>,
) -> Result<()> {
    for info in open_groups(registry, None)? {
        parts_after(registry, &info.path, &info.group, 0)?.into_iter().try_for_each(&mut *each)?;
    }
    Ok(())
}

/// Returns the open groups of an artifact, or all.
///
/// # Errors
/// [`Kind::NotFound`] if there is neither a group nor such an artifact.
pub fn open_groups_of(
    repository: &Repository,
    path: Option<&ArtifactPath>,
) -> Result<Vec<GroupInfo>> {
    let open = open_groups(&*repository.registry, path)?;
    let Some(path) = path.filter(|_| open.is_empty()) else { return Ok(open) };
    match repository.registry.artifact(path.clone()) {
        Err(e) if e.kind() == Kind::NotFound => {
            Err(Error::new(Kind::NotFound, format!("no artifact and no group {path}"))
                .hint(PutHint::ListGroups(None)))
        }
        found => found.map(|_| open),
    }
}

/// Returns the open groups of an artifact, or all.
pub fn open_groups(registry: &dyn Registry, path: Option<&ArtifactPath>) -> Result<Vec<GroupInfo>> {
    let mut all: Vec<GroupInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| (info.path.clone(), info.group.clone()));
        let page = registry.open_groups(path.cloned(), after, PAGE)?;
        let done = page.len() < PAGE as usize;
        all.extend(page);
        if done {
            return Ok(all);
        }
    }
}

fn parts_after(
    registry: &dyn Registry,
    path: &ArtifactPath,
    group: &GroupName,
    after: u64,
) -> Result<Vec<PartInfo>> {
    let mut all: Vec<PartInfo> = Vec::new();
    loop {
        let after = all.last().map_or(after, |part| part.sequence);
        let page = registry.parts(path.clone(), group.clone(), after, PAGE)?;
        let done = page.len() < PAGE as usize;
        all.extend(page);
        if done {
            return Ok(all);
        }
    }
}

/// Returns a description of this process for people.
fn writer() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(64).collect();
    format!("process {} on {host}", std::process::id())
}

/// Reports whether another writer changed the group meanwhile, and there is time for a retry.
fn is_outrun(error: &Error, deadline: Instant) -> bool {
    error.kind() == Kind::Stale && Instant::now() < deadline
}

/// Adds what was put to a group as a part. No writer waits for another.
///
/// # Errors
/// [`Kind::Conflict`] for a path that the group has already, if it must not be replaced.
pub(super) fn add_part(
    repository: &Repository,
    lease: &Lease,
    request: &PutRequest,
    upsert: &Upsert,
    report: &PutReport,
) -> Result<AddedPart> {
    let writer = match &request.version.run {
        Some(run) => format!("run {run}"),
        None => writer(),
    };
    let mut new = NewPart {
        path: request.version.path.clone(),
        group: upsert.group.clone(),
        artifact_type: request.version.artifact_type.clone(),
        root: report.root,
        totals: report.totals,
        writer,
        run: request.version.run.clone(),
        seen: None,
    };
    let deadline = Instant::now() + RETRY_DEADLINE;
    loop {
        let added = if upsert.overwrite {
            repository.registry.add_part(lease.id(), new.clone())
        } else {
            let looked = refuse_overwriting(repository, lease, &new);
            looked.and_then(|seen| {
                new.seen = Some(seen);
                repository.registry.add_part(lease.id(), new.clone())
            })
        };
        match added {
            Err(e) if is_outrun(&e, deadline) => tracing::debug!("looking at parts again: {e}"),
            added => return added,
        }
    }
}

/// Refuses paths that parts behind `new.seen` have and the new part would replace. Returns the
/// number of the last part that was looked at.
fn refuse_overwriting(repository: &Repository, lease: &Lease, new: &NewPart) -> Result<u64> {
    let (registry, reader) = (&*repository.registry, &*repository.reader);
    let seen = new.seen.unwrap_or_default();
    let parts = parts_after(registry, &new.path, &new.group, seen)?;
    pin(registry, lease, &parts)?;
    for (index, part) in parts.iter().enumerate() {
        let mut refuse = |path: &[EntryName]| {
            for later in &parts[index + 1..] {
                if hides(reader, later.root, path)? {
                    return Ok(());
                }
            }
            let shown: Vec<_> = path.iter().map(ToString::to_string).collect();
            let (group, shown) = (&new.group, shown.join("/"));
            let what = format!("group {group} of {} has {shown} already", new.path);
            Err(Error::new(Kind::Conflict, what).hint(PutHint::AllowOverwrite))
        };
        let looked = overwritten(reader, &mut Vec::new(), part.root, new.root, &mut refuse);
        match looked {
            // The group was finished or discarded meanwhile, so it has no path that would be
            // replaced.
            Err(e) if e.kind() == Kind::Conflict && !is_there(registry, new, part)? => {
                return Err(went(&new.group));
            }
            looked => looked?,
        }
    }
    Ok(parts.last().map_or(seen, |part| part.sequence))
}

fn is_there(registry: &dyn Registry, new: &NewPart, part: &PartInfo) -> Result<bool> {
    let before = part.sequence.saturating_sub(1);
    let found = registry.parts(new.path.clone(), new.group.clone(), before, 1)?;
    Ok(found.first().is_some_and(|found| found.sequence == part.sequence))
}

fn went(group: &GroupName) -> Error {
    Error::new(Kind::Stale, format!("parts of group {group} are gone")).hint("try again")
}

/// Pins the trees of parts while the lease lives.
fn pin(registry: &dyn Registry, lease: &Lease, parts: &[PartInfo]) -> Result<()> {
    for some in parts.chunks(PAGE as usize) {
        let roots = some.iter().map(|part| part.root).collect();
        if !registry.missing(lease.id(), roots)?.is_empty() {
            return Err(Error::new(Kind::Stale, "parts of the group are gone").hint("try again"));
        }
    }
    Ok(())
}

/// Reports whether an upper tree hides what a lower tree has at `path`, or has a directory there.
fn hides(reader: &Reader, root: Digest, path: &[EntryName]) -> Result<bool> {
    let mut at = root;
    for name in path {
        match lookup(reader, at, name)?.map(|entry| entry.target) {
            None => return Ok(false),
            Some(Target::Directory(tree)) => at = tree,
            Some(_) => return Ok(true),
        }
    }
    Ok(true)
}

/// Calls `each` with the paths that both trees have and at which they differ.
fn overwritten(
    reader: &Reader,
    at: &mut Vec<EntryName>,
    old: Digest,
    new: Digest,
    each: &mut dyn FnMut(&[EntryName]) -> Result<()>,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let mut both = MergeWalk::new(reader, &[old, new])?;
    while let Some(step) = both.next()? {
        let Step::Name(name, targets) = step else { continue };
        let [(_, old), (_, new)] = targets.as_slice() else { continue };
        at.push(name);
        match (old, new) {
            (Target::Directory(old), Target::Directory(new)) => {
                overwritten(reader, at, *old, *new, each)?;
            }
            _ if old == new => {}
            _ => each(at)?,
        }
        at.pop();
    }
    Ok(())
}

/// The parts of a group that were merged so far.
#[derive(Default)]
struct Merged {
    parts: u64,
    last: u64,
    tree: Option<(Digest, Totals)>,
}

impl Merged {
    /// Lays the parts behind the last merged one over the merged tree.
    fn go_on(
        &mut self,
        repository: &Repository,
        lease: &Lease,
        request: &FinishRequest,
    ) -> Result<()> {
        let registry = &*repository.registry;
        let (path, group) = (&request.version.path, &request.group);
        let parts = parts_after(registry, path, group, self.last)?;
        pin(registry, lease, &parts)?;
        let mut parts = parts.into_iter().peekable();
        while parts.peek().is_some() {
            let room = MERGED_AT_ONCE - usize::from(self.tree.is_some());
            let some: Vec<PartInfo> = parts.by_ref().take(room).collect();
            let over = some.iter().map(|part| (part.root, part.totals));
            let layers: Vec<_> = self.tree.into_iter().chain(over).collect();
            let trees: HashSet<Digest> = layers.iter().map(|(tree, _)| *tree).collect();
            self.tree = match layers.last() {
                Some(only) if trees.len() == 1 => Some(*only),
                _ => {
                    let report = merge(repository, lease, &layers)?;
                    Some((report.root, report.totals))
                }
            };
            self.parts += some.len() as u64;
            self.last = some.last().map_or(self.last, |part| part.sequence);
        }
        Ok(())
    }

    /// Makes the version, if the group still has exactly these parts.
    fn seal(
        &mut self,
        repository: &Repository,
        lease: &Lease,
        request: &FinishRequest,
    ) -> Result<Finished> {
        self.go_on(repository, lease, request)?;
        let Some((root, totals)) = self.tree else { return Err(went(&request.group)) };
        let seal = SealRequest {
            group: request.group.clone(),
            parts: self.parts,
            last: self.last,
            commit: CommitRequest { version: request.version.clone(), root, totals },
        };
        let committed = repository.registry.seal_group(lease.id(), seal)?;
        Ok(Finished { committed, root, totals, parts: self.parts })
    }
}

/// Makes one version of the parts of a group.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such group. [`Kind::Conflict`] if it is sealed already, or if
/// writers keep adding to it. A group that is not sealed stays open after any error.
pub fn finish(repository: &Repository, request: &FinishRequest) -> Result<Finished> {
    let registry = &repository.registry;
    let (path, group) = (&request.version.path, &request.group);
    registry.open_group(path.clone(), group.clone())?;
    let purpose = format!("finish group {group} of {path}");
    let finished = with_lease(repository, &path.project, purpose, |lease| {
        finish_under(repository, lease, request)
    })?;
    // Writers that were killed after adding their part left their leases.
    if let Err(e) = orphans::release_orphans(repository) {
        tracing::warn!("leases of killed writers of a finished group are not ended yet: {e}");
    }
    Ok(finished)
}

fn finish_under(
    repository: &Repository,
    lease: &Lease,
    request: &FinishRequest,
) -> Result<Finished> {
    let deadline = Instant::now() + RETRY_DEADLINE;
    let mut merged = Merged::default();
    loop {
        match merged.seal(repository, lease, request) {
            Err(e) if is_outrun(&e, deadline) => tracing::debug!("merging again: {e}"),
            Err(e) if e.kind() == Kind::Stale => {
                let what = format!("writers keep adding to group {}", request.group);
                return Err(Error::new(Kind::Conflict, what)
                    .hint("finish it when they are done")
                    .because(e));
            }
            done => return done,
        }
        let (path, group) = (request.version.path.clone(), request.group.clone());
        let info = repository.registry.open_group(path, group)?;
        // The merged tree can be kept only if parts were merely added. If some were removed, it
        // still has their content.
        if info.parts <= merged.parts || info.last <= merged.last {
            merged = Merged::default();
        }
    }
}

/// Discards the open parts of a group, and frees what only they had. Returns the group as it was,
/// and the freed bytes.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such group, [`Kind::Conflict`] if it is sealed.
pub fn discard(
    repository: &Repository,
    path: &ArtifactPath,
    group: &GroupName,
) -> Result<(GroupInfo, u64)> {
    orphans::release_orphans(repository)?;
    let registry = &repository.registry;
    let info = registry.open_group(path.clone(), group.clone())?;
    registry.discard_group(path.clone(), group.clone(), info.last)?;
    let freed = free(repository, Reclaim::Now)?;
    Ok((info, freed))
}
