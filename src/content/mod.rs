//! BYTES by digest.
//!
//! The room holds how files are cut, how packs are laid out and where they lie, and how objects are
//! read and verified. It imports no names, versions or registry: a [`Locate`] gives it the place of
//! an object. Invariant: no unverified byte leaves this room.

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
mod received;
#[cfg(feature = "clouds")]
mod remote;
#[cfg(not(feature = "clouds"))]
#[path = "remote_absent.rs"]
mod remote;
pub mod store;
mod threads;
mod url;

use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Extent, Located, PackId};

/// A source of the places of objects.
pub(crate) trait Locate: Send + Sync {
    /// Returns the place of each of `digests`, in their order; `None` for one that is not in the
    /// repository.
    ///
    /// # Errors
    /// If the places cannot be found out now; never for an object that does not exist.
    fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Located>>>;

    /// Returns the length of a pack in bytes; `None` for one that is not in the repository.
    ///
    /// # Errors
    /// If the length cannot be found out now.
    fn pack_length(&self, pack: PackId) -> Result<Option<u64>>;

    /// Returns whether a look-up crosses a network, so that places are worth remembering.
    fn is_far(&self) -> bool {
        false
    }

    /// Records that the bytes of an object at this place do not match its digest. The next
    /// writer that has these bytes stores them again.
    fn doubt(&self, digest: Digest, extent: Extent);
}
