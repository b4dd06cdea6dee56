//! The calls to a server that are not calls of its registry: they open a session, and have dead
//! bytes freed.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::access::{Principal, Role};
use crate::model::name::{TeamName, UserName};

/// The header with the id of the repository that a client means.
pub const REPOSITORY_HEADER: &str = "artifactfs-repository";

/// The reply to a caller that opens a served repository.
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

/// A call to the janitor, which frees dead bytes. Only a process that opens the registry and the store
/// itself can do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JanitorCall {
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
        /// True if the content that killed and failed puts stored is freed too.
        unfinished: bool,
    },
}

/// The result of such a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaned {
    /// The packs that lost their dead bytes.
    pub packs: u64,
    /// The bytes that were freed.
    pub freed_bytes: u64,
    /// The dead bytes that stay.
    pub left_bytes: u64,
}

/// The janitor of a served repository.
pub trait Janitor: Send + Sync {
    /// Makes a call.
    ///
    /// # Errors
    /// The errors of the server, and [`Kind::Unavailable`](crate::error::Kind::Unavailable) if the
    /// server cannot be reached.
    fn clean(&self, call: JanitorCall) -> Result<Cleaned>;
}
