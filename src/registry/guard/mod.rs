//! The rights of calls: each call needs one in each project that it is about, and calls of upkeep never
//! cross a network.
//!
//! A project that the caller may not read seems absent: the guard makes such a call on an empty
//! registry, whose reply is the same, word for word.

mod changed;
mod narrow;
mod rights;
mod scope;

use std::sync::{Arc, OnceLock};

use super::access::AccessCall;
use super::call::{Call, dispatch};
use super::engine::memory::MemoryEngine;
use super::engine_registry::EngineRegistry;
use super::objects::ObjectsCall;
use super::{LeaseId, Registry};
use crate::error::{Error, Kind, Result};
use crate::model::access::{Level, Need, Principal, Role};
use crate::model::name::ProjectName;
use crate::model::object::PackId;
use crate::model::time::Timestamp;
use crate::model::zone::Zone;
pub use changed::changed;
pub use narrow::changes;
pub use rights::Rights;
use rights::{in_team, level_in};
use scope::{Scope, makes, scopes};

/// The decision about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The guard makes the call.
    Allowed,
    /// The guard makes the call on an empty registry.
    Hidden,
    /// The guard refuses the call.
    Denied,
}

/// Makes a call of a caller with these rights, and returns its encoded reply. `make` makes calls
/// that are not narrowed.
///
/// # Errors
/// [`Kind::Denied`] if the caller may not make it, and the errors of the call.
pub fn answer(
    rights: &dyn Rights,
    registry: &dyn Registry,
    mut call: Call,
    make: impl FnOnce(Call) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    if narrow_to_own_keys(rights.principal(), &mut call) {
        return make(call);
    }
    match judge(rights, &call)? {
        Verdict::Allowed => narrow::narrow(rights, registry, call)?.map_or_else(make, Ok),
        Verdict::Hidden => {
            // This look takes the time that the look-up of an absent name would take.
            registry.project_of_zone(Zone::LAST)?;
            dispatch(empty(), call)
        }
        Verdict::Denied => Err(denied(rights.principal())),
    }
}

/// Checks that a caller has a right in the project of a pack.
///
/// # Errors
/// [`Kind::NotFound`] if the caller may not read there, [`Kind::Denied`] without the right.
pub fn check_pack(rights: &dyn Rights, pack: PackId, need: Need) -> Result<()> {
    match of_level(rights, level_in(rights, pack.zone())?, need, false) {
        Verdict::Allowed => Ok(()),
        Verdict::Hidden => Err(Error::new(Kind::NotFound, format!("no pack {pack}"))),
        Verdict::Denied => Err(denied(rights.principal())),
    }
}

/// Returns a registry without anything in it. No call that makes something reaches it.
fn empty() -> &'static EngineRegistry {
    static EMPTY: OnceLock<EngineRegistry> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let engine = Box::new(MemoryEngine::default());
        let empty = EngineRegistry::open(engine, Arc::new(|| Timestamp(0)));
        let empty = empty.expect("a map in memory opens");
        empty.make_zoned().expect("it has nothing in it");
        empty
    })
}

/// Returns whether a call changes nothing, as far as rights go.
pub fn only_reads(call: &Call) -> bool {
    let doubts = matches!(call, Call::Objects(ObjectsCall::Doubt { .. }));
    let reads = |scope: &Scope| match scope {
        Scope::Team(need)
        | Scope::Project(_, need)
        | Scope::Run(_, need)
        | Scope::Sweep(_, need) => *need == Need::Read,
        Scope::Members | Scope::Pack(_) | Scope::Each => true,
        Scope::Lease(_) | Scope::NewRun(_) => false,
    };
    !doubts && scopes(call).iter().all(reads)
}

/// Returns the project that a call is about, for the log of refusals; empty if it is about none.
pub fn about(call: &Call) -> String {
    let project = scopes(call).into_iter().find_map(|scope| match scope {
        Scope::Project(project, _) => Some(project.to_string()),
        _ => None,
    });
    project.unwrap_or_default()
}

/// Returns the decision about a call: the strictest of those in its scopes.
fn judge(rights: &dyn Rights, call: &Call) -> Result<Verdict> {
    let mut verdict = Verdict::Allowed;
    for scope in scopes(call) {
        match in_scope(rights, &scope, makes(call))? {
            Verdict::Denied => return Ok(Verdict::Denied),
            Verdict::Hidden => verdict = Verdict::Hidden,
            Verdict::Allowed => {}
        }
    }
    Ok(verdict)
}

