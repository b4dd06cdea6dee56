//! DRAFTS: what is written and not yet committed.
//!
//! Knows a scratch directory, in which every draft is an ordinary directory tree, and the POSIX
//! operations on it; where a draft stands on a version, the host has only what differs from it
//! (`overlay`, `base_xattr`). Must not know packs or the registry, and of versions only trees and content
//! ([`Lower`]). Invariants: an operation that was answered is in the host's file system; a draft
//! that is frozen does not change; a node's number is never used twice; no inode of the host is in
//! two drafts; what is marked clean equals what it stands on.
//!
//! ```text
//! drafts/.lock                        held by the process that has the drafts open
//! drafts/.trash/<n>                   thrown away, not yet deleted
//! drafts/.work/<n>                    being built, or left over; it appears elsewhere by rename
//! drafts/<project>/<artifact>/tree/   the files
//! drafts/<project>/<artifact>/draft.json
//! ```
//!
//! Lock order: the names of one draft, then nodes, then handles, then gates. Only that of names is held
//! during a system call, or while a store is asked for a tree.

mod base_xattr;
mod directory;
mod drafts;
mod freeze;
mod gates;
mod handle;
mod in_use;
mod io;
mod lower;
mod names;
mod names_lock;
mod node;
mod open;
mod open_directory;
mod overlay;
mod posix;
mod rebase;
mod record;
mod records;
mod rename;
mod restore;
mod scratch;
mod survey;
mod trial;
mod upper;
mod xattr;

pub use base_xattr::{ContentXattr, TreeXattr};
pub use directory::Listed;
pub use drafts::Drafts;
pub use freeze::{DraftKey, Frozen};
pub use gates::BEING_WRITTEN;
pub use handle::OpenMode;
pub use in_use::Writers;
pub use lower::Lower;
pub use node::NODE_BIT;
pub use open::Opened;
pub use overlay::is_whiteout;
pub use posix::{Attr, Caller, SetAttr, Time};
pub use rebase::{Settled, give_to_store};
pub use record::{DraftProperties, DraftRecord};
pub use survey::{DraftFile, Upper, upper_entries};

/// The host's error number is the answer.
pub type Result<T> = std::result::Result<T, rustix::io::Errno>;
