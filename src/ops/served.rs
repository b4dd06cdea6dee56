//! Repositories on servers: the settings that a server hands out, and the directory that a client
//! has for each, with its drafts and what its daemons need.

use std::collections::BTreeMap;

use super::repository::{Layout, Repository, SHARED_FORMAT, Settings};
use super::shared::refuse_moved;
use crate::error::{Error, Kind, Result};
use crate::model::host::Host;
use crate::model::name::TeamName;
use crate::model::server_url::TeamUrl;
use crate::protocol::served::Session;
use crate::registry::LeaseId;

/// Returns the name under which a repository is served: that of its directory, unless it was made
/// with another.
///
/// # Errors
/// [`Kind::BadName`] if the directory's name is not one of a team.
pub(crate) fn team_of(layout: &Layout) -> Result<TeamName> {
    if let Some(team) = layout.settings()?.team {
        return Ok(team);
    }
    let name = layout.root.file_name().unwrap_or_default().to_string_lossy();
    Ok(name.parse()?)
}

/// Returns the settings that clients need, as JSON: not where the store is.
pub(crate) fn settings_for_clients(repository: &Repository) -> String {
    let settings = Settings {
        format: SHARED_FORMAT,
        store: String::new(),
        store_options: BTreeMap::new(),
        registry: None,
        directory: None,
        ..repository.settings.clone()
    };
    serde_json::to_string(&settings).expect("settings are plain values")
}

/// Makes this host's directory for the repository at `url`, whose server replied with `session`.
///
/// # Errors
/// [`Kind::Unsupported`] if the server is of another release, [`Kind::Conflict`] if the directory
/// is a repository, and errors of the host.
pub fn join(layout: &Layout, url: &TeamUrl, session: &Session, host: &Host) -> Result<()> {
    layout.refuse_existing()?;
    let unread = |e| {
        Error::new(Kind::Unsupported, format!("the settings of {url} cannot be read")).because(e)
    };
    let settings: Settings = serde_json::from_str(&session.settings).map_err(unread)?;
    let own = Settings {
        registry: Some(url.to_string()),
        store: url.to_string(),
        directory: Some(format!("{:032x}", host.random())),
        ..settings
    };
    layout.make_root()?;
    layout.write_settings(&own)
}

/// Begins a lease of a client in the repository of a server. Refuses if the repository has moved to
/// another store since the server opened it.
///
/// # Errors
/// [`Kind::Conflict`] then, and the errors of the registry.
pub(crate) fn begin_lease(
    repository: &Repository,
    purpose: String,
    holder: String,
) -> Result<LeaseId> {
    let lease = repository.registry.begin(purpose, holder)?;
    match refuse_moved(repository) {
        Ok(()) => Ok(lease),
        Err(e) => repository.registry.release(lease).and(Err(e)),
    }
}
