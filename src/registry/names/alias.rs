//! Aliases, descriptions, metadata, tags and time to live: the properties of a version that can
//! change.

use crate::error::{Error, Kind, NamesHint, Result};
use crate::model::json;
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, VersionNumber};
use crate::model::properties::change_tags;
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::VersionInfo;
use crate::registry::engine::Transaction;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys;
use crate::registry::names::naming::{aliases, lookup};
use crate::registry::names::protection::{check_said, hold_protected};
use crate::registry::record::{self, VersionRecord};
use crate::registry::{AliasChange, Update};

/// Points aliases at a version, also those of another version.
pub(in crate::registry) fn point(
    transaction: &mut dyn Transaction,
    path: &ArtifactPath,
    names: &[Alias],
    number: VersionNumber,
) -> Result<()> {
    let value = record::encode(&number);
    names.iter().try_for_each(|name| transaction.put(&keys::alias(path, name), &value))
}

fn remove(transaction: &mut dyn Transaction, info: &VersionInfo, names: &[Alias]) -> Result<()> {
    for name in names {
        if !info.aliases.contains(name) {
            let what = format!("{} has no alias {name}", info.reference());
            return Err(
                Error::new(Kind::NotFound, what).hint(NamesHint::FindAlias(info.path.to_string()))
            );
        }
        transaction.delete(&keys::alias(&info.path, name))?;
    }
    Ok(())
}

/// Applies `update` to a version's record.
pub(in crate::registry) fn apply(version: &mut VersionRecord, update: &Update) -> Result<()> {
    check_said(update.description.as_deref(), update.metadata.as_ref())?;
    if let Some(description) = &update.description {
        version.description.clone_from(description);
    }
    if let Some(metadata) = &update.metadata {
        version.metadata = metadata.clone();
    }
    if let Some(ttl) = update.ttl {
        version.ttl = ttl;
    }
    change_tags(&mut version.tags, &update.tag, &update.untag)?;
    if update.set.is_empty() && update.unset.is_empty() {
        return Ok(());
    }
    let mut object = version.metadata.to_object();
    for key in &update.unset {
        object.remove(key);
    }
    for (key, value) in &update.set {
        let value = json::parse(value).map_err(|e| {
            let what = format!("the value of {key} is not JSON: {}", e.message());
            Error::new(Kind::Usage, what)
        })?;
        object.insert(key.clone(), value);
    }
    version.metadata = Metadata::from_object(object)?;
    Ok(())
}

/// Applies `update` to the record of an existing version.
pub(in crate::registry) fn rewrite(
    transaction: &mut dyn Transaction,
    path: &ArtifactPath,
    number: VersionNumber,
    update: &Update,
) -> Result<()> {
    let key = keys::version(path, number);
    let bytes = transaction
        .get(&key)?
        .ok_or_else(|| Error::new(Kind::NotFound, format!("{path} has no version {number}")))?;
    let mut version = record::decode_version(&bytes)?;
    apply(&mut version, update)?;
    transaction.put(&key, &record::encode_version(&version))
}

/// Returns the aliases that a change takes from a version, and those that it gives to it.
fn moves<'a>(info: &VersionInfo, change: &'a AliasChange) -> (Vec<Alias>, &'a [Alias]) {
    match change {
        AliasChange::Add(names) => (Vec::new(), names),
        AliasChange::Remove(names) => (names.clone(), &[]),
        AliasChange::Set(names) => {
            let lost = info.aliases.iter().filter(|name| !names.contains(name));
            (lost.cloned().collect(), names)
        }
    }
}

impl EngineRegistry {
    pub(in crate::registry) fn update(
        &self,
        reference: &Reference,
        update: &Update,
    ) -> Result<VersionInfo> {
        self.write_names(&reference.path, |transaction| {
            let info = lookup(&*transaction, reference)?;
            rewrite(transaction, &info.path, info.number, update)?;
            lookup(&*transaction, &info.reference())
        })
    }

    pub(in crate::registry) fn change_aliases(
        &self,
        reference: &Reference,
        change: &AliasChange,
        also_protected: bool,
    ) -> Result<VersionInfo> {
        self.write_names(&reference.path, |transaction| {
            let info = lookup(&*transaction, reference)?;
            if !also_protected {
                let (lost, given) = moves(&info, change);
                hold_protected(&*transaction, &info.path, &lost, None)?;
                hold_protected(&*transaction, &info.path, given, Some(info.number))?;
            }
            match change {
                AliasChange::Add(names) => point(transaction, &info.path, names, info.number)?,
                AliasChange::Remove(names) => remove(transaction, &info, names)?,
                AliasChange::Set(names) => {
                    remove(transaction, &info, &info.aliases)?;
                    point(transaction, &info.path, names, info.number)?;
                }
            }
            lookup(&*transaction, &info.reference())
        })
    }

    /// Removes every alias of a version.
    pub(in crate::registry) fn drop_aliases(
        transaction: &mut dyn Transaction,
        path: &ArtifactPath,
        number: VersionNumber,
    ) -> Result<()> {
        for (name, target) in aliases(&*transaction, path)? {
            if target == number {
                transaction.delete(&keys::alias(path, &name))?;
            }
        }
        Ok(())
    }
}
