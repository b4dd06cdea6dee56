//! Visibility and members of projects.

use crate::error::{Error, Kind, Result};
use crate::model::access::{ProjectAccess, Role, Visibility};
use crate::model::name::{ProjectName, UserName};
use crate::model::zone::Zone;
use crate::registry::access::keys::known_user;
use crate::registry::access::zones::{
    AccessRecord, find, find_or_make, is_zoned, put, refuse_unzoned, zones_key,
};
use crate::registry::engine::{Durability, View};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::paging::{Page, page};
use crate::registry::record;

/// The maximum number of members of a project.
const MEMBERS_MAX: usize = 1_000;

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
            Ok(ProjectAccess::unchanged(project.clone(), zone))
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
            let found = page(view, &from, &end, limit as usize)?;
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
            transaction.put(&zones_key(), &record::encode(&0u64))?;
            Ok(true)
        })
    }
}
