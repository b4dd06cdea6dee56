//! Users of a served repository, and their keys.

use super::repository::Repository;
use crate::error::Result;
use crate::model::access::{KeyId, KeyInfo, Role, UserInfo};
use crate::model::api_key::ApiKey;
use crate::model::name::UserName;
use crate::model::properties::parse_duration;
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
    /// The time after which it is not accepted any more, as people write it; `None`: never.
    pub life: Option<String>,
}

impl KeyRequest {
    fn of(self, user: UserName, key: &ApiKey) -> Result<NewKey> {
        let life_milliseconds = self.life.as_deref().map(parse_duration).transpose()?;
        let Self { role, note, .. } = self;
        Ok(NewKey { digest: key.digest(), user, role, note, life_milliseconds })
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
