//! The commit of a version: one transaction, after which readers see the whole version.

use crate::error::{Error, Kind, PutHint, Result};
use crate::model::name::{Alias, ArtifactType, VersionNumber};
use crate::model::properties::{Ttl, change_tags};
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::model::version::Committed;
use crate::registry::engine::{Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys;
use crate::registry::leases::live::{answer, fingerprint, has_answered, live_lease};
use crate::registry::names::alias::{point, rewrite};
use crate::registry::names::naming;
use crate::registry::names::protection::{check_said, hold_protected, would_be_over};
use crate::registry::objects::table::{PackCounts, add_reference};
use crate::registry::record::{self, ArtifactRecord, VersionCount, VersionRecord};
use crate::registry::{CommitRequest, LeaseId, Update};

/// Returns the highest version that exists.
fn newest(view: &dyn View, path: &ArtifactPath) -> Result<Option<(VersionNumber, VersionRecord)>> {
    let Some(artifact) = naming::artifact(view, path)? else { return Ok(None) };
    let above = match artifact.count {
        Some(count) => match count.newest {
            Some((newest, _)) => VersionNumber(newest.0.saturating_add(1)),
            None => return Ok(None),
        },
        None => artifact.next,
    };
    naming::newest_below(view, path, above)
}

impl EngineRegistry {
    pub(in crate::registry) fn commit(
        &self,
        lease: LeaseId,
        request: &CommitRequest,
    ) -> Result<Committed> {
        let (now, asked) = ((self.clock)(), fingerprint(request));
        self.write_names(&request.version.path, |transaction| {
            let mut held = live_lease(&*transaction, lease)?;
            if let Some(committed) = &held.committed
                && has_answered(&*transaction, lease, &asked)?
            {
                return Ok(committed.clone());
            }
            let committed = commit_in(transaction, request, now)?;
            held.committed = Some(committed.clone());
            answer(transaction, lease, &held, &asked)?;
            Ok(committed)
        })
    }
}

/// Makes a version, unless the newest one has the same content, and moves the aliases.
pub(in crate::registry) fn commit_in(
    transaction: &mut dyn Transaction,
    request: &CommitRequest,
    now: Timestamp,
) -> Result<Committed> {
    check_said(request.version.description.as_deref(), request.version.metadata.as_ref())?;
    let artifact = open_artifact(transaction, request, now)?;
    let newest = newest(&*transaction, &request.version.path)?;
    if let Some(expected) = request.version.expect {
        expect(&request.version.path, expected, newest.as_ref().map(|(number, _)| *number))?;
    }
    let before = newest.as_ref().map(|(number, version)| (*number, version.time_seconds));
    let equal = newest.filter(|(_, version)| version.root == request.root);
    let found = (&request.version.path, &artifact);
    let committed = match living(&*transaction, found, equal, request.version.ttl, now)? {
        Some(number) => {
            let update = Update {
                description: request.version.description.clone(),
                metadata: request.version.metadata.clone(),
                ttl: request.version.ttl,
                tag: request.version.tags.clone(),
                ..Update::default()
            };
            rewrite(transaction, &request.version.path, number, &update)?;
            Committed { path: request.version.path.clone(), number, new: false }
        }
        None => {
            let number = artifact.next;
            let time_seconds =
                time_after(&*transaction, &request.version.path, &artifact, before, now)?;
            add_version(transaction, request, artifact, now, time_seconds)?;
            if let Some(run) = &request.version.run {
                crate::registry::runs::uses::add_logged(
                    transaction,
                    run,
                    &request.version.path,
                    number,
                    now,
                )?;
            }
            Committed { path: request.version.path.clone(), number, new: true }
        }
    };
    let number = committed.number;
    hold_protected(&*transaction, &request.version.path, &request.version.aliases, Some(number))?;
    point(transaction, &request.version.path, &[Alias::latest()], committed.number)?;
    point(transaction, &request.version.path, &request.version.aliases, committed.number)?;
    Ok(committed)
}

/// Returns the version with equal content, unless it has expired: then new content would be deleted
/// with it.
fn living(
    view: &dyn View,
    artifact: (&ArtifactPath, &ArtifactRecord),
    equal: Option<(VersionNumber, VersionRecord)>,
    ttl: Option<Ttl>,
    now: Timestamp,
) -> Result<Option<VersionNumber>> {
    let Some((number, version)) = equal else { return Ok(None) };
    let ttl = ttl.unwrap_or(version.ttl);
    let over = would_be_over(view, artifact, (number, &version), ttl, now)?;
    Ok((!over).then_some(number))
}

/// Refuses a commit if the newest version is not the expected one.
fn expect(
    path: &ArtifactPath,
    expected: VersionNumber,
    found: Option<VersionNumber>,
) -> Result<()> {
    if found == Some(expected) {
        return Ok(());
    }
    let found = found.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let what = format!("the newest version of {path} is {found}, not {expected}");
    Err(Error::new(Kind::Conflict, what).hint(PutHint::Expect))
}

/// Refuses a type that differs from the existing type of `what`.
pub(in crate::registry) fn refuse_other_type(
    what: &str,
    is: &ArtifactType,
    wanted: Option<&ArtifactType>,
) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != is => {
            Err(Error::new(Kind::Conflict, format!("{what} has type {is}, not {wanted}"))
                .hint("an artifact keeps its type: leave it out, or choose another name"))
        }
        _ => Ok(()),
    }
}

