//! The end of a put: the stored tree becomes a version.

use std::sync::Arc;

use super::build::{self, Mode};
use super::outcome::Outcomes;
use super::report::{PutReport, Silent};
use super::walk::Walk;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::new_version::NewVersion;
use crate::model::version::{Committed, Totals};
use crate::ops::lease::Lease;
use crate::ops::repository::Repository;
use crate::registry::CommitRequest;

/// Commits the tree of `report` as a version.
///
/// # Errors
/// As [`Versions::commit`](crate::registry::Versions::commit).
pub(super) fn commit(
    repository: &Repository,
    lease: &Lease,
    version: NewVersion,
    report: &PutReport,
) -> Result<Committed> {
    let (root, totals) = (report.root, report.totals);
    repository.registry.commit(lease.id(), CommitRequest { version, root, totals })
}

/// Merges trees, the later over the earlier, and stores the nodes that only the result has.
///
/// # Errors
/// [`Kind::Stale`](crate::error::Kind::Stale) if one of the trees was deleted meanwhile.
pub(in crate::ops) fn merge(
    repository: &Repository,
    lease: &Lease,
    layers: &[(Digest, Totals)],
) -> Result<PutReport> {
    let walk = Walk::Merge(layers);
    let mode = Mode::Store(lease);
    let built = build::run(repository, walk, mode, Outcomes::None, Arc::new(Silent))?;
    Ok(built.report)
}
