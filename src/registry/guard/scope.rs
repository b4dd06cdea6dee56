//! The scopes of calls: the subjects of each call, with the rights that it needs there.

use crate::model::access::Need;
use crate::model::name::{ProjectName, RunId, SweepId};
use crate::model::object::PackId;
use crate::model::reference::ArtifactPath;
use crate::registry::LeaseId;
use crate::registry::access::AccessCall;
use crate::registry::call::Call;
use crate::registry::groups::GroupsCall;
use crate::registry::leases::LeasesCall;
use crate::registry::names::NamesCall;
use crate::registry::objects::ObjectsCall;
use crate::registry::runs::RunsCall;
use crate::registry::versions::VersionsCall;

/// A subject of a call, with the right that the call needs there. A call may have several scopes, and
/// the guard checks each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// The whole team.
    Team(Need),
    /// The whole team, whose members alone may read its totals.
    Members,
    /// A project.
    Project(ProjectName, Need),
    /// The project of a lease.
    Lease(LeaseId),
    /// The project of a pack.
    Pack(PackId),
    /// The project of a run.
    Run(RunId, Need),
    /// A run that is begun, and the project of the run that has its id already.
    NewRun(RunId),
    /// The project of a sweep.
    Sweep(SweepId, Need),
    /// Any project: the arguments or the reply are narrowed to those that the caller may read.
    Each,
}

fn read(path: &ArtifactPath) -> Vec<Scope> {
    vec![Scope::Project(path.project.clone(), Need::Read)]
}

fn write(path: &ArtifactPath) -> Vec<Scope> {
    vec![Scope::Project(path.project.clone(), Need::Write)]
}

/// Returns the scopes of a call.
pub(super) fn scopes(call: &Call) -> Vec<Scope> {
    match call {
        Call::Names(call) => of_names(call),
        Call::Versions(call) => of_versions(call),
        Call::Objects(call) => of_objects(call),
        Call::Leases(call) => of_leases(call),
        Call::Runs(call) => of_runs(call),
        Call::Groups(call) => of_groups(call),
        Call::Upkeep(_) => vec![Scope::Team(Need::Nobody)],
        Call::Access(call) => of_access(call),
    }
}

fn of_names(call: &NamesCall) -> Vec<Scope> {
    match call {
        NamesCall::Projects {} | NamesCall::ChangesAfter { .. } => vec![Scope::Each],
        NamesCall::HasProject { project } | NamesCall::Artifacts { project, .. } => {
            vec![Scope::Project(project.clone(), Need::Read)]
        }
        NamesCall::FindArtifact { path } => read(path),
        NamesCall::Lookup { reference } => read(&reference.path),
        NamesCall::UpdateArtifact { path, .. } => write(path),
        NamesCall::ChangeAliases { reference, .. } => write(&reference.path),
    }
}

fn of_versions(call: &VersionsCall) -> Vec<Scope> {
    match call {
        VersionsCall::Now {} | VersionsCall::TimeToExpire { .. } => vec![Scope::Team(Need::Read)],
        VersionsCall::Versions { path, .. } => read(path),
        VersionsCall::Commit { lease, request } => {
            let mut scopes = write(&request.version.path);
            scopes.push(Scope::Lease(*lease));
            scopes.extend(request.version.run.clone().map(|run| Scope::Run(run, Need::Write)));
            scopes
        }
        VersionsCall::UpdateVersion { reference, .. } | VersionsCall::Delete { reference, .. } => {
            write(&reference.path)
        }
        VersionsCall::Expire { path, .. } => write(path),
    }
}

fn of_objects(call: &ObjectsCall) -> Vec<Scope> {
    match call {
        ObjectsCall::Info {} => vec![Scope::Members],
        ObjectsCall::CountAbsent {} => vec![Scope::Team(Need::Read)],
        ObjectsCall::LocateObjects { .. } | ObjectsCall::Doubt { .. } => vec![Scope::Each],
        ObjectsCall::FindPack { pack } => vec![Scope::Pack(*pack)],
        ObjectsCall::Missing { lease, .. }
        | ObjectsCall::RegisterPack { lease, .. }
        | ObjectsCall::AddObjects { lease, .. } => vec![Scope::Lease(*lease)],
    }
}

fn of_leases(call: &LeasesCall) -> Vec<Scope> {
    match call {
        LeasesCall::Leases {} => vec![Scope::Each],
        LeasesCall::Begin { project: Some(project), .. } => {
            vec![Scope::Project(project.clone(), Need::Write)]
        }
        LeasesCall::Begin { project: None, .. } => vec![Scope::Team(Need::Write)],
        LeasesCall::Adopt { lease, judged } => {
            vec![Scope::Lease(*lease), Scope::Lease(judged.lease)]
        }
        LeasesCall::Renew { lease }
        | LeasesCall::Release { lease }
        | LeasesCall::Leave { lease } => vec![Scope::Lease(*lease)],
        LeasesCall::EndLease { judged, .. } => vec![Scope::Lease(judged.lease)],
    }
}

