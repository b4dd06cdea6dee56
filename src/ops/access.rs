//! Users of a served repository, their keys, and the visibility and members of projects.

use std::collections::BTreeMap;

use super::repository::Repository;
use crate::error::Result;
use crate::model::access::{KeyId, KeyInfo, ProjectAccess, Role, UserInfo, Visibility};
use crate::model::api_key::ApiKey;
use crate::model::name::{ProjectName, UserName};
use crate::model::properties::parse_duration;
use crate::model::version::ProjectInfo;
use crate::registry::NewKey;

/// The number of users read at once.
const PAGE: u32 = 500;

/// A request for a key.
#[derive(Debug, Clone, Default)]
pub struct KeyRequest {
    /// The most that the key allows; `None`: the role of the user.
    pub role: Option<Role>,
    /// The purpose of the key.
    pub note: String,
    /// The projects for which it is accepted; empty: all.
    pub projects: Vec<ProjectName>,
    /// The time after which it is not accepted any more, as people write it; `None`: never.
    pub life: Option<String>,
}

impl KeyRequest {
    fn of(self, user: UserName, key: &ApiKey) -> Result<NewKey> {
        let life_milliseconds = self.life.as_deref().map(parse_duration).transpose()?;
        let Self { role, projects, note, .. } = self;
        Ok(NewKey { digest: key.digest(), user, role, projects, note, life_milliseconds })
    }
}

/// Makes a user with a first key, which is not kept.
///
/// # Errors
/// [`Kind::Conflict`](crate::error::Kind::Conflict) if there is one of that name.
pub fn create_user(
    repository: &Repository,
    name: UserName,
    role: Role,
    request: KeyRequest,
) -> Result<(UserInfo, ApiKey)> {
    let key = ApiKey::new(&repository.host);
    let user = repository.registry.add_account(role, request.of(name, &key)?)?;
    Ok((user, key))
}

/// Returns all users, in the order of names.
///
/// # Errors
/// The errors of the registry.
pub fn users(repository: &Repository) -> Result<Vec<UserInfo>> {
    let mut all: Vec<UserInfo> = Vec::new();
    loop {
        let after = all.last().map(|user| user.name.clone());
        let page = repository.registry.accounts(after, PAGE)?;
        let more = page.more && !page.items.is_empty();
        all.extend(page.items);
        if !more {
            return Ok(all);
        }
    }
}

/// Changes the role of a user, or whether the user's keys are accepted.
///
/// # Errors
/// [`Kind::Conflict`](crate::error::Kind::Conflict) if no enabled admin would be left.
pub fn change_user(
    repository: &Repository,
    name: UserName,
    role: Option<Role>,
    disabled: Option<bool>,
) -> Result<UserInfo> {
    repository.registry.change_account(name, role, disabled)
}

/// Makes a key, which is not kept.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if there is no such user.
pub fn create_key(
    repository: &Repository,
    user: UserName,
    request: KeyRequest,
) -> Result<(KeyInfo, ApiKey)> {
    let key = ApiKey::new(&repository.host);
    Ok((repository.registry.add_key(request.of(user, &key)?)?, key))
}

/// Returns the keys of a user (`None`: all that the caller may see).
///
/// # Errors
/// The errors of the registry.
pub fn keys(repository: &Repository, user: Option<UserName>) -> Result<Vec<KeyInfo>> {
    repository.registry.keys(user)
}

/// Revokes a key.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) if there is no such key.
pub fn revoke_key(repository: &Repository, id: KeyId) -> Result<KeyInfo> {
    repository.registry.remove_key(id, None)
}

/// Returns the visibility and members of each project that the caller may see, in the order of names.
///
/// # Errors
/// The errors of the registry.
pub fn projects(repository: &Repository) -> Result<Vec<ProjectAccess>> {
    let registry = &repository.registry;
    let mut all = BTreeMap::new();
    // An admin can set the visibility of a project before it exists.
    let mut after = None;
    loop {
        let page = registry.zoned_projects(after, PAGE)?;
        let more = page.more && !page.items.is_empty();
        after = page.items.last().map(|access| access.project.clone());
        all.extend(page.items.into_iter().map(|access| (access.project.clone(), access)));
        if !more {
            break;
        }
    }
    for ProjectInfo { name, .. } in registry.projects()? {
        all.entry(name.clone()).or_insert_with(|| ProjectAccess::unchanged(name, None));
    }
    Ok(all.into_values().collect())
}

/// Returns the visibility and members of a project, which need not exist.
///
/// # Errors
/// The errors of the registry.
pub fn project(repository: &Repository, project: ProjectName) -> Result<ProjectAccess> {
    repository.registry.project_access(project)
}

/// Changes the visibility of a project, which need not exist yet.
///
/// # Errors
/// [`Kind::Unsupported`](crate::error::Kind::Unsupported) if projects share bytes.
pub fn set_visibility(
    repository: &Repository,
    project: ProjectName,
    visibility: Visibility,
) -> Result<ProjectAccess> {
    repository.registry.set_visibility(project, visibility)
}

/// Makes a user a member of a project, changes the role of a member, or removes one (`None`).
///
/// # Errors
/// [`Kind::Unsupported`](crate::error::Kind::Unsupported) if projects share bytes,
/// [`Kind::NotFound`](crate::error::Kind::NotFound) for a user or member that is not there.
pub fn set_member(
    repository: &Repository,
    project: ProjectName,
    user: UserName,
    role: Option<Role>,
) -> Result<ProjectAccess> {
    repository.registry.set_member(project, user, role)
}
