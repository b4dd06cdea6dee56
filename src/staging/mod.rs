//! DRAFTS: what is written and not yet committed.
//!
//! Knows a scratch directory, in which every draft is an ordinary directory tree, and the POSIX
//! operations on it. Must not know versions, packs or the registry. Invariants: an operation that
//! was answered is in the host's file system; a draft that is frozen does not change; a node's
//! number is never used twice.
//!
//! ```text
//! drafts/.lock                        held by the process that has the drafts open
//! drafts/.trash/<n>                   thrown away, not yet deleted
//! drafts/<project>/<artifact>/tree/   the files
//! drafts/<project>/<artifact>/draft.json
//! ```
//!
//! Lock order: tree, then nodes, then handles, then gates. Only `tree` is held during a system
//! call.

mod directory;
mod gate;
mod handle;
mod io;
mod node;
mod posix;
mod record;
mod scratch;

pub use directory::Listed;
pub use gate::{DraftKey, Frozen};
pub use handle::OpenMode;
pub use node::NODE_BIT;
pub use posix::{Attr, Caller, SetAttr, Time};
pub use record::DraftRecord;
pub use scratch::{Drafts, Stats};

/// The host's error number is the answer.
pub type Result<T> = std::result::Result<T, rustix::io::Errno>;
