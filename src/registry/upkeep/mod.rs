//! UPKEEP: garbage, repair and moving. Only processes of the repository's own machine ask for it.

pub(super) mod check;
mod maintenance;
pub(super) mod mark;
pub(super) mod rebuild;
mod reclaim;
pub(super) mod reclaim_mark;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::Space;
use crate::registry::record::{Maintenance, MaintenanceMode};
use crate::registry::{LeaseId, PackInfo};

/// One correction of the object table, made only if what was `seen` is still there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Fix {
    /// An object's record. With no references it is dead, unless a lease holds it.
    Object {
        /// The object.
        digest: Digest,
        /// The record this was computed from; `None`: there was none.
        seen: Option<Located>,
        /// What is right. The same as `seen`: only the mark of a dead object is put right.
        now: Located,
    },
    /// A pack's counts and length.
    Pack {
        /// The record this was computed from; `None`: there was none.
        seen: Option<PackInfo>,
        /// What is right.
        now: PackInfo,
    },
    /// The dead bytes of this pack wait to be freed.
    Free(PackId),
}

/// An object of a table that is being made anew; `None`: it is not in it after all.
pub type Rebuilt = (Digest, Option<Located>);

subject! {
    /// What keeps the object table and the store in order.
    ///
    /// # Contract
    /// A caller may rely on this: what is collected was referred to by nothing and held by no lease in that moment, and a
    /// correction is made only if what it was computed from is still there. An implementation refuses everything else
    /// that touches counts while the maintenance mark is held. It is never offered over a network.
    Upkeep, UpkeepCall;

    /// Dead objects that still count their children, at most `limit`.
    unreachable = Unreachable(limit: u32) -> Vec<(Digest, Located)>;
    /// Takes dead objects, given with their children, out of the table; how many bytes died.
    collect = Collect(objects: Vec<(Digest, Vec<Digest>)>) -> u64;
    /// Packs above `after` with dead bytes, that nobody writes or reclaims, in the order of ids, at most
    /// `limit`, each with the number of its mark; with `deferred` also those whose dead bytes may stay.
    reclaimable = Reclaimable(after: Option<PackId>, limit: u32, deferred: bool) -> Vec<(PackInfo, u64)>;
    /// The dead bytes of a pack stay until garbage is collected, or until more of it dies; nothing happens
    /// when that was so since the mark had the number `mark`.
    defer_reclaim = DeferReclaim(pack: PackId, mark: u64) -> ();
    /// Keeps others from purging a pack while the lease lives; the number of its mark, or `None` when
    /// there is nothing to reclaim or somebody else does.
    claim_reclaim = ClaimReclaim(lease: LeaseId, pack: PackId) -> Option<u64>;
    /// Objects of pack `from` were written to pack `to`, at the offsets given: they are there now. How
    /// many were still alive.
    relocate = Relocate(lease: LeaseId, from: PackId, to: PackId, length_bytes: u64, moved: Vec<(Digest, u64)>) -> u64;
    /// A pack, if there is one.
    pack = FindPack(pack: PackId) -> Option<PackInfo>;
    /// Which of `digests` are alive in this pack.
    live_in = LiveIn(pack: PackId, digests: Vec<Digest>) -> Vec<bool>;
    /// The dead bytes that a pack had when its mark had the number `mark` are gone; `length_bytes` is what
    /// is left (0: the pack is gone).
    reclaimed = Reclaimed(pack: PackId, length_bytes: u64, mark: u64) -> ();
    /// Objects above `after` in the order of digests, at most `limit`.
    scan_objects = ScanObjects(after: Option<Digest>, limit: u32) -> Vec<(Digest, Located)>;
    /// Packs above `after`, at most `limit`.
    scan_packs = ScanPacks(after: Option<PackId>, limit: u32) -> Vec<PackInfo>;
    /// The maintenance that is under way, or was interrupted.
    maintenance = FindMaintenance() -> Option<Maintenance>;
    /// Sets the maintenance mark, or takes it over from the holder that was `seen` and is gone; a conflict while
    /// somebody else holds it, or while a lease other than those in `idle` writes. A swap that was interrupted stays one.
    begin_maintenance = BeginMaintenance(mode: MaintenanceMode, holder: String, seen: Option<Maintenance>, idle: Vec<LeaseId>) -> ();
    /// Maintenance goes on.
    renew_maintenance = RenewMaintenance(holder: String) -> ();
    /// Takes the mark away; refused in the middle of a swap.
    end_maintenance = EndMaintenance(holder: String) -> ();
    /// Corrects the object table under maintenance; how many corrections changed something.
    repair = Repair(holder: String, fixes: Vec<Fix>) -> u64;
    /// Begins an empty object table beside the one in use.
    begin_rebuild = BeginRebuild(holder: String) -> ();
    /// Puts objects and packs into the new table; a pack keeps its lease.
    put_rebuilt = PutRebuilt(holder: String, objects: Vec<Rebuilt>, packs: Vec<PackInfo>) -> ();
    /// Objects of the new table above `after`, at most `limit`.
    scan_rebuilt = ScanRebuilt(after: Option<Digest>, limit: u32) -> Vec<(Digest, Located)>;
    /// What the new table has of these.
    locate_rebuilt = LocateRebuilt(digests: Vec<Digest>) -> Vec<Option<Located>>;
    /// Goes a step in putting the new table in the place of the old; whether it was the last.
    swap_rebuilt = SwapRebuilt(holder: String) -> bool;
}

