//! ACCESS: the users of a served repository, their keys, and the visibility and members of projects.

mod accounts;
mod keys;
mod projects;
pub(super) mod zones;

use super::subject::subject;
use crate::error::Result;
use crate::model::access::{KeyId, KeyInfo, Principal, ProjectAccess, Role, UserInfo, Visibility};
use crate::model::digest::Digest;
use crate::model::name::{ProjectName, UserName};
use crate::model::zone::Zone;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::paging::Page;
use serde::{Deserialize, Serialize};

/// A key to be recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewKey {
    /// The digest of the key, which is not known itself.
    pub digest: Digest,
    /// The user.
    pub user: UserName,
    /// The most that the key allows; `None`: the role of the user.
    pub role: Option<Role>,
    /// The projects for which it is accepted; empty: all.
    pub projects: Vec<ProjectName>,
    /// The purpose of the key.
    pub note: String,
    /// The time after which the key is no longer accepted, in milliseconds from now; `None`: never.
    pub life_milliseconds: Option<u64>,
}

subject! {
    /// The users of a served repository, their keys, and the visibility and members of projects.
    ///
    /// # Contract
    /// A registry knows a key by its digest alone. A key that was revoked, has expired or belongs
    /// to a disabled user is not accepted from the next call on. There is always an enabled admin
    /// once there was one. `authenticate` and `project_of_zone` need no right and are never offered
    /// over a network. Calls about a project need the right to administer it, or to read it;
    /// all others need the right to administer the team, except that a user may make, list and
    /// revoke keys of their own.
    Access, AccessCall;

    /// Makes a user with a first key. A conflict if there is one of that name.
    add_account = AddAccount(role: Role, key: NewKey) -> UserInfo;
    /// Returns the users above `after`, in the order of names, at most `limit`.
    accounts = Accounts(after: Option<UserName>, limit: u32) -> Page<UserInfo>;
    /// Changes the role of a user, or whether the user's keys are accepted. A conflict if no
    /// enabled admin would be left.
    change_account = ChangeAccount(name: UserName, role: Option<Role>, disabled: Option<bool>) -> UserInfo;
    /// Records a key of a user.
    add_key = AddKey(key: NewKey) -> KeyInfo;
    /// Returns the keys of a user (`None`: of all users).
    keys = Keys(user: Option<UserName>) -> Vec<KeyInfo>;
    /// Revokes a key. `user` is the user whose key it must be (`None`: anybody's).
    remove_key = RemoveKey(id: KeyId, user: Option<UserName>) -> KeyInfo;
    /// Returns who a key belongs to, if it is accepted now.
    authenticate = Authenticate(digest: Digest) -> Option<Principal>;
    /// Returns whether each project is a zone. It never changes once there is a project.
    is_zoned = IsZoned() -> bool;
    /// Returns the zone, visibility and members of a project, which need not exist.
    project_access = FindProjectAccess(project: ProjectName) -> ProjectAccess;
    /// Returns the projects that have a zone above `after`, in the order of names, at most `limit`.
    zoned_projects = ZonedProjects(after: Option<ProjectName>, limit: u32) -> Page<ProjectAccess>;
    /// Returns the project of a zone, if there is such a zone. It never changes.
    project_of_zone = ProjectOfZone(zone: Zone) -> Option<ProjectName>;
    /// Changes the visibility of a project, which need not exist yet. Unsupported if the repository
    /// is not zoned.
    set_visibility = SetVisibility(project: ProjectName, visibility: Visibility) -> ProjectAccess;
    /// Makes a user a member of a project, changes the role of a member, or removes one (`None`).
    /// Unsupported if the repository is not zoned.
    set_member = SetMember(project: ProjectName, user: UserName, role: Option<Role>) -> ProjectAccess;
}

impl Access for EngineRegistry {
    fn add_account(&self, role: Role, key: NewKey) -> Result<UserInfo> {
        self.add_account(role, &key)
    }

    fn accounts(&self, after: Option<UserName>, limit: u32) -> Result<Page<UserInfo>> {
        self.accounts(after.as_ref(), limit)
    }

    fn change_account(
        &self,
        name: UserName,
        role: Option<Role>,
        disabled: Option<bool>,
    ) -> Result<UserInfo> {
        self.change_account(&name, role, disabled)
    }

    fn add_key(&self, key: NewKey) -> Result<KeyInfo> {
        self.add_key(&key)
    }

    fn keys(&self, user: Option<UserName>) -> Result<Vec<KeyInfo>> {
        self.keys(user.as_ref())
    }

    fn remove_key(&self, id: KeyId, user: Option<UserName>) -> Result<KeyInfo> {
        self.remove_key(&id, user.as_ref())
    }

    fn authenticate(&self, digest: Digest) -> Result<Option<Principal>> {
        self.authenticate(&digest)
    }

    fn is_zoned(&self) -> Result<bool> {
        self.read(|view| zones::is_zoned(view))
    }

    fn project_access(&self, project: ProjectName) -> Result<ProjectAccess> {
        self.project_access(&project)
    }

    fn zoned_projects(
        &self,
        after: Option<ProjectName>,
        limit: u32,
    ) -> Result<Page<ProjectAccess>> {
        self.zoned_projects(after.as_ref(), limit)
    }

    fn project_of_zone(&self, zone: Zone) -> Result<Option<ProjectName>> {
        self.project_of_zone(zone)
    }

    fn set_visibility(
        &self,
        project: ProjectName,
        visibility: Visibility,
    ) -> Result<ProjectAccess> {
        self.set_visibility(&project, visibility)
    }

    fn set_member(
        &self,
        project: ProjectName,
        user: UserName,
        role: Option<Role>,
    ) -> Result<ProjectAccess> {
        self.set_member(&project, &user, role)
    }
}
