//! VERSIONS: made in one transaction, described, and deleted.

pub(super) mod commit;
pub(super) mod delete;

use serde::{Deserialize, Serialize};

use super::subject::subject;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::metadata::Metadata;
use crate::model::name::{Tag, VersionNumber};
use crate::model::new_version::NewVersion;
use crate::model::properties::Ttl;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::time::Timestamp;
use crate::model::version::{Committed, Totals, VersionInfo};
use crate::registry::LeaseId;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::paging::Page;

/// How much is told of each version in a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// All but the metadata, which stands as an empty object.
    #[default]
    Brief,
    /// All.
    Full,
}

/// A commit: a version of a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The version.
    pub version: NewVersion,
    /// The root tree, which must be registered.
    pub root: Digest,
    /// What is in it.
    pub totals: Totals,
}

impl CommitRequest {
    /// A commit of which nothing more is said.
    pub fn plain(path: ArtifactPath, root: Digest) -> Self {
        Self { version: NewVersion::plain(path), root, totals: Totals::default() }
    }
}

/// A change of what is said about a version; what is `None` or empty stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Update {
    /// The whole description.
    pub description: Option<String>,
    /// The whole metadata.
    pub metadata: Option<Metadata>,
    /// Keys to set, with values as JSON.
    pub set: Vec<(String, String)>,
    /// Keys to remove.
    pub unset: Vec<String>,
    /// How long it lives.
    pub ttl: Option<Ttl>,
    /// Tags to add.
    pub tag: Vec<Tag>,
    /// Tags to remove.
    pub untag: Vec<Tag>,
}

subject! {
    /// Versions of an artifact.
    ///
    /// # Contract
    /// A caller may rely on this: a version appears whole or not at all, its number is never used twice, and a commit that
    /// is repeated under the same lease gives the same answer. An implementation counts one reference to the root while
    /// the version is there. It needs the right to read a project; all but `versions`, `now` and `time_to_expire` need
    /// the right to write to it.
    Versions, VersionsCall;

    /// The versions of an artifact above `after`, ascending, at most `limit`.
    versions = Versions(path: ArtifactPath, after: Option<VersionNumber>, limit: u32, detail: Detail) -> Page<VersionInfo>;
    /// Makes a version, in one transaction.
    commit = Commit(lease: LeaseId, request: CommitRequest) -> Committed;
    /// Changes what is said about a version.
    update = UpdateVersion(reference: Reference, update: Update) -> VersionInfo;
    /// Takes a version away; what only it had is dead. With aliases it is refused unless told, with a protected one always.
    delete = Delete(reference: Reference, delete_aliases: bool) -> VersionInfo;
    /// Takes a version away with its aliases if its time is over by now, and no alias protects it.
    expire = Expire(path: ArtifactPath, number: VersionNumber) -> Option<VersionInfo>;
    /// The registry's time.
    now = Now() -> Timestamp;
    /// The registry's time, for those who delete what is over by it: refused when it is far beyond the last time
    /// that the registry was changed, unless `trusted`.
    time_to_expire = TimeToExpire(trusted: bool) -> Timestamp;
}

impl Versions for EngineRegistry {
    fn versions(
        &self,
        path: ArtifactPath,
        after: Option<VersionNumber>,
        limit: u32,
        detail: Detail,
    ) -> Result<Page<VersionInfo>> {
        self.versions(&path, after, limit, detail)
    }

    fn commit(&self, lease: LeaseId, request: CommitRequest) -> Result<Committed> {
        self.commit(lease, &request)
    }

    fn update(&self, reference: Reference, update: Update) -> Result<VersionInfo> {
        self.update(&reference, &update)
    }

    fn delete(&self, reference: Reference, delete_aliases: bool) -> Result<VersionInfo> {
        self.delete(&reference, delete_aliases)
    }

    fn expire(&self, path: ArtifactPath, number: VersionNumber) -> Result<Option<VersionInfo>> {
        self.expire(&path, number)
    }

    fn now(&self) -> Result<Timestamp> {
        Ok((self.clock)())
    }

    fn time_to_expire(&self, trusted: bool) -> Result<Timestamp> {
        self.time_to_expire(trusted)
    }
}
