//! The rights of calls: each call needs one, and calls of upkeep never cross a network.

use super::access::AccessCall;
use super::call::Call;
use super::groups::GroupsCall;
use super::leases::LeasesCall;
use super::names::NamesCall;
use super::objects::ObjectsCall;
use super::runs::RunsCall;
use super::versions::VersionsCall;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Principal, Role, decide};

/// Returns the right that a call needs. Calls about keys of the caller's own are decided by
/// [`check`].
pub fn need(call: &Call) -> Need {
    match call {
        Call::Names(call) => match call {
            NamesCall::Projects {}
            | NamesCall::HasProject { .. }
            | NamesCall::Artifacts { .. }
            | NamesCall::FindArtifact { .. }
            | NamesCall::Lookup { .. }
            | NamesCall::ChangesAfter { .. } => Need::Read,
            NamesCall::UpdateArtifact { .. } | NamesCall::ChangeAliases { .. } => Need::Write,
        },
        Call::Versions(call) => match call {
            VersionsCall::Versions { .. } | VersionsCall::Now {} => Need::Read,
            VersionsCall::Commit { .. }
            | VersionsCall::UpdateVersion { .. }
            | VersionsCall::Delete { .. }
            | VersionsCall::Expire { .. }
            | VersionsCall::TimeToExpire { .. } => Need::Write,
        },
        Call::Objects(call) => match call {
            ObjectsCall::Info {}
            | ObjectsCall::LocateObjects { .. }
            | ObjectsCall::FindPack { .. }
            | ObjectsCall::CountAbsent {} => Need::Read,
            ObjectsCall::Missing { .. }
            | ObjectsCall::RegisterPack { .. }
            | ObjectsCall::AddObjects { .. }
            | ObjectsCall::Doubt { .. } => Need::Write,
        },
        Call::Leases(call) => match call {
            LeasesCall::Leases {} => Need::Read,
            LeasesCall::Begin { .. }
            | LeasesCall::Adopt { .. }
            | LeasesCall::Renew { .. }
            | LeasesCall::Release { .. }
            | LeasesCall::Leave { .. }
            | LeasesCall::EndLease { .. } => Need::Write,
        },
        Call::Runs(call) => need_of_runs(call),
        Call::Groups(call) => match call {
            GroupsCall::FindGroup { .. }
            | GroupsCall::FindOpenGroup { .. }
            | GroupsCall::OpenGroups { .. }
            | GroupsCall::Parts { .. } => Need::Read,
            GroupsCall::AddPart { .. }
            | GroupsCall::SealGroup { .. }
            | GroupsCall::DiscardGroup { .. } => Need::Write,
        },
        Call::Upkeep(_) => Need::Nobody,
        Call::Access(call) => match call {
            AccessCall::AddAccount { .. }
            | AccessCall::Accounts { .. }
            | AccessCall::ChangeAccount { .. }
            | AccessCall::AddKey { .. }
            | AccessCall::Keys { .. }
            | AccessCall::RemoveKey { .. } => Need::Admin,
            AccessCall::Authenticate { .. } => Need::Nobody,
        },
    }
}

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
        _ => None,
    }
}

fn need_of_runs(call: &RunsCall) -> Need {
    match call {
        RunsCall::FindRun { .. }
        | RunsCall::Runs { .. }
        | RunsCall::Rows { .. }
        | RunsCall::Edges { .. }
        | RunsCall::Logger { .. }
        | RunsCall::Users { .. }
        | RunsCall::FindSweep { .. }
        | RunsCall::Sweeps { .. }
        | RunsCall::RunsOfSweep { .. } => Need::Read,
        RunsCall::BeginRun { .. }
        | RunsCall::Heartbeat { .. }
        | RunsCall::Log { .. }
        | RunsCall::CrashRun { .. }
        | RunsCall::EndRun { .. }
        | RunsCall::RemoveRun { .. }
        | RunsCall::LookupForRun { .. }
        | RunsCall::AddUse { .. }
        | RunsCall::CreateSweep { .. } => Need::Write,
    }
}

