//! Users.

use crate::error::{AccessHint, Error, Kind, Result};
use crate::model::access::{Role, UserInfo};
use crate::model::name::UserName;
use crate::registry::NewKey;
use crate::registry::access::keys::{known_user, put_key};
use crate::registry::engine::{Durability, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::paging::{Page, each_below, page};
use crate::registry::record;

/// Refuses a change that would leave no enabled admin; `changed` is the user as it would be.
fn refuse_no_admin(view: &dyn View, changed: &UserInfo) -> Result<()> {
    let rules = |user: &UserInfo| user.role == Role::Admin && !user.disabled;
    let mut left = rules(changed);
    each_below(view, Key::of(Space::Account), &mut |_, bytes| {
        let user: UserInfo = record::decode(bytes)?;
        left |= user.name != changed.name && rules(&user);
        Ok(())
    })?;
    if left {
        return Ok(());
    }
    let what = format!("{} is the only admin who can sign in", changed.name);
    Err(Error::new(Kind::Conflict, what).hint("make another user an admin first"))
}

impl EngineRegistry {
    pub(in crate::registry) fn add_account(&self, role: Role, key: &NewKey) -> Result<UserInfo> {
        let now = (self.clock)();
        let user = UserInfo { name: key.user.clone(), role, disabled: false, created: now };
        self.write_aside(Durability::Immediate, |transaction| {
            if let Some(bytes) = transaction.get(&keys::account(&user.name))? {
                // The same key shows that the call is repeated, because its reply was lost.
                if transaction.get(&keys::api_key(&key.digest))?.is_some() {
                    return record::decode(&bytes);
                }
                let what = format!("there is a user {} already", user.name);
                return Err(Error::new(Kind::Conflict, what).hint(AccessHint::MakeKey));
            }
            transaction.put(&keys::account(&user.name), &record::encode(&user))?;
            put_key(transaction, key, now)?;
            Ok(user.clone())
        })
    }

    pub(in crate::registry) fn accounts(
        &self,
        after: Option<&UserName>,
        limit: u32,
    ) -> Result<Page<UserInfo>> {
        self.read(|view| {
            let (start, end) = Key::of(Space::Account).range();
            let from = after.map_or(start, |name| keys::next(&keys::account(name)));
            let found = page(view, &from, &end, limit as usize)?;
            let items = found.items.iter().map(|(_, bytes)| record::decode(bytes));
            Ok(Page { items: items.collect::<Result<_>>()?, more: found.more })
        })
    }

    pub(in crate::registry) fn change_account(
        &self,
        name: &UserName,
        role: Option<Role>,
        disabled: Option<bool>,
    ) -> Result<UserInfo> {
        self.write_aside(Durability::Immediate, |transaction| {
            let mut user = known_user(&*transaction, name)?;
            user.role = role.unwrap_or(user.role);
            user.disabled = disabled.unwrap_or(user.disabled);
            refuse_no_admin(&*transaction, &user)?;
            transaction.put(&keys::account(name), &record::encode(&user))?;
            Ok(user)
        })
    }
}
