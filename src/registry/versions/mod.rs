//! VERSIONS: their commit in one transaction, their properties, and their deletion.

pub(super) mod commit;
pub(super) mod decide;
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

/// The level of detail of versions in a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// All fields except the metadata, which is an empty object.
    #[default]
    Brief,
    /// All fields.
    Full,
}

/// A request to make a version of a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The artifact and properties of the version.
    pub version: NewVersion,
    /// The root tree, which must be registered.
    pub root: Digest,
    /// The totals of the tree.
    pub totals: Totals,
}

impl CommitRequest {
    /// Returns a commit with default properties.
    pub fn plain(path: ArtifactPath, root: Digest) -> Self {
        Self { version: NewVersion::plain(path), root, totals: Totals::default() }
    }
}

/// A change of a version's properties; fields that are `None` or empty change nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Update {
    /// The new description.
    pub description: Option<String>,
    /// The new metadata, before `set` and `unset`.
    pub metadata: Option<Metadata>,
    /// The keys of metadata to set, with values as JSON.
    pub set: Vec<(String, String)>,
    /// The keys of metadata to remove.
    pub unset: Vec<String>,
    /// The new time to live.
    pub ttl: Option<Ttl>,
    /// The tags to add.
    pub tag: Vec<Tag>,
    /// The tags to remove.
    pub untag: Vec<Tag>,
}

subject! {
    /// The versions of artifacts.
    ///
    /// # Contract
    /// A version appears whole or not at all, and its number is never used twice. A commit that is
    /// repeated under the same lease returns the same result. An implementation counts one
    /// reference to the root while the version exists. Calls need the right to read a project; all
    /// but `versions`, `now` and `time_to_expire` need the right to write to it.
    Versions, VersionsCall;

    /// Returns the versions of an artifact above `after`, ascending, at most `limit`.
    versions = Versions(path: ArtifactPath, after: Option<VersionNumber>, limit: u32, detail: Detail) -> Page<VersionInfo>;
    /// Makes a version in one transaction, unless the newest one has the same tree and has not
    /// expired.
    commit = Commit(lease: LeaseId, request: CommitRequest) -> Committed;
    /// Changes the properties of a version.
    update = UpdateVersion(reference: Reference, update: Update) -> VersionInfo;
    /// Deletes a version; objects that only it referred to become unreachable. A conflict if it has
    /// aliases, unless `delete_aliases`, and if a protected alias keeps it.
    delete = Delete(reference: Reference, delete_aliases: bool) -> VersionInfo;
    /// Deletes a version and its aliases if it has expired; returns it then. A protected alias
    /// keeps a version from expiring.
    expire = Expire(path: ArtifactPath, number: VersionNumber) -> Option<VersionInfo>;
    /// Returns the registry's time.
    now = Now() -> Timestamp;
    /// Returns the registry's time, by which a caller deletes expired versions. A conflict if it is
    /// more than 8 days after the last change of the registry, unless `trusted`.
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
