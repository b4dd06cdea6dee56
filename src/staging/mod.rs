//! DRAFTS: files that are written and not yet committed.
//!
//! Holds a scratch directory, in which every draft is an ordinary directory tree, and the POSIX
//! operations on it. If a draft is based on a version, its upper holds only the differences
//! (`overlay`, `base_xattr`). Must not know packs or the registry, and of versions only trees and
//! content ([`Lower`]). Invariants:
//! - A completed operation is in the upper file system.
//! - A frozen draft does not change.
//! - A node number is never used twice.
//! - No upper inode is in two drafts.
//! - A clean file or directory equals its lower content or tree.
//!
//! ```text
//! drafts/.lock                        held by the process that has the drafts open
//! drafts/.trash/<n>                   discarded, not yet deleted
//! drafts/.work/<n>                    being built, or left over; it gets its place by rename
//! drafts/<project>/<artifact>/tree/   the files
//! drafts/<project>/<artifact>/draft.json
//! ```
//!
//! Lock order: the names of one draft, then nodes, then handles, then freezes. The lock of names
//! may be held during a system call or a read of a tree from the store. The locks of nodes and
//! freezes are not.

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

pub(crate) use base_xattr::{ContentXattr, TreeXattr};
pub(crate) use directory::Listed;
pub use drafts::Drafts;
pub(crate) use freeze::Frozen;
pub use gates::BEING_WRITTEN;
pub(crate) use in_use::Writers;
pub(crate) use lower::Lower;
pub(crate) use node::NODE_BIT;
pub(crate) use open::Opened;
pub(crate) use posix::{Attr, Caller, SetAttr, Time};
pub(crate) use rebase::{Settled, give_to_store};
pub(crate) use record::{DraftProperties, DraftRecord};
pub(crate) use survey::{DraftFile, Upper, upper_entries};

/// The result of an operation; the error is an errno, mostly of the upper file system.
pub(crate) type Result<T> = std::result::Result<T, rustix::io::Errno>;
