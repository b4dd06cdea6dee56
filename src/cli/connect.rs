//! The repository that a command works on.

use super::context::Context;
use artifactfs::config::{Config, Origin};
use artifactfs::daemon::connection;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::server_url::{TeamUrl, is_server};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::ops::served;

/// Opens the repository of a command; creates the default one on first use.
///
/// # Errors
/// As [`Repository::open`].
pub fn open_repository(context: &Context) -> Result<Repository> {
    let layout = layout_of(context)?;
    Repository::open(&layout.root, &context.access)
}

/// Returns the repository on a server that the settings name, if they name one.
///
/// # Errors
/// [`Kind::Usage`] for a URL that names no repository.
pub fn server_of(config: &Config) -> Result<Option<TeamUrl>> {
    config.repo.value.to_str().filter(|text| is_server(text)).map(str::parse).transpose()
}

/// Returns the layout of the repository; creates the default one on first use, and the directory of
/// this host for one on a server.
///
/// # Errors
/// [`Kind::NotFound`] if a repository was named and does not exist.
pub fn layout_of(context: &Context) -> Result<Layout> {
    let setting = &context.config.repo;
    if let Some(url) = server_of(&context.config)? {
        return layout_of_served(context, &url);
    }
    let layout = place_of(context)?;
    if setting.origin == Origin::Default && !layout.exists() {
        match Repository::init(&setting.value) {
            // Another command created it at the same moment.
            Err(e) if e.kind() == Kind::Conflict => {}
            made => made?,
        }
    }
    layout.settings()?;
    Ok(layout)
}

/// Returns where the repository of a command is on this host; makes nothing.
///
/// # Errors
/// As [`server_of`].
pub fn place_of(context: &Context) -> Result<Layout> {
    match server_of(&context.config)? {
        Some(url) => place_of_served(context, &url),
        None => Layout::new(&context.config.repo.value),
    }
}

/// Returns the layout of a repository whose mounts are to end; makes nothing for one on a server.
///
/// # Errors
/// As [`layout_of`].
pub fn layout_of_mounted(context: &Context) -> Result<Layout> {
    match server_of(&context.config)? {
        Some(url) => place_of_served(context, &url),
        None => layout_of(context),
    }
}

fn place_of_served(context: &Context, url: &TeamUrl) -> Result<Layout> {
    let folder = context.config.servers.as_ref().ok_or_else(|| {
        Error::new(Kind::Usage, "there is no place for drafts: $HOME is not set")
            .hint("set it, or $XDG_STATE_HOME")
    })?;
    Layout::new(&folder.join(url.server.directory()).join(url.team.as_str()))
}

fn layout_of_served(context: &Context, url: &TeamUrl) -> Result<Layout> {
    let layout = place_of_served(context, url)?;
    if !layout.exists() {
        let session = connection::session(url, &context.access)?;
        match served::join(&layout, url, &session, &context.access.host) {
            // Another command made it at the same moment.
            Err(e) if e.kind() == Kind::Conflict && layout.exists() => {}
            made => made?,
        }
    }
    Ok(layout)
}
