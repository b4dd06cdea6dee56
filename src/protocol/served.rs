//! The calls to a server that are not calls of its registry: who the caller is, and work that needs
//! the repository's own hands.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::access::{Principal, Role};
use crate::model::name::{TeamName, UserName};

/// The header with the id of the repository that a client means.
pub const REPOSITORY_HEADER: &str = "artifactfs-repository";

/// The reply to a caller who opens a served repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// The name of the repository.
    pub team: TeamName,
    /// The caller.
    pub principal: Principal,
    /// The settings of the repository, as JSON.
    pub settings: String,
    /// The release of the server.
    pub release: String,
}

/// The user of a key, and what it opens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Whoami {
    /// The user.
    pub user: UserName,
    /// The repositories that the key opens, and the role in each.
    pub teams: Vec<(TeamName, Role)>,
    /// The release of the server.
    pub release: String,
}

/// Work that only a process with the repository's registry and store at hand can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeeperCall {
    /// Frees dead bytes soon; the reply does not wait for it.
    Nudge,
    /// Frees the bytes of collected objects; with `later`, only those of packs without a live
    /// object.
    Free {
        /// True if packs with live objects are left as they are.
        later: bool,
    },
    /// Frees dead bytes that were put off.
    Collect {
        /// The share of dead bytes, in percent, above which a pack is rewritten.
        garbage_percent: u64,
        /// True if what killed and failed puts stored is freed too.
        unfinished: bool,
    },
}

/// The result of such work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The packs that lost their dead bytes.
    pub packs: u64,
    /// The bytes that were freed.
    pub freed_bytes: u64,
    /// The dead bytes that stay.
    pub left_bytes: u64,
}

/// A receiver of such calls.
pub trait Keeper: Send + Sync {
    /// Does the work.
    ///
    /// # Errors
    /// The errors of the work, and [`Kind::Unavailable`](crate::error::Kind::Unavailable) if the
    /// server cannot be reached.
    fn keep(&self, call: KeeperCall) -> Result<Kept>;
}
