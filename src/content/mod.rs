//! BYTES by digest.
//!
//! Knows how files are cut, how packs are laid out and where they lie, and how objects are read
//! and verified. Must not know names, versions or the registry: it asks a [`Locate`] where an
//! object is. Invariant: no unverified byte leaves this room.

pub mod cache;
pub mod chunk;
pub mod codec;
pub mod cursor;
pub mod directory;
pub mod external;
pub mod fetch;
pub mod options;
pub mod pack;
pub mod reader;
mod remote;
pub mod store;

use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, PackId};

/// Who knows where objects are.
pub trait Locate: Send + Sync {
    /// Where each of `digests` is, in their order; `None` for one that is not in the repository.
    ///
    /// # Errors
    /// When that cannot be found out now; never for an object that does not exist.
    fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Located>>>;

    /// The length of a pack in bytes; `None` for one that is not in the repository.
    ///
    /// # Errors
    /// When that cannot be found out now.
    fn pack_length(&self, pack: PackId) -> Result<Option<u64>>;

    /// Notes that the bytes of an object at this place are not what its digest says, so that they are stored anew when
    /// somebody brings them.
    fn doubt(&self, digest: Digest, extent: Extent);
}
