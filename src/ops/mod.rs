//! Verbs: the operations that users can request.
//!
//! They hold the order law (bytes are durable before names; names are gone before bytes), and
//! combine content, registry and staging. They must not know terminals, sockets or the kernel.
//! Invariant: a verb that returns an error leaves nothing that a reader could see, and nothing that
//! the next verb would not clean up.

pub mod access;
pub mod alias;
pub mod browse;
pub mod cache;
pub mod code;
pub mod copy_store;
pub mod delete;
pub mod diff;
pub mod documents;
pub mod drafts;
pub mod exclusive_size;
pub mod external;
pub mod fsck;
pub mod garbage;
pub mod gc;
pub mod get;
mod glob;
pub mod groups;
mod judgement;
mod lease;
pub mod lineage;
pub mod listing;
pub mod ls;
pub mod maintenance;
mod merge_walk;
pub mod orphans;
pub mod prefetch;
pub mod process_id;
pub mod prune;
pub mod put;
pub mod read;
mod reclaim_lock;
pub mod repository;
mod resolved;
pub mod runs;
pub mod select;
pub mod served;
pub mod shared;
pub mod show;
pub mod stats;
#[cfg(feature = "tables")]
pub mod table;
pub mod totals;
pub mod update;
pub mod verify;
mod with_lease;
