//! Who may do what in projects, and the zones of projects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, RepositoryHint, Result};
use crate::model::access::{ProjectAccess, Role, Visibility};
use crate::model::name::{ProjectName, UserName};
use crate::model::zone::Zone;
use crate::registry::access::keys::known_user;
use crate::registry::counter::{counter_key, next_counter, read_counter};
use crate::registry::engine::{Durability, Transaction, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::paging::Page;
use crate::registry::record;

/// The counter of zones. It exists only in a zoned repository.
const ZONES: &str = "zone";
/// The maximum number of members of a project.
const MEMBERS_MAX: usize = 1_000;

/// The record of a project's zone, and of who may do what there.
#[derive(Serialize, Deserialize)]
pub(in crate::registry) struct AccessRecord {
    pub(in crate::registry) zone: Zone,
    visibility: Visibility,
    members: BTreeMap<UserName, Role>,
}

impl AccessRecord {
    fn shown(self, project: &ProjectName) -> ProjectAccess {
        let Self { zone, visibility, members } = self;
        ProjectAccess { project: project.clone(), zone: Some(zone), visibility, members }
    }
}

/// Returns the key of the row that only a zoned repository has.
pub(in crate::registry) fn zones_key() -> Vec<u8> {
    counter_key(ZONES)
}

/// Returns whether each project is a zone.
pub(in crate::registry) fn is_zoned(view: &dyn View) -> Result<bool> {
    Ok(view.get(&zones_key())?.is_some())
}

/// Returns the record of a project's zone, if it has one.
pub(in crate::registry) fn find(
    view: &dyn View,
    project: &ProjectName,
) -> Result<Option<AccessRecord>> {
    let bytes = view.get(&keys::project_access(project))?;
    bytes.map(|bytes| record::decode(&bytes)).transpose()
}

fn put(
    transaction: &mut dyn Transaction,
    project: &ProjectName,
    access: &AccessRecord,
) -> Result<()> {
    transaction.put(&keys::project_access(project), &record::encode(access))
}

/// Returns the record of a project of a zoned repository, and makes its zone if it has none.
pub(in crate::registry) fn find_or_make(
    transaction: &mut dyn Transaction,
    project: &ProjectName,
) -> Result<AccessRecord> {
    if let Some(access) = find(&*transaction, project)? {
        return Ok(access);
    }
    let number = next_counter(transaction, ZONES)?;
    let zone = Zone::new(number).filter(|zone| *zone != Zone::LAST).ok_or_else(|| {
        let what = "the repository has had more projects than it can have zones";
        Error::new(Kind::Full, what).hint("use a project that is there")
    })?;
    let access =
        AccessRecord { zone, visibility: Visibility::default(), members: BTreeMap::new() };
    put(transaction, project, &access)?;
    transaction.put(&keys::project_of_zone(zone), &record::encode(project))?;
    Ok(access)
}

/// Refuses to change who may do what in a repository whose projects share bytes.
pub(super) fn refuse_unzoned(view: &dyn View) -> Result<()> {
    if is_zoned(view)? {
        return Ok(());
    }
    let what = "the projects of this repository share bytes, so all of them have the same rights";
    Err(Error::new(Kind::Unsupported, what).hint(RepositoryHint::Zoned))
}

impl EngineRegistry {
    pub(in crate::registry) fn project_access(
        &self,
        project: &ProjectName,
    ) -> Result<ProjectAccess> {
        self.read(|view| {
            if let Some(access) = find(view, project)? {
                return Ok(access.shown(project));
            }
            let zone = if is_zoned(view)? { None } else { Some(Zone::WHOLE) };
            let (visibility, members) = Default::default();
            Ok(ProjectAccess { project: project.clone(), zone, visibility, members })
        })
    }

    pub(in crate::registry) fn project_of_zone(&self, zone: Zone) -> Result<Option<ProjectName>> {
        self.read(|view| {
            let bytes = view.get(&keys::project_of_zone(zone))?;
            bytes.map(|bytes| record::decode(&bytes)).transpose()
        })
    }

    pub(in crate::registry) fn zoned_projects(
        &self,
        after: Option<&ProjectName>,
        limit: u32,
    ) -> Result<Page<ProjectAccess>> {
        self.read(|view| {
            let (start, end) = Key::of(Space::ProjectAccess).range();
            let from = after.map_or(start, |project| keys::next(&keys::project_access(project)));
            let found = crate::registry::paging::page(view, &from, &end, limit as usize)?;
            let items = found.items.iter().map(|(key, bytes)| {
                let project = String::from_utf8_lossy(keys::name_after(key, 1)).parse()?;
                Ok(record::decode::<AccessRecord>(bytes)?.shown(&project))
            });
            Ok(Page { items: items.collect::<Result<_>>()?, more: found.more })
        })
    }

    pub(in crate::registry) fn set_visibility(
        &self,
        project: &ProjectName,
        visibility: Visibility,
    ) -> Result<ProjectAccess> {
        self.change_access(project, |_, access| {
            access.visibility = visibility;
            Ok(())
        })
    }

    pub(in crate::registry) fn set_member(
        &self,
        project: &ProjectName,
        user: &UserName,
        role: Option<Role>,
    ) -> Result<ProjectAccess> {
        self.change_access(project, |view, access| {
            match role {
                None if access.members.remove(user).is_some() => return Ok(()),
                None => {
                    let what = format!("{user} is no member of {project}");
                    return Err(Error::new(Kind::NotFound, what));
                }
                Some(role) => {
                    known_user(view, user)?;
                    access.members.insert(user.clone(), role);
                }
            }
            if access.members.len() > MEMBERS_MAX {
                let what = format!("{project} has {MEMBERS_MAX} members, which is the maximum");
                return Err(Error::new(Kind::Conflict, what)
                    .hint("make them writers of the team, and the project visible to it"));
            }
            Ok(())
        })
    }

    fn change_access(
        &self,
        project: &ProjectName,
        change: impl Fn(&dyn View, &mut AccessRecord) -> Result<()>,
    ) -> Result<ProjectAccess> {
        self.write_aside(Durability::Immediate, |transaction| {
            refuse_unzoned(&*transaction)?;
            let mut access = find_or_make(transaction, project)?;
            change(&*transaction, &mut access)?;
            put(transaction, project, &access)?;
            Ok(access.shown(project))
        })
    }

    pub(in crate::registry) fn make_zoned(&self) -> Result<bool> {
        self.write(Durability::Immediate, |transaction| {
            if is_zoned(&*transaction)? {
                return Ok(true);
            }
            for space in [Space::Object, Space::Pack, Space::Lease, Space::Project] {
                let (from, to) = Key::of(space).range();
                if !transaction.scan(&from, &to, 1)?.is_empty() {
                    return Ok(false);
                }
            }
            transaction.put(&zones_key(), &record::encode(&read_counter(&*transaction, ZONES)?))?;
            Ok(true)
        })
    }
}
