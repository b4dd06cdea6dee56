//! The commit of a version: one transaction, after which readers see the whole version.

use super::decide::{self, Decision, Seen};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::{Alias, VersionNumber};
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::model::version::Committed;
use crate::registry::access::zones::zones_key;
use crate::registry::engine::{Transaction, View, Want};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys;
use crate::registry::leases::live::{answer, fingerprint, has_answered, live_lease};
use crate::registry::leases::zones;
use crate::registry::names::alias::point;
use crate::registry::names::naming;
use crate::registry::objects::table::{PackCounts, add_reference};
use crate::registry::record::{self, ArtifactRecord, VersionRecord};
use crate::registry::runs::uses::add_logged;
use crate::registry::{CommitRequest, LeaseId};

/// Returns the highest version that exists.
fn newest(
    view: &dyn View,
    path: &ArtifactPath,
    artifact: &ArtifactRecord,
) -> Result<Option<(VersionNumber, VersionRecord)>> {
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
            want_commit(&*transaction, lease, request)?;
            let mut held = live_lease(&*transaction, lease)?;
            if let Some(committed) = &held.committed
                && has_answered(&*transaction, lease, &asked)?
            {
                return Ok(committed.clone());
            }
            let project = &request.version.path.project;
            zones::check_project(&*transaction, lease, project, &request.root)?;
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
    let path = &request.version.path;
    let seen = look(&*transaction, path)?;
    let decision = decide::commit(&seen, request, now)?;
    let number = decision.number();
    let new = match decision {
        Decision::Same(number, version) => {
            transaction.put(&keys::version(path, number), &record::encode_version(&version))?;
            false
        }
        Decision::New(number, version, artifact) => {
            add_root(transaction, &request.root)?;
            naming::open_project(transaction, &path.project, now)?;
            transaction.put(&keys::artifact(path), &record::encode_artifact(&artifact))?;
            transaction.put(&keys::version(path, number), &record::encode_version(&version))?;
            transaction.put(&keys::last_time(path), &record::encode(&version.time_seconds))?;
            if let Some(run) = &request.version.run {
                add_logged(transaction, run, path, number, now)?;
            }
            true
        }
    };
    point(transaction, path, &[Alias::latest()], number)?;
    point(transaction, path, &request.version.aliases, number)?;
    Ok(Committed { path: path.clone(), number, new })
}

/// Announces the rows of a commit.
fn want_commit(view: &dyn View, lease: LeaseId, request: &CommitRequest) -> Result<()> {
    let path = &request.version.path;
    view.want(&|| {
        let mut want = Want::keys([
            keys::lease(lease.0),
            keys::answered(lease.0),
            keys::artifact(path),
            keys::last_time(path),
            keys::project(&path.project),
            keys::project_access(&path.project),
            zones_key(),
            keys::object(&request.root),
            keys::alias(path, &Alias::latest()),
        ]);
        want.keys.extend(request.version.aliases.iter().map(|alias| keys::alias(path, alias)));
        Ok(want)
    })
}

/// Reads the rows that a commit depends on.
fn look(view: &dyn View, path: &ArtifactPath) -> Result<Seen> {
    let Some(artifact) = naming::artifact(view, path)? else { return Ok(Seen::default()) };
    let last_time = view.get(&keys::last_time(path))?.map(|bytes| record::decode(&bytes));
    Ok(Seen {
        count: naming::count(view, path, &artifact)?,
        newest: newest(view, path, &artifact)?,
        last_time_seconds: last_time.transpose()?,
        protected: naming::protected(view, path, &artifact)?,
        artifact: Some(artifact),
    })
}

/// Counts a reference to a root tree.
fn add_root(transaction: &mut dyn Transaction, root: &Digest) -> Result<()> {
    let mut counts = PackCounts::default();
    if !add_reference(transaction, &mut counts, root)? {
        let what = format!("the root tree {root} is not in the repository");
        return Err(Error::new(Kind::Conflict, what).hint("nothing was committed; begin again"));
    }
    counts.store(transaction)
}
