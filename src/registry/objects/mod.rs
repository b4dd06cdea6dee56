//! OBJECTS: their places and reference counts.

pub(super) mod absent;
mod decide;
pub(super) mod table;
pub(super) mod wants;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, NewObject, PackId};
use crate::registry::LeaseId;
use crate::registry::engine_registry::EngineRegistry;

/// The totals of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryInfo {
    /// The number of packs.
    pub packs: u64,
    /// The number of objects.
    pub objects: u64,
    /// The size of these objects in the store, in bytes.
    pub live_bytes: u64,
    /// The length of all packs in bytes; the difference from `live_bytes` waits to be freed.
    pub pack_bytes: u64,
}

/// The result of registering objects.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Added {
    /// The children that are missing. If there are any, nothing was registered: write these and try
    /// again.
    pub missing: Vec<Digest>,
    /// The number of objects that were registered before.
    pub duplicates: u64,
}

/// A pack in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// The id of the pack.
    pub id: PackId,
    /// True if the pack is still under a lease.
    pub leased: bool,
    /// The number of registered objects in the pack.
    pub live_objects: u64,
    /// The size of these objects in bytes.
    pub live_bytes: u64,
    /// The length of the pack in bytes.
    pub length_bytes: u64,
}

subject! {
    /// The places of objects.
    ///
    /// # Contract
    /// An object that [`missing`](Self::missing) did not return stays while the lease lives. A
    /// registered object has all its children. An implementation counts the references to each
    /// object exactly. The bytes of an object must be durable before it is registered. A digest
    /// alone grants nothing: to locate an object a caller needs the right to read a version that
    /// refers to it. To register one it needs the right to write.
    Objects, ObjectsCall;

    /// Returns the totals of the repository.
    info = Info() -> RegistryInfo;
    /// Returns the record of each object, in the order of `digests`; `None` for an unknown object.
    locate = LocateObjects(digests: Vec<Digest>) -> Vec<Option<Located>>;
    /// Returns a pack, if there is one.
    pack = FindPack(pack: PackId) -> Option<PackInfo>;
    /// Returns those of `digests` that are unknown or absent, and pins the others for the lease.
    missing = Missing(lease: LeaseId, digests: Vec<Digest>) -> Vec<Digest>;
    /// Announces a pack before it is written.
    register_pack = RegisterPack(lease: LeaseId, pack: PackId) -> ();
    /// Registers objects of a pack whose bytes are durable; counts their children.
    add_objects = AddObjects(lease: LeaseId, pack: PackId, length_bytes: u64, objects: Vec<NewObject>) -> Added;
    /// Marks objects absent whose bytes were found wrong at these places, so that the next writer
    /// stores them again. Returns how many it marked.
    doubt = Doubt(found: Vec<(Digest, Extent)>) -> u64;
    /// Returns the number of absent objects.
    absent = CountAbsent() -> u64;
}

impl Objects for EngineRegistry {
    fn info(&self) -> Result<RegistryInfo> {
        self.info()
    }

    fn locate(&self, digests: Vec<Digest>) -> Result<Vec<Option<Located>>> {
        self.locate(&digests)
    }

    fn pack(&self, pack: PackId) -> Result<Option<PackInfo>> {
        self.pack(pack)
    }

    fn missing(&self, lease: LeaseId, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        self.missing(lease, digests)
    }

    fn register_pack(&self, lease: LeaseId, pack: PackId) -> Result<()> {
        self.register_pack(lease, pack)
    }

    fn add_objects(
        &self,
        lease: LeaseId,
        pack: PackId,
        length_bytes: u64,
        objects: Vec<NewObject>,
    ) -> Result<Added> {
        self.add_objects(lease, pack, length_bytes, objects)
    }

    fn doubt(&self, found: Vec<(Digest, Extent)>) -> Result<u64> {
        self.doubt(&found)
    }

    fn absent(&self) -> Result<u64> {
        self.absent()
    }
}
