//! LEASES: what a writer pinned or wrote stays until it commits or gives up.

mod lease;
pub(super) mod live;
pub(super) mod pins;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::time::Timestamp;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::record::LeaseRecord;

/// A lease: while it lives, what it pinned or wrote stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// A lease in a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Its id.
    pub id: LeaseId,
    /// Who holds it.
    pub holder: String,
    /// What for.
    pub purpose: String,
    /// Whether its time is over.
    pub expired: bool,
    /// Whether it has committed, or added its part to a group: it only waits to be released.
    pub committed: bool,
}

/// The holder of a lease that ends only by release: a draft, which pins what it stands on.
pub const DRAFT_HOLDER: &str = "draft";
/// The holder of a lease whose writer is gone: packs it had finished are kept for a day, for the next
/// that begins the same.
pub(in crate::registry) const LEFT_HOLDER: &str = "left";
/// The holder of a lease that is being taken apart; whoever comes goes on with that.
pub(in crate::registry) const ENDING_HOLDER: &str = "ending";

/// A lease as it was when somebody found that its writer is gone. What follows is done only if the same
/// writer still has it then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The lease.
    pub lease: LeaseId,
    /// Who held it.
    pub holder: String,
    /// Whether that process certainly runs no more; otherwise the lease's time must be over.
    pub dead: bool,
}

impl LeaseInfo {
    /// Whether somebody may be writing under it.
    pub fn writes(&self) -> bool {
        self.holder != DRAFT_HOLDER
    }

    /// Whether its writer is gone and only what it had stored is kept, so that another goes on there.
    pub fn is_left(&self) -> bool {
        self.holder == LEFT_HOLDER
    }

    /// Whether it is being taken apart.
    pub fn is_ending(&self) -> bool {
        self.holder == ENDING_HOLDER
    }
}

/// The time after which a lease that was not renewed may be ended by others, in milliseconds.
pub(in crate::registry) const LEASE_MILLISECONDS: u64 = 10 * 60 * 1000;
/// How long finished packs of a writer that is gone are kept, in milliseconds: a day.
pub(in crate::registry) const LEFT_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

impl LeaseInfo {
    pub(in crate::registry) fn new(id: u64, record: &LeaseRecord, now: Timestamp) -> Self {
        Self {
            id: LeaseId(id),
            holder: record.holder.clone(),
            purpose: record.purpose.clone(),
            expired: record.expires <= now,
            committed: record.is_done(),
        }
    }
}
subject! {
    /// Leases of writers.
    ///
    /// # Contract
    /// A caller may rely on this: a lease that exists is valid, whatever the clock says, and one that was ended is never
    /// valid again. An implementation ends the lease of another only if it is still as it was judged, in the
    /// transaction that checks it. It needs the right to write to some project.
    Leases, LeasesCall;

    /// Begins a lease. The same holder and purpose are the same lease, unless it is a draft's.
    begin = Begin(purpose: String, holder: String) -> LeaseId;
    /// Gives what a writer that is gone had stored to a lease of the same purpose; the other lease is to be ended
    /// then. Does nothing when that is not as it was judged.
    adopt = Adopt(lease: LeaseId, judged: Judged) -> ();
    /// Moves a lease's end.
    renew = Renew(lease: LeaseId) -> ();
    /// All leases.
    leases = Leases() -> Vec<LeaseInfo>;
    /// Ends a lease: what it pinned and wrote and nothing refers to is dead.
    release = Release(lease: LeaseId) -> ();
    /// Ends a lease but keeps finished packs with objects nothing refers to yet, for a day and for whoever
    /// begins the same; the bytes of their objects.
    leave = Leave(lease: LeaseId) -> u64;
    /// Leaves or goes on ending the lease of a writer that is gone, if it still has it; `wholly` also takes
    /// what is kept of a lease that was left before. The bytes that are kept.
    end_lease = EndLease(judged: Judged, wholly: bool) -> u64;
}

impl Leases for EngineRegistry {
    fn begin(&self, purpose: String, holder: String) -> Result<LeaseId> {
        self.begin(&purpose, &holder)
    }

    fn adopt(&self, lease: LeaseId, judged: Judged) -> Result<()> {
        self.adopt(lease, &judged)
    }

    fn renew(&self, lease: LeaseId) -> Result<()> {
        self.renew(lease)
    }

    fn leases(&self) -> Result<Vec<LeaseInfo>> {
        self.leases()
    }

    fn release(&self, lease: LeaseId) -> Result<()> {
        self.release(lease)
    }

    fn leave(&self, lease: LeaseId) -> Result<u64> {
        self.leave(lease)
    }

    fn end_lease(&self, judged: Judged, wholly: bool) -> Result<u64> {
        self.end_lease(&judged, wholly)
    }
}
