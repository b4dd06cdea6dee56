//! NAMES, and where bytes are.
//!
//! Knows projects, artifacts, versions, aliases, leases, groups, and every object's place and reference
//! count; written once over an [`engine::Engine`]. Must not know files, sockets or what is in a
//! pack: callers tell it the children of a node. Invariants: a visible version refers only to
//! live objects; `refs` of an object is exactly the number of nodes, versions and parts of open
//! groups that point at it; an object goes only when nothing refers to it and no lease pins it.

mod alias;
mod api;
mod check;
mod clock;
mod commit;
mod counter;
mod delete;
pub mod engine;
mod engine_registry;
mod groups;
mod keys;
mod lease;
mod maintenance;
mod naming;
mod objects;
mod paging;
mod pins;
mod properties;
mod rebuild;
mod record;
mod runs;
mod sweeps;

pub use api::{
    Added, AliasChange, ArtifactUpdate, Call, Changes, CommitRequest, DRAFT_HOLDER, Detail, Fix,
    Judged, LeaseId, LeaseInfo, PackInfo, Page, Rebuilt, Registry, RegistryInfo, Transport, Update,
    dispatch,
};
pub use clock::{Clock, system_clock};
pub use engine_registry::{CHANGES_WAIT_MAX, EngineRegistry, LastChange};
pub use groups::{AddedPart, GroupInfo, NewPart, PartInfo, SealRequest};
pub use record::{Maintenance, MaintenanceMode};
