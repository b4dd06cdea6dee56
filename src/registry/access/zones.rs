//! The zones of projects: whether each project is one, and the record of each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, RepositoryHint, Result};
use crate::model::access::{ProjectAccess, Role, Visibility};
use crate::model::name::{ProjectName, UserName};
use crate::model::zone::Zone;
use crate::registry::counter::{counter_key, next_counter};
use crate::registry::engine::{Transaction, View};
use crate::registry::keys;
use crate::registry::record;

/// The counter of zones. It exists only in a zoned repository.
const ZONES: &str = "zone";

/// The record of a project's zone, visibility and members.
#[derive(Serialize, Deserialize)]
pub(in crate::registry) struct AccessRecord {
    pub(in crate::registry) zone: Zone,
    pub(super) visibility: Visibility,
    pub(super) members: BTreeMap<UserName, Role>,
}

impl AccessRecord {
    pub(super) fn shown(self, project: &ProjectName) -> ProjectAccess {
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

pub(super) fn put(
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
    let access = AccessRecord { zone, visibility: Visibility::default(), members: BTreeMap::new() };
    put(transaction, project, &access)?;
    transaction.put(&keys::project_of_zone(zone), &record::encode(project))?;
    Ok(access)
}

/// Refuses rights by project in a repository whose projects share bytes.
pub(super) fn refuse_unzoned(view: &dyn View) -> Result<()> {
    if is_zoned(view)? {
        return Ok(());
    }
    let what = "the projects of this repository share bytes, so all of them have the same rights";
    Err(Error::new(Kind::Unsupported, what).hint(RepositoryHint::Zoned))
}