impl Upkeep for EngineRegistry {
    fn unreachable(&self, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.unreachable(limit)
    }

    fn collect(&self, objects: Vec<(Digest, Vec<Digest>)>) -> Result<u64> {
        self.collect(&objects)
    }

    fn reclaimable(
        &self,
        after: Option<PackId>,
        limit: u32,
        deferred: bool,
    ) -> Result<Vec<(PackInfo, u64)>> {
        self.reclaimable(after, limit, deferred)
    }

    fn defer_reclaim(&self, pack: PackId, mark: u64) -> Result<()> {
        self.defer_reclaim(pack, mark)
    }

    fn claim_reclaim(&self, lease: LeaseId, pack: PackId) -> Result<Option<u64>> {
        self.claim_reclaim(lease, pack)
    }

    fn relocate(
        &self,
        lease: LeaseId,
        from: PackId,
        to: PackId,
        length_bytes: u64,
        moved: Vec<(Digest, u64)>,
    ) -> Result<u64> {
        self.relocate(lease, (from, to), length_bytes, moved)
    }

    fn pack(&self, pack: PackId) -> Result<Option<PackInfo>> {
        self.pack(pack)
    }

    fn live_in(&self, pack: PackId, digests: Vec<Digest>) -> Result<Vec<bool>> {
        let found = self.locate(&digests)?;
        Ok(found.iter().map(|at| at.is_some_and(|l| l.extent.pack == pack)).collect())
    }

    fn reclaimed(&self, pack: PackId, length_bytes: u64, mark: u64) -> Result<()> {
        self.reclaimed(pack, length_bytes, mark)
    }

    fn scan_objects(&self, after: Option<Digest>, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.page_of_objects(Space::Object, after, limit)
    }

    fn scan_packs(&self, after: Option<PackId>, limit: u32) -> Result<Vec<PackInfo>> {
        self.scan_packs(after, limit)
    }

    fn maintenance(&self) -> Result<Option<Maintenance>> {
        self.maintenance()
    }

    fn begin_maintenance(
        &self,
        mode: MaintenanceMode,
        holder: String,
        seen: Option<Maintenance>,
        idle: Vec<LeaseId>,
    ) -> Result<()> {
        self.begin_maintenance(mode, &holder, seen.as_ref(), &idle)
    }

    fn renew_maintenance(&self, holder: String) -> Result<()> {
        self.renew_maintenance(&holder)
    }

    fn end_maintenance(&self, holder: String) -> Result<()> {
        self.end_maintenance(&holder)
    }

    fn repair(&self, holder: String, fixes: Vec<Fix>) -> Result<u64> {
        self.repair(&holder, &fixes)
    }

    fn begin_rebuild(&self, holder: String) -> Result<()> {
        self.begin_rebuild(&holder)
    }

    fn put_rebuilt(
        &self,
        holder: String,
        objects: Vec<Rebuilt>,
        packs: Vec<PackInfo>,
    ) -> Result<()> {
        self.put_rebuilt(&holder, &objects, &packs)
    }

    fn scan_rebuilt(&self, after: Option<Digest>, limit: u32) -> Result<Vec<(Digest, Located)>> {
        self.page_of_objects(Space::RebuiltObject, after, limit)
    }

    fn locate_rebuilt(&self, digests: Vec<Digest>) -> Result<Vec<Option<Located>>> {
        self.locate_rebuilt(&digests)
    }

    fn swap_rebuilt(&self, holder: String) -> Result<bool> {
        self.swap_rebuilt(&holder)
    }
}
