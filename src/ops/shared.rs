//! A registry that several hosts share. It keeps the settings of the repository; each host has a
//! directory with a copy of them, its drafts, and what its daemons need.

use std::collections::BTreeMap;

use super::repository::{Layout, Repository, SHARED_FORMAT, Settings, ZONED_FORMAT};
use crate::content::store::{StoreUrl, refuse_secrets};
use crate::error::{Error, Kind, RepositoryHint, Result};
use crate::model::host::Host;
use crate::model::name::TeamName;
use crate::registry::engine::optimistic::Optimistic;
use crate::registry::engine::postgres::PostgresTable;
use crate::registry::{EngineRegistry, Upkeep};

pub use crate::registry::engine::postgres::Address;

fn open_registry(address: &Address) -> Result<EngineRegistry> {
    let table = PostgresTable::open(address)?;
    let clock = table.clock();
    EngineRegistry::open(Box::new(Optimistic(table)), clock)
}

/// Makes a repository whose registry is at `address`, and this host's directory.
///
/// # Errors
/// [`Kind::Conflict`] if one of the two exists, [`Kind::Usage`] for a store that other hosts do not
/// have, and the errors of the registry.
pub fn init(
    layout: &Layout,
    address: &Address,
    store: &StoreUrl,
    options: BTreeMap<String, String>,
    team: Option<TeamName>,
    host: &Host,
) -> Result<Settings> {
    layout.refuse_existing()?;
    let settings = Settings {
        format: ZONED_FORMAT,
        team,
        ..of_this_host(Settings::new(store.to_string(), options, host), address, host)
    };
    let (url, options) = settings.store_url()?;
    refuse_secrets(&url, &options)?;
    if matches!(&url, StoreUrl::Directory(path) if !path.starts_with('/')) {
        let what = format!("the store {url} is a directory below the repository of one host");
        return Err(Error::new(Kind::Usage, what).hint(RepositoryHint::SharedStore));
    }
    // The address is most likely to be wrong, so it is tried before the store is claimed.
    let table = PostgresTable::init(address)?;
    let filled = layout.fill(&settings, || {
        let registry = open_registry(address)?;
        // Without settings the registry is not used.
        registry.make_zoned()?;
        registry.set_settings(String::new(), common(&settings))
    });
    match filled {
        Ok(()) => Ok(settings),
        Err(e) => {
            if let Err(also) = table.remove() {
                tracing::warn!("the empty tables of {address} could not be removed: {also}");
            }
            Err(e)
        }
    }
}

/// Makes a directory of this host for the repository whose registry is at `address`.
///
/// # Errors
/// [`Kind::Conflict`] if the directory is a repository, [`Kind::NotFound`] if there is no registry.
pub fn join(layout: &Layout, address: &Address, host: &Host) -> Result<Settings> {
    layout.refuse_existing()?;
    let registry = open_registry(address)?;
    let own = of_this_host(recorded(&registry)?, address, host);
    layout.fill(&own, || Ok(()))?;
    Ok(own)
}

/// Opens the registry of a repository, if it is shared, and brings this host's copy of the settings
/// up to date.
///
/// # Errors
/// The errors of the registry.
pub(crate) fn open(layout: &Layout) -> Result<Option<EngineRegistry>> {
    let own = layout.settings()?;
    let Some(address) = &own.registry else { return Ok(None) };
    let registry = open_registry(&address.parse()?)?;
    let new = recorded(&registry)?;
    if new.id != own.id {
        let what = format!("the registry {address} is now that of another repository");
        return Err(Error::new(Kind::Conflict, what)
            .hint("nothing was changed: use another directory for it"));
    }
    if common(&own) != common(&new) {
        let (registry, directory) = (own.registry, own.directory);
        layout.write_settings(&Settings { registry, directory, ..new })?;
    }
    Ok(Some(registry))
}

/// Returns settings with what only this host's directory has.
fn of_this_host(settings: Settings, address: &Address, host: &Host) -> Settings {
    let directory = format!("{:032x}", host.random());
    Settings { registry: Some(address.to_string()), directory: Some(directory), ..settings }
}

/// Returns the settings as all hosts have them.
fn common(settings: &Settings) -> String {
    let common = Settings { registry: None, directory: None, ..settings.clone() };
    serde_json::to_string(&common).expect("settings are plain values")
}

fn recorded(registry: &dyn Upkeep) -> Result<Settings> {
    let text = registry.settings()?.ok_or_else(|| {
        Error::new(Kind::NotFound, "the registry has no settings: making it was interrupted")
            .hint("drop its tables kv, applied and meta, and make it again")
    })?;
    let damaged =
        |e| Error::new(Kind::Corrupt, "the settings in the registry are damaged").because(e);
    let settings: Settings = serde_json::from_str(&text).map_err(damaged)?;
    if ![SHARED_FORMAT, ZONED_FORMAT].contains(&settings.format) {
        let found = settings.format;
        let what = format!("the repository has format {found}; this release reads {ZONED_FORMAT}");
        return Err(Error::new(Kind::Unsupported, what)
            .hint("use the release of artifactfs that made it, or a newer one"));
    }
    Ok(settings)
}

/// Refuses to go on if the repository has moved to another store since it was opened. Under a lease
/// the result stays true: a store moves only while nobody holds one.
///
/// # Errors
/// [`Kind::Conflict`] if it moved.
pub(crate) fn refuse_moved(repository: &Repository) -> Result<()> {
    if repository.janitor.is_some() {
        // The server writes to the store itself.
        return Ok(());
    }
    let now = match repository.is_shared() {
        true => recorded(&*repository.registry)?,
        false => repository.layout.settings()?,
    };
    if now.store == repository.settings.store {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, "the repository moved to another store meanwhile")
        .hint("nothing was changed; run it again"))
}

/// Replaces the settings. `holder` has the maintenance mark.
///
/// # Errors
/// If they cannot be written, the old settings stay.
pub(super) fn replace(repository: &Repository, settings: &Settings, holder: &str) -> Result<()> {
    if settings.registry.is_some() {
        // From now on these are valid. The next process that opens the directory copies them.
        repository.registry.set_settings(holder.to_owned(), common(settings))?;
    }
    repository.layout.write_settings(settings)
}
