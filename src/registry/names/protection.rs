//! The checks of protected aliases, descriptions and metadata.

use crate::error::{Error, Kind, NamesHint, Result};
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, VersionNumber};
use crate::model::properties::Ttl;
use crate::model::reference::ArtifactPath;
use crate::model::time::Timestamp;
use crate::model::version::{VersionInfo, check_description};
use crate::registry::engine::View;
use crate::registry::keys;
use crate::registry::names::naming::{aliases, artifact};
use crate::registry::record::{self, ArtifactRecord, VersionRecord};

/// Refuses to take protected ones of `names` off the version they stand for. `number` is the
/// version they are to stand for; `None`: they are to be removed.
pub(in crate::registry) fn hold_protected(
    view: &dyn View,
    path: &ArtifactPath,
    names: &[Alias],
    number: Option<VersionNumber>,
) -> Result<()> {
    let protected = artifact(view, path)?.map(|record| record.protected).unwrap_or_default();
    for name in names.iter().filter(|name| protected.contains(name)) {
        let Some(bytes) = view.get(&keys::alias(path, name))? else { continue };
        let target: VersionNumber = record::decode(&bytes)?;
        if number != Some(target) {
            let what = format!("{path}:{name} is protected and stands for {target}");
            let (path, name) = (path.to_string(), name.to_string());
            let hint = NamesHint::MoveProtected { path, name };
            return Err(Error::new(Kind::Conflict, what).hint(hint));
        }
    }
    Ok(())
}

/// Refuses to delete a version that a protected alias keeps.
pub(in crate::registry) fn keep_protected(info: &VersionInfo) -> Result<()> {
    let Some(name) = info.protected.first() else { return Ok(()) };
    let what = format!("{} is kept by its protected alias {name}", info.reference());
    let (path, name) = (info.path.to_string(), name.to_string());
    Err(Error::new(Kind::Conflict, what).hint(NamesHint::Unprotect { path, name }))
}

/// Returns whether a version would have expired if its time to live were `ttl`. A version that a
/// protected alias keeps never expires.
pub(in crate::registry) fn would_be_over(
    view: &dyn View,
    (path, artifact): (&ArtifactPath, &ArtifactRecord),
    (number, version): (VersionNumber, &VersionRecord),
    ttl: Ttl,
    now: Timestamp,
) -> Result<bool> {
    let expires = ttl.expires(version.created, artifact.ttl_milliseconds);
    if expires.is_none_or(|at| at > now) {
        return Ok(false);
    }
    let all = aliases(view, path)?;
    Ok(!all.iter().any(|(name, target)| *target == number && artifact.protected.contains(name)))
}

/// Refuses a description that is too long and invalid metadata: values from a socket were not
/// parsed in this process.
pub(in crate::registry) fn check_said(
    description: Option<&str>,
    metadata: Option<&Metadata>,
) -> Result<()> {
    description.map_or(Ok(()), check_description)?;
    metadata.map_or(Ok(()), Metadata::check)
}
