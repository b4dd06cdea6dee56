//! `.artifact.json` in the root of every version: its entry in the registry.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::version::VersionNode;
use crate::error::Result;
use crate::model::reference::{Reference, Selector};
use crate::ops::browse;
use crate::ops::repository::Repository;

/// The name of the description. No listing shows it, and no version has a file of its own there.
pub(crate) use crate::model::version::DESCRIPTION_FILE;

/// The description of a version.
#[derive(Debug)]
pub(crate) struct Description {
    /// The version.
    pub(crate) version: Arc<VersionNode>,
    /// The last text, and since when it holds, in seconds since 1970.
    last: Mutex<Option<(String, u64)>>,
}

impl Description {
    /// Creates the description of a version.
    pub(crate) fn of(version: Arc<VersionNode>) -> Self {
        Self { version, last: Mutex::default() }
    }

    /// Returns the current text and its time in seconds since 1970, which grows whenever the text
    /// changes.
    ///
    /// # Errors
    /// Any error of the registry.
    pub(crate) fn read(&self, repository: &Repository) -> Result<(String, u64)> {
        let text = self.text(repository)?;
        let now = repository.host.now().seconds();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &*last {
            Some((before, since)) if *before == text => *since,
            Some((_, since)) => now.max(since + 1),
            None => now,
        };
        *last = Some((text.clone(), since));
        Ok((text, since))
    }

    fn text(&self, repository: &Repository) -> Result<String> {
        let path = self.version.path.clone();
        let reference = Reference { path, selector: Selector::Version(self.version.number) };
        let info = browse::version(repository, None, reference)?;
        let document = json!({
            "name": info.path.to_string(),
            "type": info.artifact_type,
            "version": info.number.to_string(),
            "aliases": info.aliases,
            "digest": info.root.to_string(),
            "description": info.description,
            "metadata": info.metadata.to_object(),
            "tags": info.tags,
            "ttl": info.ttl.to_string(),
            "expires": info.expires.map(|at| at.to_string()),
            "protected": info.protected,
            "size": info.totals.size_bytes,
            "external": info.totals.external,
            "created": info.created.to_string(),
        });
        Ok(format!("{document:#}\n"))
    }
}
