//! LEASES: the objects that a writer pinned or wrote stay until it commits or its lease ends.

mod decide;
mod lease;
pub(super) mod live;
pub(super) mod pins;
pub(super) mod zones;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::name::ProjectName;
use crate::model::time::Timestamp;
use crate::model::zone::Zone;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::record::LeaseRecord;

/// The number of a lease. Its upper bits are the number of its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// The bits of a lease's number below those of its zone.
const SEQUENCE_BITS: u32 = 40;

impl LeaseId {
    /// Returns the lease of a zone with a number of its own.
    pub(in crate::registry) fn new(zone: Zone, sequence: u64) -> Self {
        Self(u64::from(zone.number()) << SEQUENCE_BITS | sequence)
    }

    /// Returns the zone to which all that it keeps belongs; [`Zone::WHOLE`] for one that keeps
    /// nothing in a zoned repository.
    pub fn zone(self) -> Zone {
        Zone::new(self.0 >> SEQUENCE_BITS).expect("the other bits are as many as those of a zone")
    }
}

/// The reply to the beginning of a lease: the lease, and two facts that its writer needs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The lease.
    pub lease: LeaseId,
    /// True if other leases have the same purpose: the writer of one may be gone, and its packs can
    /// be taken over. It is false for drafts.
    pub shares_purpose: bool,
    /// The number of absent objects.
    pub absent: u64,
}

/// A lease in a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// The id of the lease.
    pub id: LeaseId,
    /// The identity of its process, or one of the special holders.
    pub holder: String,
    /// The purpose of the lease.
    pub purpose: String,
    /// True if its time is over.
    pub expired: bool,
    /// True if it has committed or added its part to a group: it only waits to be released.
    pub committed: bool,
}

/// The holder of a lease that ends only by release: a draft's, which pins its lower.
pub const DRAFT_HOLDER: &str = "draft";
/// The holder of a lease whose writer is gone: its finished packs are kept for a day, for the next
/// lease of the same purpose.
pub(in crate::registry) const LEFT_HOLDER: &str = "left";
/// The holder of a lease that is being taken apart; after an interruption any process may continue.
pub(in crate::registry) const ENDING_HOLDER: &str = "ending";

/// A lease as it was when a process found its writer gone. Calls with it do nothing if the lease
/// has another holder by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The lease.
    pub lease: LeaseId,
    /// The holder at that time.
    pub holder: String,
    /// True if that process has certainly ended; otherwise the lease's time must be over.
    pub dead: bool,
}

impl LeaseInfo {
    /// Returns whether the lease is a writer's, not a draft's.
    pub(crate) fn writes(&self) -> bool {
        self.holder != DRAFT_HOLDER
    }

    /// Returns whether its writer is gone and its finished packs are kept for another writer.
    pub fn is_left(&self) -> bool {
        self.holder == LEFT_HOLDER
    }

    /// Returns whether the lease is being taken apart.
    pub fn is_ending(&self) -> bool {
        self.holder == ENDING_HOLDER
    }
}

/// The time after which a lease that was not renewed may be ended by others, in milliseconds.
pub(in crate::registry) const LEASE_MILLISECONDS: u64 = 10 * 60 * 1000;
/// The time that finished packs of a writer that is gone are kept, in milliseconds: a day.
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
    /// The leases of writers.
    ///
    /// # Contract
    /// A lease that exists is valid, whatever the clock says. One that was ended is never valid
    /// again. An implementation ends the lease of another holder only if it is still as it was
    /// judged, in the transaction that checks it. Calls need the right to write to some project.
    Leases, LeasesCall;

    /// Begins a lease. Returns the existing lease of the same holder and purpose if it is not done,
    /// except for drafts. In a zoned repository a lease that keeps objects belongs to a project,
    /// and the first one of a project makes the zone.
    begin = Begin(purpose: String, holder: String, project: Option<ProjectName>) -> Begun;
    /// Gives the finished packs of a writer that is gone to a lease of the same purpose. The caller
    /// ends the other lease afterwards. Does nothing if that lease is not as it was judged.
    adopt = Adopt(lease: LeaseId, judged: Judged) -> ();
    /// Extends a lease by ten minutes from now.
    renew = Renew(lease: LeaseId) -> ();
    /// Returns all leases.
    leases = Leases() -> Vec<LeaseInfo>;
    /// Ends a lease: objects that it pinned or wrote, and that nothing refers to, become
    /// unreachable.
    release = Release(lease: LeaseId) -> ();
    /// Ends a lease, but keeps its finished packs with objects that nothing refers to yet. They are
    /// kept for a day, for a lease of the same purpose. Returns the bytes of their objects.
    leave = Leave(lease: LeaseId) -> u64;
    /// Leaves the lease of a writer that is gone, or continues to end it, if it is as it was
    /// judged. `wholly` also releases the packs of a lease that was left before. Returns the bytes
    /// that are kept.
    end_lease = EndLease(judged: Judged, wholly: bool) -> u64;
}

impl Leases for EngineRegistry {
    fn begin(
        &self,
        purpose: String,
        holder: String,
        project: Option<ProjectName>,
    ) -> Result<Begun> {
        self.begin(&purpose, &holder, project.as_ref())
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
