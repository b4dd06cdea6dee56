//! Rights: roles of people and services, what a request needs, and the one decision between them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::{NameError, ProjectName, UserName};
use super::time::Timestamp;
use super::zone::Zone;

/// The role of a user in a team, or of a member of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The role that allows reading.
    Reader,
    /// The role that also allows logging and changing versions and runs.
    Writer,
    /// The role that also allows managing users, and calls that work on the whole repository.
    Admin,
    /// The role of a user who is no member of the team: public and open projects only. It is the
    /// last one here because records hold the number of a role.
    Guest,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Guest, Self::Reader, Self::Writer, Self::Admin];

    /// Returns the word for the role.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
            Self::Guest => "guest",
        }
    }

    /// Returns the less powerful of two roles.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        let place = |role| Self::ALL.iter().position(|one| *one == role);
        if place(self) <= place(other) { self } else { other }
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
        found.ok_or_else(|| {
            NameError::new("role", text.as_bytes(), "guest, reader, writer or admin")
        })
    }
}

/// The set of users who may see or change a project without being its members.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Nobody. Only its members and the team's admins see it.
    Private,
    /// Readers of the team see it, writers change it.
    #[default]
    Team,
    /// All users see it, writers of the team change it.
    Public,
    /// All users see and change it, except that a reader changes nothing.
    Open,
}

impl Visibility {
    /// All visibilities.
    pub const ALL: [Self; 4] = [Self::Private, Self::Team, Self::Public, Self::Open];

    /// Returns the word for the visibility.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Team => "team",
            Self::Public => "public",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Visibility {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|one| one.word() == text);
        let rule = "private, team, public or open";
        found.ok_or_else(|| NameError::new("visibility", text.as_bytes(), rule))
    }
}

/// The rights that a user has in a project, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The project does not exist for the user.
    None,
    /// Names and content can be read.
    Read,
    /// Versions and runs can be made and changed, too.
    Write,
    /// Visibility and members can be changed, too.
    Admin,
}

impl Level {
    /// Returns the rights that a member of a project has by this role, and the most that a key
    /// limited to it gives.
    pub const fn of(role: Role) -> Self {
        match role {
            Role::Guest => Self::None,
            Role::Reader => Self::Read,
            Role::Writer => Self::Write,
            Role::Admin => Self::Admin,
        }
    }

    /// Returns whether the rights suffice for a request.
    pub const fn suffices(self, need: Need) -> bool {
        match need {
            Need::Read => !matches!(self, Self::None),
            Need::Write => matches!(self, Self::Write | Self::Admin),
            Need::Admin => matches!(self, Self::Admin),
            Need::Nobody => false,
        }
    }
}

/// The zone, visibility and members of a project, which decide the rights of each user there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectAccess {
    /// The project.
    pub project: ProjectName,
    /// The zone of its objects; `None` as long as a zoned repository has nothing of it.
    pub zone: Option<Zone>,
    /// The visibility.
    pub visibility: Visibility,
    /// The members, who have their roles whatever the visibility is.
    pub members: BTreeMap<UserName, Role>,
}

impl ProjectAccess {
    /// Returns the access of a project that nobody has changed: the team sees it, and it has no
    /// members.
    pub(crate) fn unchanged(project: ProjectName, zone: Option<Zone>) -> Self {
        let (visibility, members) = Default::default();
        Self { project, zone, visibility, members }
    }

    /// Returns the rights of a user. The scope and the limit of the key narrow them.
    pub fn level(&self, principal: &Principal) -> Level {
        if !principal.sees(&self.project) {
            return Level::None;
        }
        let member = self.members.get(&principal.user);
        let granted = by_visibility(self.visibility, principal.role)
            .max(member.map_or(Level::None, |role| Level::of(*role)));
        granted.min(Level::of(principal.limit))
    }
}