/// Returns the artifact's record; makes the artifact and its project if they are new.
fn open_artifact(
    transaction: &mut dyn Transaction,
    request: &CommitRequest,
    now: Timestamp,
) -> Result<ArtifactRecord> {
    let path = &request.version.path;
    if let Some(artifact) = naming::artifact(&*transaction, path)? {
        let wanted = request.version.artifact_type.as_ref();
        refuse_other_type(&path.to_string(), &artifact.artifact_type, wanted)?;
        return Ok(artifact);
    }
    naming::open_project(transaction, &path.project, now)?;
    let artifact = ArtifactRecord {
        artifact_type: request.version.artifact_type.clone().unwrap_or_default(),
        next: VersionNumber(0),
        description: String::new(),
        tags: Vec::new(),
        ttl_milliseconds: None,
        protected: Vec::new(),
        count: Some(VersionCount::default()),
    };
    transaction.put(&keys::artifact(path), &record::encode_artifact(&artifact))?;
    Ok(artifact)
}

/// Returns the time of the next version, in seconds: now, or one second after the latest time of
/// any version that the artifact ever had. So programs that compare paths, sizes and times see each
/// change.
fn time_after(
    view: &dyn View,
    path: &ArtifactPath,
    artifact: &ArtifactRecord,
    newest: Option<(VersionNumber, u64)>,
    now: Timestamp,
) -> Result<u64> {
    let given: Option<u64> =
        view.get(&keys::last_time(path))?.map(|bytes| record::decode(&bytes)).transpose()?;
    let now = now.seconds();
    // Older releases did not keep the times of deleted versions, which were those of their commits.
    let deleted = newest.is_none_or(|(number, _)| number.0 + 1 < artifact.next.0);
    let unknown = (given.is_none() && artifact.next.0 > 0 && deleted).then_some(now);
    let last = [given, newest.map(|(_, time)| time), unknown].into_iter().flatten().max();
    Ok(last.map_or(now, |last| now.max(last.saturating_add(1))))
}

fn add_version(
    transaction: &mut dyn Transaction,
    request: &CommitRequest,
    mut artifact: ArtifactRecord,
    now: Timestamp,
    time_seconds: u64,
) -> Result<()> {
    let number = artifact.next;
    let mut counts = PackCounts::default();
    if !add_reference(transaction, &mut counts, &request.root)? {
        let what = format!("the root tree {} is not in the repository", request.root);
        return Err(Error::new(Kind::Conflict, what).hint("nothing was committed; begin again"));
    }
    counts.store(transaction)?;
    let mut tags = Vec::new();
    change_tags(&mut tags, &request.version.tags, &[])?;
    let version = VersionRecord {
        root: request.root,
        totals: request.totals,
        created: now,
        time_seconds,
        description: request.version.description.clone().unwrap_or_default(),
        metadata: request.version.metadata.clone().unwrap_or_default(),
        tags,
        ttl: request.version.ttl.unwrap_or_default(),
    };
    let mut count = naming::count(&*transaction, &request.version.path, &artifact)?;
    transaction
        .put(&keys::version(&request.version.path, number), &record::encode_version(&version))?;
    transaction.put(&keys::last_time(&request.version.path), &record::encode(&time_seconds))?;
    (count.versions, count.newest) = (count.versions + 1, Some((number, now)));
    artifact.count = Some(count);
    artifact.next = VersionNumber(number.0 + 1);
    transaction.put(&keys::artifact(&request.version.path), &record::encode_artifact(&artifact))
}