fn of_runs(call: &RunsCall) -> Vec<Scope> {
    match call {
        RunsCall::BeginRun { start, .. } => {
            let sweep = start.sweep.clone().map(|sweep| Scope::Sweep(sweep, Need::Write));
            let own = [
                Scope::Project(start.project.clone(), Need::Write),
                Scope::NewRun(start.id.clone()),
            ];
            own.into_iter().chain(sweep).collect()
        }
        RunsCall::FindRun { id } | RunsCall::Rows { id, .. } | RunsCall::Edges { id, .. } => {
            vec![Scope::Run(id.clone(), Need::Read)]
        }
        RunsCall::Runs { project, .. } | RunsCall::Sweeps { project, .. } => {
            vec![Scope::Project(project.clone(), Need::Read)]
        }
        RunsCall::Heartbeat { id }
        | RunsCall::Log { id, .. }
        | RunsCall::CrashRun { id, .. }
        | RunsCall::EndRun { id, .. }
        | RunsCall::RemoveRun { id } => vec![Scope::Run(id.clone(), Need::Write)],
        RunsCall::LookupForRun { id, reference } => {
            let mut scopes = read(&reference.path);
            scopes.push(Scope::Run(id.clone(), Need::Write));
            scopes
        }
        RunsCall::AddUse { id, path, .. } => {
            let mut scopes = read(path);
            scopes.push(Scope::Run(id.clone(), Need::Write));
            scopes
        }
        RunsCall::Logger { path, .. } | RunsCall::Users { path, .. } => read(path),
        RunsCall::CreateSweep { sweep } => {
            vec![Scope::Project(sweep.project.clone(), Need::Write)]
        }
        RunsCall::FindSweep { id } | RunsCall::RunsOfSweep { id, .. } => {
            vec![Scope::Sweep(id.clone(), Need::Read)]
        }
    }
}

fn of_groups(call: &GroupsCall) -> Vec<Scope> {
    match call {
        GroupsCall::FindGroup { path, .. }
        | GroupsCall::FindOpenGroup { path, .. }
        | GroupsCall::OpenGroups { path: Some(path), .. }
        | GroupsCall::Parts { path, .. } => read(path),
        GroupsCall::OpenGroups { path: None, .. } => vec![Scope::Each],
        GroupsCall::AddPart { lease, part } => {
            let mut scopes = write(&part.path);
            scopes.push(Scope::Lease(*lease));
            scopes.extend(part.run.clone().map(|run| Scope::Run(run, Need::Write)));
            scopes
        }
        GroupsCall::SealGroup { lease, request } => {
            let version = &request.commit.version;
            let mut scopes = write(&version.path);
            scopes.push(Scope::Lease(*lease));
            scopes.extend(version.run.clone().map(|run| Scope::Run(run, Need::Write)));
            scopes
        }
        GroupsCall::DiscardGroup { path, .. } => write(path),
    }
}

fn of_access(call: &AccessCall) -> Vec<Scope> {
    match call {
        AccessCall::AddAccount { .. }
        | AccessCall::Accounts { .. }
        | AccessCall::ChangeAccount { .. }
        | AccessCall::AddKey { .. }
        | AccessCall::Keys { .. }
        | AccessCall::RemoveKey { .. } => vec![Scope::Team(Need::Admin)],
        AccessCall::Authenticate { .. } | AccessCall::ProjectOfZone { .. } => {
            vec![Scope::Team(Need::Nobody)]
        }
        AccessCall::IsZoned {} => vec![Scope::Team(Need::Read)],
        AccessCall::ZonedProjects { .. } => vec![Scope::Each],
        AccessCall::FindProjectAccess { project } => {
            vec![Scope::Project(project.clone(), Need::Read)]
        }
        AccessCall::SetVisibility { project, .. } | AccessCall::SetMember { project, .. } => {
            vec![Scope::Project(project.clone(), Need::Admin)]
        }
    }
}

/// Returns whether a call makes something that may not be there yet. Such a call is refused where
/// others reply that there is no such thing.
pub(super) fn makes(call: &Call) -> bool {
    matches!(
        call,
        Call::Versions(VersionsCall::Commit { .. })
            | Call::Objects(ObjectsCall::RegisterPack { .. } | ObjectsCall::AddObjects { .. })
            | Call::Leases(LeasesCall::Begin { .. } | LeasesCall::Adopt { .. })
            | Call::Runs(RunsCall::BeginRun { .. } | RunsCall::CreateSweep { .. })
            | Call::Groups(GroupsCall::AddPart { .. } | GroupsCall::SealGroup { .. })
            | Call::Access(AccessCall::SetVisibility { .. } | AccessCall::SetMember { .. })
    )
}
