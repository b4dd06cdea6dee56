//! NAMES, and the places of bytes.
//!
//! It holds projects, artifacts, versions, aliases, leases, groups, runs, and every object's place
//! and reference count; it is written once over an [`engine::Engine`]. It depends neither on files
//! and sockets nor on the content of packs: callers pass the children of a node. Invariants: a
//! visible version refers only to live objects; `refs` of an object is exactly the number of nodes,
//! versions and parts of open groups that point at it. An object is removed only if nothing refers
//! to it and no lease pins it.

mod access;
mod call;
mod counter;
pub mod engine;
mod engine_registry;
mod groups;
pub mod guard;
mod keys;
mod leases;
mod names;
mod objects;
mod paging;
mod record;
mod runs;
mod seen_time;
mod subject;
mod upkeep;
mod versions;

pub use access::{Access, AccessCall, NewKey};
pub use call::{Call, Transport, dispatch};
pub use engine_registry::{CHANGES_WAIT_MAX, EngineRegistry, LastChange};
pub use groups::group::{GroupInfo, NewPart, PartInfo, SealRequest};
pub use groups::{Groups, GroupsCall};
pub use leases::{Begun, DRAFT_HOLDER, Judged, LeaseId, LeaseInfo, Leases, LeasesCall};
pub use names::{AliasChange, ArtifactUpdate, Changes, Names, NamesCall};
pub use objects::{Added, Objects, ObjectsCall, PackInfo, RegistryInfo};
pub use record::{Maintenance, MaintenanceMode};
pub use runs::{Runs, RunsCall};
pub use upkeep::{Fix, Rebuilt, Upkeep, UpkeepCall};
pub use versions::{CommitRequest, Detail, Update, Versions, VersionsCall};

/// All subjects of a registry. Errors have the kinds of [`crate::error::Kind`]: an unknown name is
/// `NotFound`, a registry that cannot be reached is `Unavailable`.
pub trait Registry: Names + Versions + Objects + Leases + Runs + Groups + Upkeep + Access {}

impl<T: Names + Versions + Objects + Leases + Runs + Groups + Upkeep + Access> Registry for T {}

/// The traits of all subjects, for callers that hold a registry of a known type.
pub mod prelude {
    pub use super::{Access, Groups, Leases, Names, Objects, Registry, Runs, Upkeep, Versions};
}
