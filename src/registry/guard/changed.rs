//! The names of the things that calls change, for the audit log.

use crate::registry::access::AccessCall;
use crate::registry::call::Call;
use crate::registry::groups::GroupsCall;
use crate::registry::names::NamesCall;
use crate::registry::runs::RunsCall;
use crate::registry::versions::VersionsCall;

/// Returns what a call changes, for the audit log; `None` for a call that changes nothing a person
/// knows by name.
pub fn changed(call: &Call) -> Option<String> {
    match call {
        Call::Names(NamesCall::UpdateArtifact { path, .. })
        | Call::Versions(VersionsCall::Expire { path, .. })
        | Call::Groups(GroupsCall::DiscardGroup { path, .. }) => Some(path.to_string()),
        Call::Names(NamesCall::ChangeAliases { reference, .. })
        | Call::Versions(
            VersionsCall::Delete { reference, .. } | VersionsCall::UpdateVersion { reference, .. },
        ) => Some(reference.to_string()),
        Call::Versions(VersionsCall::Commit { request, .. }) => {
            Some(request.version.path.to_string())
        }
        Call::Groups(GroupsCall::AddPart { part, .. }) => Some(part.path.to_string()),
        Call::Groups(GroupsCall::SealGroup { request, .. }) => {
            Some(request.commit.version.path.to_string())
        }
        Call::Runs(RunsCall::BeginRun { start, .. }) => Some(start.id.to_string()),
        Call::Runs(
            RunsCall::CrashRun { id, .. }
            | RunsCall::EndRun { id, .. }
            | RunsCall::RemoveRun { id },
        ) => Some(id.to_string()),
        Call::Runs(RunsCall::CreateSweep { sweep }) => Some(sweep.id.to_string()),
        Call::Access(AccessCall::AddAccount { key, .. } | AccessCall::AddKey { key }) => {
            Some(key.user.to_string())
        }
        Call::Access(AccessCall::ChangeAccount { name, .. }) => Some(name.to_string()),
        Call::Access(AccessCall::RemoveKey { id, .. }) => Some(id.to_string()),
        Call::Access(
            AccessCall::SetVisibility { project, .. } | AccessCall::SetMember { project, .. },
        ) => Some(project.to_string()),
        _ => None,
    }
}
