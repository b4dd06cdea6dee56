//! Keys of users. The registry has their digests only.

use crate::error::{AccessHint, Error, Kind, Result};
use crate::model::access::{KeyId, KeyInfo, Principal, Role, UserInfo};
use crate::model::digest::Digest;
use crate::model::name::UserName;
use crate::model::time::Timestamp;
use crate::registry::NewKey;
use crate::registry::access::zones::refuse_unzoned;
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::paging::each_below;
use crate::registry::record;

/// The maximum number of keys of a user.
const KEYS_MAX: usize = 100;

/// Returns a user, or `NotFound`.
pub(super) fn known_user(view: &dyn View, name: &UserName) -> Result<UserInfo> {
    let bytes = view.get(&keys::account(name))?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("no user {name}")).hint(AccessHint::ListUsers)
    })?;
    record::decode(&bytes)
}

/// Records a key in the transaction that makes its user, or finds the user.
pub(super) fn put_key(
    transaction: &mut dyn Transaction,
    key: &NewKey,
    now: Timestamp,
) -> Result<KeyInfo> {
    let info = KeyInfo {
        id: KeyId::of(&key.digest),
        user: key.user.clone(),
        role: key.role,
        note: key.note.clone(),
        created: now,
        projects: key.projects.clone(),
        expires: key.life_milliseconds.map(|life| Timestamp(now.0.saturating_add(life))),
    };
    transaction.put(&keys::api_key(&key.digest), &record::encode_key(&info))?;
    Ok(info)
}

impl EngineRegistry {
    pub(in crate::registry) fn add_key(&self, key: &NewKey) -> Result<KeyInfo> {
        let now = (self.clock)();
        self.write_aside(Durability::Immediate, |transaction| {
            known_user(&*transaction, &key.user)?;
            if !key.projects.is_empty() {
                refuse_unzoned(&*transaction)?;
            }
            let mut owned = 0;
            each_below(&*transaction, Key::of(Space::ApiKey), &mut |_, bytes| {
                owned += usize::from(record::decode_key(bytes)?.user == key.user);
                Ok(())
            })?;
            if owned >= KEYS_MAX {
                let what = format!("{} has {owned} keys", key.user);
                return Err(Error::new(Kind::Conflict, what).hint(AccessHint::RevokeKeys));
            }
            put_key(transaction, key, now)
        })
    }

    pub(in crate::registry) fn keys(&self, user: Option<&UserName>) -> Result<Vec<KeyInfo>> {
        self.read(|view| {
            let mut found: Vec<KeyInfo> = Vec::new();
            each_below(view, Key::of(Space::ApiKey), &mut |_, bytes| {
                let key = record::decode_key(bytes)?;
                if user.is_none_or(|user| key.user == *user) {
                    found.push(key);
                }
                Ok(())
            })?;
            found.sort_by(|a, b| (&a.user, a.created, &a.id).cmp(&(&b.user, b.created, &b.id)));
            Ok(found)
        })
    }

    pub(in crate::registry) fn remove_key(
        &self,
        id: &KeyId,
        user: Option<&UserName>,
    ) -> Result<KeyInfo> {
        self.write_aside(Durability::Immediate, |transaction| {
            let mut found = None;
            each_below(&*transaction, Key::of(Space::ApiKey), &mut |at, bytes| {
                let key = record::decode_key(bytes)?;
                if key.id == *id && user.is_none_or(|user| key.user == *user) {
                    found = Some((at.to_vec(), key));
                }
                Ok(())
            })?;
            let (at, key) = found.ok_or_else(|| {
                Error::new(Kind::NotFound, format!("no key {id}")).hint(AccessHint::ListKeys)
            })?;
            transaction.delete(&at)?;
            Ok(key)
        })
    }

    pub(in crate::registry) fn authenticate(&self, digest: &Digest) -> Result<Option<Principal>> {
        let now = (self.clock)();
        self.read(|view| {
            let Some(bytes) = view.get(&keys::api_key(digest))? else { return Ok(None) };
            let key = record::decode_key(&bytes)?;
            let user = known_user(view, &key.user)?;
            let valid = !user.disabled && key.expires.is_none_or(|expires| now < expires);
            let KeyInfo { role, projects, .. } = key;
            let limit = role.unwrap_or(Role::Admin);
            Ok(valid.then_some(Principal { user: user.name, role: user.role, limit, projects }))
        })
    }
}
