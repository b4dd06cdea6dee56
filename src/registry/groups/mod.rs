//! GROUPS: sets of parts by several writers that become one version.

mod decide;
pub(super) mod group;
mod part;

use super::subject::subject;
use crate::error::Result;
use crate::model::name::{ArtifactType, GroupName};
use crate::model::reference::ArtifactPath;
use crate::model::version::{AddedPart, Committed};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::{GroupInfo, LeaseId, NewPart, PartInfo, SealRequest};

subject! {
    /// The groups of parts.
    ///
    /// # Contract
    /// A part is added whole or not at all, and its sequence is never used twice. Each generation
    /// of a group is sealed at most once, with exactly the parts that were merged. An
    /// implementation counts one reference to the root of each open part. Calls need the right to
    /// write to the artifact's project; listing needs the right to read it.
    Groups, GroupsCall;

    /// Returns a group, if there is one. A conflict if a part of type `wanted` could not be added
    /// to it.
    group = FindGroup(path: ArtifactPath, group: GroupName, wanted: Option<ArtifactType>) -> Option<GroupInfo>;
    /// Returns a group that has open parts. A conflict if it is sealed.
    open_group = FindOpenGroup(path: ArtifactPath, group: GroupName) -> GroupInfo;
    /// Returns the open groups of an artifact (`None`: of all artifacts) above `after`, at most
    /// `limit`.
    open_groups = OpenGroups(path: Option<ArtifactPath>, after: Option<(ArtifactPath, GroupName)>, limit: u32) -> Vec<GroupInfo>;
    /// Returns the open parts of a group above `after`, ascending, at most `limit`.
    parts = Parts(path: ArtifactPath, group: GroupName, after: u64, limit: u32) -> Vec<PartInfo>;
    /// Adds a part to a group, and begins the group if there is none. Stale if the group has a part
    /// above `part.seen`.
    add_part = AddPart(lease: LeaseId, part: NewPart) -> AddedPart;
    /// Makes a version of a group and removes its parts, in one transaction. Stale if the parts are
    /// not those that were merged.
    seal_group = SealGroup(lease: LeaseId, request: SealRequest) -> Committed;
    /// Removes the open parts of a group up to `last`; objects that only they referred to become
    /// unreachable.
    discard_group = DiscardGroup(path: ArtifactPath, group: GroupName, last: u64) -> ();
}

impl Groups for EngineRegistry {
    fn group(
        &self,
        path: ArtifactPath,
        group: GroupName,
        wanted: Option<ArtifactType>,
    ) -> Result<Option<GroupInfo>> {
        self.group(&path, &group, wanted.as_ref())
    }

    fn open_group(&self, path: ArtifactPath, group: GroupName) -> Result<GroupInfo> {
        self.open_group(&path, &group)
    }

    fn open_groups(
        &self,
        path: Option<ArtifactPath>,
        after: Option<(ArtifactPath, GroupName)>,
        limit: u32,
    ) -> Result<Vec<GroupInfo>> {
        self.open_groups(path.as_ref(), after.as_ref(), limit)
    }

    fn parts(
        &self,
        path: ArtifactPath,
        group: GroupName,
        after: u64,
        limit: u32,
    ) -> Result<Vec<PartInfo>> {
        self.parts(&path, &group, after, limit)
    }

    fn add_part(&self, lease: LeaseId, part: NewPart) -> Result<AddedPart> {
        self.add_part(lease, &part)
    }

    fn seal_group(&self, lease: LeaseId, request: SealRequest) -> Result<Committed> {
        self.seal_group(lease, &request)
    }

    fn discard_group(&self, path: ArtifactPath, group: GroupName, last: u64) -> Result<()> {
        self.discard_group(&path, &group, last)
    }
}
