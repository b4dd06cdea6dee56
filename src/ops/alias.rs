//! Aliases of versions: changing and listing them.

use std::collections::BTreeMap;

use super::listing;
use super::repository::Repository;
use super::select::{Changed, Chosen};
use crate::error::{Kind, Result};
use crate::model::name::{Alias, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::VersionInfo;
use crate::registry::{AliasChange, Detail, Registry};

/// Changes the aliases of one version. A protected alias is taken off a version only with
/// `also_protected`.
///
/// # Errors
/// As [`Names::change_aliases`](crate::registry::Names::change_aliases).
pub fn change(
    repository: &Repository,
    reference: Reference,
    change: AliasChange,
    also_protected: bool,
) -> Result<VersionInfo> {
    let registry = &*repository.registry;
    if let AliasChange::Remove(names) = &change {
        let info = registry.lookup(reference.clone())?;
        // Once the version was seen to have them, their absence is no error: a reply may have been
        // lost.
        if names.iter().all(|name| info.aliases.contains(name)) {
            return remove(registry, info.reference(), names, also_protected);
        }
    }
    registry.change_aliases(reference, change, also_protected)
}

/// Changes the aliases of many versions alike, one after another. Removing a name that a version
/// does not have is no error.
///
/// # Errors
/// [`Kind::NotFound`] for a version that does not exist, and [`Kind::Usage`] if an alias would be
/// given to two versions of one artifact. Nothing is changed then.
pub fn change_many(
    repository: &Repository,
    chosen: Chosen,
    change: &AliasChange,
    also_protected: bool,
) -> Result<Changed> {
    let registry = &*repository.registry;
    let targets = chosen.targets(registry)?;
    if let AliasChange::Remove(names) = change {
        return Ok(
            targets.change(&mut |reference| remove(registry, reference, names, also_protected))
        );
    }
    targets.one_each()?;
    Ok(targets.change(&mut |reference| {
        registry.change_aliases(reference, change.clone(), also_protected)
    }))
}

/// Removes those of `names` that a version has, so that a change that was made in part can be
/// repeated.
fn remove(
    registry: &dyn Registry,
    reference: Reference,
    names: &[Alias],
    also_protected: bool,
) -> Result<VersionInfo> {
    let has = |info: &VersionInfo| -> Vec<Alias> {
        names.iter().filter(|name| info.aliases.contains(name)).cloned().collect()
    };
    let info = registry.lookup(reference.clone())?;
    let there = has(&info);
    if there.is_empty() {
        return Ok(info);
    }
    let change = AliasChange::Remove(there);
    match registry.change_aliases(reference.clone(), change, also_protected) {
        // Another process removed them meanwhile.
        Err(e) if e.kind() == Kind::NotFound => {
            let info = registry.lookup(reference)?;
            if has(&info).is_empty() { Ok(info) } else { Err(e) }
        }
        changed => changed,
    }
}

/// An alias of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasInfo {
    /// The alias.
    pub alias: Alias,
    /// The version it stands for; `None` for a protected alias that stands for nothing yet.
    pub number: Option<VersionNumber>,
    /// True if it keeps that version.
    pub protected: bool,
}

/// Returns the aliases of an artifact, sorted.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such artifact.
pub fn aliases(repository: &Repository, path: &ArtifactPath) -> Result<Vec<AliasInfo>> {
    let registry = &*repository.registry;
    let info = registry.artifact(path.clone())?;
    let mut found: BTreeMap<_, _> =
        info.protected.iter().map(|alias| (alias.clone(), None)).collect();
    listing::each_of_artifact(registry, path, Detail::Brief, &mut |version| {
        found.extend(version.aliases.into_iter().map(|alias| (alias, Some(version.number))));
        Ok(())
    })?;
    let described = found.into_iter().map(|(alias, number)| {
        let protected = info.protected.contains(&alias);
        AliasInfo { alias, number, protected }
    });
    Ok(described.collect())
}
