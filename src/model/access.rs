//! Rights: roles of people and services, what a request needs, and the one decision between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::{NameError, UserName};
use super::time::Timestamp;

/// The role of a user in a team, from the least to the most powerful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The role that allows reading.
    Reader,
    /// The role that also allows logging and changing versions and runs.
    Writer,
    /// The role that also allows managing users, and calls that work on the whole repository.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Writer, Self::Admin];

    /// Returns the word for the role.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|role| role.word() == text);
        found.ok_or_else(|| NameError::new("role", text.as_bytes(), "reader, writer or admin"))
    }
}

/// The right that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The right to see names and content.
    Read,
    /// The right to log and change versions and runs.
    Write,
    /// The right to administer the team.
    Admin,
    /// The right to call functions that need the registry and the store themselves. No user has it
    /// over a network.
    Nobody,
}

impl Need {
    /// All rights.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Admin, Self::Nobody];
}

/// Decides whether a role suffices for a request.
pub const fn decide(role: Role, need: Need) -> bool {
    match (role, need) {
        (_, Need::Read)
        | (Role::Writer | Role::Admin, Need::Write)
        | (Role::Admin, Need::Admin) => true,
        (Role::Reader, Need::Write | Need::Admin)
        | (Role::Writer, Need::Admin)
        | (_, Need::Nobody) => false,
    }
}

/// The user who makes a request, with the role that the key gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The user.
    pub user: UserName,
    /// The user's role, narrowed by that of the key.
    pub role: Role,
}

/// A user in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The name.
    pub name: UserName,
    /// The role in the team.
    pub role: Role,
    /// True if no key of the user is accepted.
    pub disabled: bool,
    /// The time at which the user was made.
    pub created: Timestamp,
}

/// A key in a listing; the key itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The first digits of the key's digest, by which it is revoked.
    pub id: KeyId,
    /// The user.
    pub user: UserName,
    /// The most that the key allows; `None`: the role of the user.
    pub role: Option<Role>,
    /// The purpose of the key.
    pub note: String,
    /// The time at which the key was made.
    pub created: Timestamp,
    /// The time from which the key is no longer accepted; `None`: never.
    pub expires: Option<Timestamp>,
}

/// The name of a key: twelve hexadecimal digits of its digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

/// The number of hexadecimal digits of a key's name.
const KEY_ID_DIGITS: usize = 12;

impl KeyId {
    /// Returns the name of the key with this digest.
    pub(crate) fn of(digest: &super::digest::Digest) -> Self {
        let mut digits = digest.to_string();
        digits.truncate(KEY_ID_DIGITS);
        Self(digits)
    }
}

impl FromStr for KeyId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.len() == KEY_ID_DIGITS && text.bytes().all(digit) {
            true => Ok(Self(text.to_owned())),
            // A key must not be repeated in a message by mistake.
            false => Err(NameError::new("id of a key", b"?", "12 hexadecimal digits")),
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_it_may_and_nothing_else() {
        let allowed = |role| {
            let needs = Need::ALL.into_iter().filter(move |need| decide(role, *need));
            needs.collect::<Vec<_>>()
        };
        assert_eq!(allowed(Role::Reader), [Need::Read]);
        assert_eq!(allowed(Role::Writer), [Need::Read, Need::Write]);
        assert_eq!(allowed(Role::Admin), [Need::Read, Need::Write, Need::Admin]);
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
        }
        assert!("owner".parse::<Role>().is_err());
    }
}
