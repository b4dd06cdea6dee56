//! OBJECTS: where they are, and how many refer to each.

pub(super) mod table;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, NewObject, PackId};
use crate::registry::LeaseId;
use crate::registry::engine_registry::EngineRegistry;

/// The repository in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryInfo {
    /// Packs.
    pub packs: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of these objects in the store.
    pub live_bytes: u64,
    /// Length of all packs; the difference waits to be freed.
    pub pack_bytes: u64,
}

/// What registering objects found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Added {
    /// Children that are not there: nothing was registered; write these and try again.
    pub missing: Vec<Digest>,
    /// Objects that somebody else had registered first.
    pub duplicates: u64,
}

/// A pack in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Its id.
    pub id: PackId,
    /// Whether somebody is writing it.
    pub leased: bool,
    /// Objects the registry knows in it.
    pub live_objects: u64,
    /// Bytes of these.
    pub live_bytes: u64,
    /// Its length.
    pub length_bytes: u64,
}

subject! {
    /// Where objects are.
    ///
    /// # Contract
    /// A caller may rely on this: an object that [`missing`](Self::missing) did not name stays while the lease lives, and a
    /// registered object has all its children. An implementation counts the references to each object exactly. The
    /// bytes of what is registered must be durable before. A digest alone grants nothing: who asks needs the right
    /// to read what refers to the object, and to register needs the right to write.
    Objects, ObjectsCall;

    /// The repository in numbers.
    info = Info() -> RegistryInfo;
    /// Where objects are.
    locate = LocateObjects(digests: Vec<Digest>) -> Vec<Option<Located>>;
    /// Which of `digests` are not there; the others are pinned for the lease.
    missing = Missing(lease: LeaseId, digests: Vec<Digest>) -> Vec<Digest>;
    /// Announces a pack before it is written.
    register_pack = RegisterPack(lease: LeaseId, pack: PackId) -> ();
    /// Registers objects of a pack whose bytes are durable; counts their children.
    add_objects = AddObjects(lease: LeaseId, pack: PackId, length_bytes: u64, objects: Vec<NewObject>) -> Added;
    /// Bytes of these objects were found wrong there: whoever brings them next stores them anew. How many are
    /// absent by this.
    doubt = Doubt(found: Vec<(Digest, Extent)>) -> u64;
    /// How many objects are absent.
    absent = CountAbsent() -> u64;
}

impl Objects for EngineRegistry {
    fn info(&self) -> Result<RegistryInfo> {
        self.info()
    }

    fn locate(&self, digests: Vec<Digest>) -> Result<Vec<Option<Located>>> {
        self.locate(&digests)
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
