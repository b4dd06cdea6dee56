//! The repository that a command works on.

use std::path::PathBuf;

use super::context::Context;
use artifactfs::config::{Origin, Setting};
use artifactfs::error::{Kind, Result};
use artifactfs::ops::repository::{Layout, Repository};

/// Opens the repository of a command; creates the default one on first use.
///
/// # Errors
/// As [`Repository::open`].
pub fn open_repository(context: &Context) -> Result<Repository> {
    let layout = layout_of(&context.config.repo)?;
    Repository::open(&layout.root, &context.access)
}

/// Returns the layout of the repository; creates the default one on first use.
///
/// # Errors
/// [`Kind::NotFound`] if a repository was named and does not exist.
pub fn layout_of(setting: &Setting<PathBuf>) -> Result<Layout> {
    let layout = Layout::new(&setting.value)?;
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
