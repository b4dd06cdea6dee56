//! The repository a command works on.

use std::path::PathBuf;

use super::context::Context;
use artifactfs::config::{Origin, Setting};
use artifactfs::error::{Kind, Result};
use artifactfs::ops::repository::{Layout, Repository};

/// Opens the repository a command works on; the default one is made on first use.
///
/// # Errors
/// As [`Repository::open`].
pub fn open_repository(context: &Context) -> Result<Repository> {
    let layout = layout_of(&context.repo)?;
    Repository::open(&layout.root, &context.access)
}

/// Where the repository is; the default one is made on first use.
///
/// # Errors
/// [`Kind::NotFound`] for one that was named and is not there.
pub fn layout_of(setting: &Setting<PathBuf>) -> Result<Layout> {
    let layout = Layout::new(&setting.value)?;
    if setting.origin == Origin::Default && !layout.exists() {
        match Repository::init(&setting.value) {
            // Another command made it at the same moment.
            Err(e) if e.kind() == Kind::Conflict => {}
            made => made?,
        }
    }
    layout.settings()?;
    Ok(layout)
}
