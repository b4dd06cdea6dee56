//! GROUPS: several writers make one version.

pub(super) mod part;

use super::subject::subject;
use crate::error::Result;
use crate::model::name::{ArtifactType, GroupName};
use crate::model::reference::ArtifactPath;
use crate::model::version::{AddedPart, Committed};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::{GroupInfo, LeaseId, NewPart, PartInfo, SealRequest};

subject! {
    /// Groups of parts.
    ///
    /// # Contract
    /// A caller may rely on this: a part is there whole or not at all, the sequence of a part is never used twice, and a
    /// group is sealed once with exactly the parts that were merged. An implementation counts one reference to the
    /// root of each open part. It needs the right to write to the artifact's project; listing needs the right to read it.
    Groups, GroupsCall;

    /// A group; a conflict when a part of type `wanted` could not be added to it.
    group = FindGroup(path: ArtifactPath, group: GroupName, wanted: Option<ArtifactType>) -> Option<GroupInfo>;
    /// A group that has open parts; a conflict when it is sealed.
    open_group = FindOpenGroup(path: ArtifactPath, group: GroupName) -> GroupInfo;
    /// The open groups of an artifact, or all, after one, at most `limit`.
    open_groups = OpenGroups(path: Option<ArtifactPath>, after: Option<(ArtifactPath, GroupName)>, limit: u32) -> Vec<GroupInfo>;
    /// The open parts of a group above `after`, ascending, at most `limit`.
    parts = Parts(path: ArtifactPath, group: GroupName, after: u64, limit: u32) -> Vec<PartInfo>;
    /// Adds a part to a group, which it begins when it is not there; stale when parts came that the
    /// writer wanted to see first.
    add_part = AddPart(lease: LeaseId, part: NewPart) -> AddedPart;
    /// Makes a version of a group and takes its parts away, in one transaction; stale when other parts
    /// are there than those that were merged.
    seal_group = SealGroup(lease: LeaseId, request: SealRequest) -> Committed;
    /// Takes the open parts of a group up to `last` away; what only they had is dead.
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