/// Returns the rights that a role in the team gives in a project.
const fn by_visibility(visibility: Visibility, role: Role) -> Level {
    match (visibility, role) {
        (_, Role::Admin) => Level::Admin,
        (Visibility::Private, _) | (Visibility::Team, Role::Guest) => Level::None,
        (Visibility::Team | Visibility::Public | Visibility::Open, Role::Reader)
        | (Visibility::Public, Role::Guest) => Level::Read,
        (Visibility::Team | Visibility::Public | Visibility::Open, Role::Writer)
        | (Visibility::Open, Role::Guest) => Level::Write,
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

/// The user who makes a request, with the limits of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The user.
    pub user: UserName,
    /// The user's role in the team.
    pub role: Role,
    /// The most that the key allows.
    pub limit: Role,
    /// The projects for which the key is accepted; empty: all.
    pub projects: Vec<ProjectName>,
}

impl Principal {
    /// Returns whether the key is accepted for a project.
    fn sees(&self, project: &ProjectName) -> bool {
        self.projects.is_empty() || self.projects.contains(project)
    }

    /// Returns the user's role, narrowed by that of the key.
    pub fn narrowed(&self) -> Role {
        self.role.at_most(self.limit)
    }

    /// Returns whether the user may make a request about the whole team. A key for some projects
    /// is not accepted for that, except to read.
    pub fn may(&self, need: Need) -> bool {
        match need {
            Need::Read => true,
            need => self.projects.is_empty() && Level::of(self.narrowed()).suffices(need),
        }
    }
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
    /// The projects for which it is accepted; empty: all.
    pub projects: Vec<ProjectName>,
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

    fn principal(role: Role, limit: Role) -> Principal {
        Principal { user: "ann".parse().unwrap(), role, limit, projects: Vec::new() }
    }

    fn access(visibility: Visibility, member: Option<Role>) -> ProjectAccess {
        let members = member.into_iter().map(|role| ("ann".parse().unwrap(), role)).collect();
        ProjectAccess { project: "p".parse().unwrap(), zone: None, visibility, members }
    }

    /// The rights by visibility (rows) and role (guest, reader, writer, admin), as letters.
    const BY_VISIBILITY: [(Visibility, &str); 4] = [
        (Visibility::Private, "---a"),
        (Visibility::Team, "-rwa"),
        (Visibility::Public, "rrwa"),
        (Visibility::Open, "wrwa"),
    ];

    fn letter(level: Level) -> char {
        match level {
            Level::None => '-',
            Level::Read => 'r',
            Level::Write => 'w',
            Level::Admin => 'a',
        }
    }

    #[test]
    fn each_visibility_gives_each_role_what_it_gives_and_nothing_else() {
        for (visibility, expected) in BY_VISIBILITY {
            let level = |role| access(visibility, None).level(&principal(role, Role::Admin));
            let found: String = Role::ALL.into_iter().map(|role| letter(level(role))).collect();
            assert_eq!(found, expected, "{visibility}");
        }
    }

    #[test]
    fn a_membership_adds_and_a_key_takes_away() {
        for visibility in Visibility::ALL {
            for role in Role::ALL {
                let alone = access(visibility, None).level(&principal(role, Role::Admin));
                for member in Role::ALL {
                    let project = access(visibility, Some(member));
                    let both = project.level(&principal(role, Role::Admin));
                    assert_eq!(both, alone.max(Level::of(member)), "{visibility} {role} {member}");
                    for limit in Role::ALL {
                        let limited = project.level(&principal(role, limit));
                        assert_eq!(limited, both.min(Level::of(limit)));
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_for_one_project_is_for_no_other() {
        let mut key = principal(Role::Admin, Role::Admin);
        key.projects = vec!["q".parse().unwrap()];
        assert_eq!(access(Visibility::Open, Some(Role::Admin)).level(&key), Level::None);
        assert!(!key.may(Need::Write) && !key.may(Need::Admin));
        key.projects.push("p".parse().unwrap());
        assert_eq!(access(Visibility::Private, None).level(&key), Level::Admin);
    }

    #[test]
    fn each_role_may_what_it_may_and_nothing_else() {
        let allowed = |role, limit| {
            let needs = Need::ALL.into_iter();
            needs.filter(|need| principal(role, limit).may(*need)).collect::<Vec<_>>()
        };
        let all = [Need::Read, Need::Write, Need::Admin];
        for (role, count) in [(Role::Guest, 1), (Role::Reader, 1), (Role::Writer, 2)] {
            assert_eq!(allowed(role, Role::Admin), all[..count]);
            assert_eq!(allowed(Role::Admin, role), all[..count]);
        }
        assert_eq!(allowed(Role::Admin, Role::Admin), all);
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
        }
        for visibility in Visibility::ALL {
            assert_eq!(visibility.to_string().parse::<Visibility>().unwrap(), visibility);
        }
        assert!("owner".parse::<Role>().is_err());
    }
}
