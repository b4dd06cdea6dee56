//! The zones of leases. All objects and packs of a lease, and its version, belong to its zone.

use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::ProjectName;
use crate::model::zone::{Zone, other_zone};
use crate::registry::LeaseId;
use crate::registry::access::zones::{find, find_or_make, is_zoned};
use crate::registry::engine::{Transaction, View};

/// Returns the zone of a new lease: that of `project` in a zoned repository.
pub(super) fn of_lease(
    transaction: &mut dyn Transaction,
    project: Option<&ProjectName>,
) -> Result<Zone> {
    match project {
        Some(project) if is_zoned(&*transaction)? => Ok(find_or_make(transaction, project)?.zone),
        _ => Ok(Zone::WHOLE),
    }
}

/// Refuses objects and packs of other zones than that of a lease.
///
/// # Errors
/// [`Unsupported`](crate::error::Kind::Unsupported) for one of another zone.
pub(in crate::registry) fn check(
    lease: LeaseId,
    zones: impl IntoIterator<Item = Zone>,
) -> Result<()> {
    let own = lease.zone();
    match zones.into_iter().any(|zone| zone != own) && own != Zone::WHOLE {
        true => Err(other_zone()),
        false => Ok(()),
    }
}

/// Refuses to commit the tree `root` to a project that has another zone than the lease or the tree.
///
/// # Errors
/// As [`check`].
pub(in crate::registry) fn check_project(
    view: &dyn View,
    lease: LeaseId,
    project: &ProjectName,
    root: &Digest,
) -> Result<()> {
    if !is_zoned(view)? {
        return Ok(());
    }
    let zone = find(view, project)?.map(|access| access.zone);
    match zone == Some(lease.zone()) && zone == Some(root.zone()) {
        true => Ok(()),
        false => Err(other_zone()),
    }
}