/// Checks that `principal` may make a call. Narrows a call about keys to those of the caller, if
/// the caller may not administer those of others; a key never allows more than the one that made
/// it.
///
/// # Errors
/// [`Kind::Denied`] if not.
pub fn check(principal: &Principal, call: &mut Call) -> Result<()> {
    if decide(principal.role, need(call)) {
        return Ok(());
    }
    let Call::Access(access) = call else { return Err(denied(principal)) };
    match access {
        AccessCall::Keys { user } if user.as_ref().is_none_or(|user| *user == principal.user) => {
            *user = Some(principal.user.clone());
        }
        AccessCall::RemoveKey { user, .. } => *user = Some(principal.user.clone()),
        AccessCall::AddKey { key } if key.user == principal.user => {
            let narrowed = key.role.map_or(principal.role, |role| role.min(principal.role));
            key.role = Some(narrowed);
        }
        _ => return Err(denied(principal)),
    }
    Ok(())
}

/// Builds the error of a request for which the role of `principal` does not suffice.
pub fn denied(principal: &Principal) -> Error {
    let Principal { user, role } = principal;
    let hint = match role {
        Role::Reader => "a reader changes nothing: ask an admin of the team for the role of writer",
        Role::Writer | Role::Admin => {
            "only an admin of the team may do that, on the server itself \
            if it needs the store"
        }
    };
    Error::new(Kind::Denied, format!("{user} has the role {role} here, which does not suffice"))
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;
    use crate::registry::NewKey;

    fn principal(role: Role) -> Principal {
        Principal { user: "ann".parse().unwrap(), role }
    }

    fn add_key(user: &str, role: Option<Role>) -> Call {
        let digest = Digest::from_bytes([1; 32]);
        let (user, note) = (user.parse().unwrap(), String::new());
        AccessCall::AddKey { key: NewKey { digest, user, role, note, life_milliseconds: None } }
            .into()
    }

    #[test]
    fn a_key_never_allows_more_than_the_key_that_made_it() {
        for (asked, given) in [
            (None, Role::Reader),
            (Some(Role::Admin), Role::Reader),
            (Some(Role::Reader), Role::Reader),
        ] {
            let mut call = add_key("ann", asked);
            check(&principal(Role::Reader), &mut call).unwrap();
            let Call::Access(AccessCall::AddKey { key }) = call else { panic!() };
            assert_eq!(key.role, Some(given));
        }
        for role in [Role::Reader, Role::Writer] {
            let error = check(&principal(role), &mut add_key("bob", None)).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied);
        }
        check(&principal(Role::Admin), &mut add_key("bob", None)).unwrap();
    }

    #[test]
    fn who_is_no_admin_lists_and_revokes_own_keys_only() {
        let mut call = AccessCall::Keys { user: None }.into();
        check(&principal(Role::Writer), &mut call).unwrap();
        assert!(
            matches!(call, Call::Access(AccessCall::Keys { user: Some(user) }) if user.as_str() == "ann")
        );
        let others = AccessCall::Keys { user: Some("bob".parse().unwrap()) };
        assert!(check(&principal(Role::Writer), &mut others.into()).is_err());
        let mut call =
            AccessCall::RemoveKey { id: "0123456789ab".parse().unwrap(), user: None }.into();
        check(&principal(Role::Reader), &mut call).unwrap();
        assert!(matches!(call, Call::Access(AccessCall::RemoveKey { user: Some(_), .. })));
    }

    #[test]
    fn nobody_does_upkeep_over_a_network() {
        for role in Role::ALL {
            let upkeep = crate::registry::UpkeepCall::FindMaintenance {};
            assert!(check(&principal(role), &mut upkeep.into()).is_err());
            let digest = Digest::from_bytes([1; 32]);
            let mut call = AccessCall::Authenticate { digest }.into();
            assert!(check(&principal(role), &mut call).is_err());
        }
    }
}
