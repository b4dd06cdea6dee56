//! UPKEEP: garbage, repair and moving. It is used only by processes on the repository's own
//! machine.

pub(super) mod check;
mod maintenance;
pub(super) mod mark;
pub(super) mod rebuild;
mod reclaim;
pub(super) mod reclaim_mark;
mod settings;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::Space;
use crate::registry::record::{Maintenance, MaintenanceMode};
use crate::registry::{LeaseId, PackInfo};

/// One correction of the object table, made only if the record is still as it was `seen`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Fix {
    /// An object's record. Without references the object is unreachable, unless a lease holds it.
    Object {
        /// The object.
        digest: Digest,
        /// The record from which the correction was computed; `None`: there was none.
        seen: Option<Located>,
        /// The correct record. If it equals `seen`, only the mark of an unreachable object is
        /// corrected.
        now: Located,
    },
    /// A pack's counts and length.
    Pack {
        /// The record from which the correction was computed; `None`: there was none.
        seen: Option<PackInfo>,
        /// The correct counts and length.
        now: PackInfo,
    },
    /// A pack that must be marked as reclaimable, if it has dead bytes.
    Free(PackId),
    /// An object that can be read after all: it becomes present, and its children, which were not
    /// counted, are.
    Revival {
        /// The object.
        digest: Digest,
        /// The record that it must have.
        seen: Located,
        /// The objects that it points at, each once.
        children: Vec<Digest>,
    },
}

/// An object of a table that is being rebuilt; `None`: it is to be removed from the new table.
pub type Rebuilt = (Digest, Option<Located>);

subject! {
    /// The maintenance of the object table and the store.
    ///
    /// # Contract
    /// A collected object had neither references nor a lease at that moment. A correction is made
    /// only if the record from which it was computed is unchanged. An implementation refuses
    /// everything else that touches counts while the maintenance mark is set. It is never offered
    /// over a network.
    Upkeep, UpkeepCall;

    /// Makes each project a zone, if the repository has no project, pack or lease yet. Returns
    /// whether each project is a zone.
    make_zoned = MakeZoned() -> bool;
    /// Returns the settings of the repository, if the registry keeps them: one that several hosts
    /// share does.
    settings = FindSettings() -> Option<String>;
    /// Replaces the settings. `holder` has the maintenance mark, unless there are none yet.
    set_settings = SetSettings(holder: String, text: String) -> ();
    /// Returns unreachable objects that are still in the table, at most `limit`.
    unreachable = Unreachable(limit: u32) -> Vec<(Digest, Located)>;
    /// Removes unreachable objects, given with their children, from the table. Returns their bytes
    /// in the store.
    collect = Collect(objects: Vec<(Digest, Vec<Digest>)>) -> u64;
    /// Returns packs above `after` with dead bytes, in the order of ids, at most `limit`, each with
    /// the number of its mark. Leaves out packs that are under a lease or claimed, and without
    /// `deferred` those whose dead bytes may stay.
    reclaimable = Reclaimable(after: Option<PackId>, limit: u32, deferred: bool) -> Vec<(PackInfo, u64)>;
    /// Lets the dead bytes of a pack stay until garbage is collected, or until more of its bytes
    /// die. Does nothing if the number of its mark is no longer `mark`.
    defer_reclaim = DeferReclaim(pack: PackId, mark: u64) -> ();
    /// Claims a pack, so that no other process reclaims it while the lease lives. Returns the
    /// number of its mark; `None` if it has no dead bytes or another lease claims it.
    claim_reclaim = ClaimReclaim(lease: LeaseId, pack: PackId) -> Option<u64>;
    /// Records that objects of pack `from` were copied to pack `to`, at the given offsets. Returns
    /// how many objects were still in `from`.
    relocate = Relocate(lease: LeaseId, from: PackId, to: PackId, length_bytes: u64, moved: Vec<(Digest, u64)>) -> u64;
    /// Returns, for each of `digests`, whether the object is in this pack.
    live_in = LiveIn(pack: PackId, digests: Vec<Digest>) -> Vec<bool>;
    /// Records that the dead bytes are gone that a pack had when its mark had the number `mark`.
    /// `length_bytes` is its new length (0: the pack was removed).
    reclaimed = Reclaimed(pack: PackId, length_bytes: u64, mark: u64) -> ();
    /// Returns objects above `after` in the order of digests, at most `limit`.
    scan_objects = ScanObjects(after: Option<Digest>, limit: u32) -> Vec<(Digest, Located)>;
    /// Returns packs above `after` in the order of ids, at most `limit`.
    scan_packs = ScanPacks(after: Option<PackId>, limit: u32) -> Vec<PackInfo>;
    /// Returns the maintenance that is under way or was interrupted.
    maintenance = FindMaintenance() -> Option<Maintenance>;
    /// Sets the maintenance mark, or takes it over if it is still the mark that was `seen`. A
    /// conflict if another holder has it, or a lease other than drafts, left ones and those in
    /// `idle` exists. An interrupted swap stays one.
    begin_maintenance = BeginMaintenance(mode: MaintenanceMode, holder: String, seen: Option<Maintenance>, idle: Vec<LeaseId>) -> ();
    /// Renews the maintenance mark.
    renew_maintenance = RenewMaintenance(holder: String) -> ();
    /// Removes the mark, if `holder` has it. A conflict during a swap.
    end_maintenance = EndMaintenance(holder: String) -> ();
    /// Corrects the object table under maintenance. Returns how many corrections changed something.
    repair = Repair(holder: String, fixes: Vec<Fix>) -> u64;
    /// Begins an empty object table beside the one in use.
    begin_rebuild = BeginRebuild(holder: String) -> ();
    /// Puts objects and packs into the new table; a pack keeps its lease.
    put_rebuilt = PutRebuilt(holder: String, objects: Vec<Rebuilt>, packs: Vec<PackInfo>) -> ();
    /// Returns objects of the new table above `after` in the order of digests, at most `limit`.
    scan_rebuilt = ScanRebuilt(after: Option<Digest>, limit: u32) -> Vec<(Digest, Located)>;
    /// Returns the records in the new table, in the order of `digests`; `None` for an object that
    /// is not in it.
    locate_rebuilt = LocateRebuilt(digests: Vec<Digest>) -> Vec<Option<Located>>;
    /// Makes one step of replacing the old table by the new one. Returns whether it was the last.
    swap_rebuilt = SwapRebuilt(holder: String) -> bool;
}

impl Upkeep for EngineRegistry {
    fn make_zoned(&self) -> Result<bool> {
        self.make_zoned()
    }

    fn settings(&self) -> Result<Option<String>> {
        self.settings()
    }

    fn set_settings(&self, holder: String, text: String) -> Result<()> {
        self.set_settings(&holder, &text)
    }

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
