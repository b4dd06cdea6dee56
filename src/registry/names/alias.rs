//! Aliases, descriptions, metadata, tags and time to live: the properties of a version that can
//! change.

use super::decide;
use crate::error::{Error, Kind, Result};
use crate::model::name::{Alias, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::VersionInfo;
use crate::registry::engine::Transaction;
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys;
use crate::registry::names::naming::{aliases, known_artifact, lookup, protected};
use crate::registry::record;
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
    decide::apply(&mut version, update)?;
    transaction.put(&key, &record::encode_version(&version))
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
            let protected = match also_protected {
                true => Vec::new(),
                false => {
                    let artifact = known_artifact(&*transaction, &info.path)?;
                    protected(&*transaction, &info.path, &artifact)?
                }
            };
            let moves = decide::change_aliases(&info, change, &protected)?;
            for name in &moves.removed {
                transaction.delete(&keys::alias(&info.path, name))?;
            }
            point(transaction, &info.path, &moves.given, info.number)?;
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
