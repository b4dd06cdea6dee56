//! A version that has one more file than the tree it comes from.

use super::build::{self, Mode};
use super::commit::commit;
use super::outcome::Outcomes;
use super::report::{PutReport, Silent};
use super::walk::Walk;
use super::walk::insert::{Insert, display_path};
use crate::error::Result;
use crate::model::new_version::NewVersion;
use crate::ops::repository::Repository;
use crate::ops::with_lease::with_lease;

/// Commits the tree of `insert` as a version.
///
/// # Errors
/// [`Kind::Conflict`](crate::error::Kind::Conflict) if a directory is at the file's path, or a file
/// is where a directory must be; otherwise as [`put`](super::put).
pub fn insert(
    repository: &Repository,
    insert: &Insert<'_>,
    version: NewVersion,
) -> Result<PutReport> {
    let purpose = format!("insert {} {}", version.path, display_path(insert.path));
    let project = version.path.project.clone();
    with_lease(repository, &project, purpose, |lease| {
        let progress = std::sync::Arc::new(Silent);
        let walk = Walk::Insert(insert);
        let built = build::run(repository, walk, Mode::Store(lease), Outcomes::None, progress)?;
        let mut report = built.report;
        report.committed = Some(commit(repository, lease, version, &report)?);
        Ok(report)
    })
}