fn in_scope(rights: &dyn Rights, scope: &Scope, makes: bool) -> Result<Verdict> {
    let principal = rights.principal();
    let allowed = |allowed: bool| if allowed { Verdict::Allowed } else { Verdict::Denied };
    Ok(match scope {
        Scope::Each => Verdict::Allowed,
        Scope::Team(need) => allowed(principal.may(*need)),
        Scope::Members => {
            let guest = principal.narrowed() == Role::Guest;
            allowed(!guest && principal.projects.is_empty())
        }
        Scope::Project(project, need) => of_level(rights, rights.level(project)?, *need, makes),
        Scope::Lease(lease) => of_lease(rights, *lease, makes)?,
        Scope::Pack(pack) => of_level(rights, level_in(rights, pack.zone())?, Need::Read, makes),
        Scope::Run(run, need) => {
            let absent = || empty().run(run).map(drop);
            of_id(rights, rights.project_of_run(run)?, *need, makes, absent)?
        }
        Scope::NewRun(run) => match rights.project_of_run(run)? {
            Some(project) => of_level(rights, rights.level(&project)?, Need::Write, makes),
            None => Verdict::Allowed,
        },
        Scope::Sweep(sweep, need) => {
            let absent = || empty().sweep(sweep).map(drop);
            of_id(rights, rights.project_of_sweep(sweep)?, *need, makes, absent)?
        }
    })
}

/// Returns the decision about a run or sweep of a project; `None`: it does not exist. The guard does
/// not look it up again, because another caller may make it at this moment.
///
/// # Errors
/// The error of `absent`, if the call makes something else and the caller may not read the project.
fn of_id(
    rights: &dyn Rights,
    project: Option<ProjectName>,
    need: Need,
    makes: bool,
    absent: impl FnOnce() -> Result<()>,
) -> Result<Verdict> {
    let level = project.map_or(Ok(Level::None), |project| rights.level(&project))?;
    if level == Level::None && makes {
        absent()?;
    }
    match level {
        Level::None => Ok(Verdict::Hidden),
        level => Ok(of_level(rights, level, need, makes)),
    }
}

fn of_lease(rights: &dyn Rights, lease: LeaseId, makes: bool) -> Result<Verdict> {
    // In a zoned repository such a lease keeps nothing.
    if lease.zone() == Zone::WHOLE {
        return Ok(of_level(rights, in_team(rights.principal()), Need::Write, makes));
    }
    Ok(of_level(rights, level_in(rights, lease.zone())?, Need::Write, makes))
}

/// Returns the decision that these rights give. It is the same for a project that the caller may not
/// read as for an absent one.
fn of_level(rights: &dyn Rights, level: Level, need: Need, makes: bool) -> Verdict {
    if level.suffices(need) {
        return Verdict::Allowed;
    }
    let absent_suffices = in_team(rights.principal()).suffices(need);
    match level == Level::None && (need == Need::Read || absent_suffices && !makes) {
        true => Verdict::Hidden,
        false => Verdict::Denied,
    }
}

/// Narrows a call about keys to those of the caller, if the caller may not administer those of
/// others, and returns whether it is one that may be made now. A key never allows more than the one
/// that made it.
fn narrow_to_own_keys(principal: &Principal, call: &mut Call) -> bool {
    let Call::Access(access) = call else { return false };
    if principal.may(Need::Admin) {
        return false;
    }
    match access {
        AccessCall::Keys { user } if user.as_ref().is_none_or(|user| *user == principal.user) => {
            *user = Some(principal.user.clone());
        }
        AccessCall::RemoveKey { user, .. } => *user = Some(principal.user.clone()),
        AccessCall::AddKey { key } if key.user == principal.user => {
            let narrowed = key.role.unwrap_or(Role::Admin).at_most(principal.limit);
            key.role = Some(narrowed).filter(|role| *role != Role::Admin);
            let sees = |project: &ProjectName| principal.projects.contains(project);
            if !principal.projects.is_empty() {
                match key.projects.is_empty() {
                    true => key.projects.clone_from(&principal.projects),
                    false if key.projects.iter().all(sees) => {}
                    false => return false,
                }
            }
        }
        _ => return false,
    }
    true
}

/// Builds the error of a request for which the rights of `principal` do not suffice.
pub fn denied(principal: &Principal) -> Error {
    let user = &principal.user;
    if !principal.projects.is_empty() {
        let what = format!("the key of {user} is for some projects only, and does not suffice");
        return Error::new(Kind::Denied, what).hint("use a key for the whole team");
    }
    let role = principal.narrowed();
    let hint = match role {
        Role::Guest => {
            "a guest is no member of the team: ask an admin of the team or of the project"
        }
        Role::Reader => {
            "a reader changes nothing: ask an admin of the team for the role of writer, or an admin of \
             the project to make you a member"
        }
        Role::Writer | Role::Admin => {
            "only an admin of the team or of the project may do that, on the server itself if it \
             needs the store"
        }
    };
    Error::new(Kind::Denied, format!("{user} has the role {role} here, which does not suffice"))
        .hint(hint)
}

#[cfg(test)]
mod tests;
