//! The decisions about aliases, properties and deletion: pure functions of the rows that were seen.

use crate::error::{Error, Kind, NamesHint, Result};
use crate::model::json;
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, VersionNumber};
use crate::model::properties::{PROTECTED_MAX, change_names, change_tags};
use crate::model::reference::ArtifactPath;
use crate::model::version::{VersionInfo, check_description};
use crate::registry::record::{ArtifactRecord, VersionRecord};
use crate::registry::{AliasChange, ArtifactUpdate, Update};

/// Aliases and the versions they stand for.
pub(in crate::registry) type Targets = Vec<(Alias, VersionNumber)>;

/// The change of the alias rows of a version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AliasMoves {
    /// The aliases that stand for nothing afterwards.
    pub(crate) removed: Vec<Alias>,
    /// The aliases that stand for the version afterwards.
    pub(crate) given: Vec<Alias>,
}

/// Decides which aliases a change moves. `protected` are the protected aliases of the artifact that
/// the change must keep; it is empty if the caller moves these on purpose.
///
/// # Errors
/// [`Kind::NotFound`] for the removal of an alias that the version has not; [`Kind::Conflict`] for
/// a protected alias.
pub(super) fn change_aliases(
    info: &VersionInfo,
    change: &AliasChange,
    protected: &Targets,
) -> Result<AliasMoves> {
    let (removed, given) = match change {
        AliasChange::Add(names) => (Vec::new(), names.clone()),
        AliasChange::Remove(names) => (names.clone(), Vec::new()),
        AliasChange::Set(names) => {
            let removed = info.aliases.iter().filter(|name| !names.contains(name));
            (removed.cloned().collect(), names.clone())
        }
    };
    keep_protected(&info.path, protected, &removed, None)?;
    keep_protected(&info.path, protected, &given, Some(info.number))?;
    if let Some(name) = removed.iter().find(|name| !info.aliases.contains(name)) {
        let what = format!("{} has no alias {name}", info.reference());
        let hint = NamesHint::FindAlias(info.path.to_string());
        return Err(Error::new(Kind::NotFound, what).hint(hint));
    }
    Ok(AliasMoves { removed, given })
}

/// Refuses to take protected ones of `names` off the version they stand for. `number` is the
/// version they are to stand for; `None`: they are to be removed.
///
/// # Errors
/// [`Kind::Conflict`] for a protected alias.
pub(in crate::registry) fn keep_protected(
    path: &ArtifactPath,
    protected: &Targets,
    names: &[Alias],
    number: Option<VersionNumber>,
) -> Result<()> {
    let moved = protected.iter().find(|(name, is)| names.contains(name) && number != Some(*is));
    let Some((name, target)) = moved else { return Ok(()) };
    let what = format!("{path}:{name} is protected and stands for {target}");
    let (path, name) = (path.to_string(), name.to_string());
    let hint = match number {
        Some(_) => NamesHint::MoveProtected { path, name },
        None => NamesHint::Unprotect { path, name },
    };
    Err(Error::new(Kind::Conflict, what).hint(hint))
}

/// Refuses to delete a version that a protected alias keeps, and one with aliases unless these are
/// deleted with it.
///
/// # Errors
/// [`Kind::Conflict`] if the version stays.
pub(in crate::registry) fn delete(info: &VersionInfo, delete_aliases: bool) -> Result<()> {
    if let Some(name) = info.protected.first() {
        let what = format!("{} is kept by its protected alias {name}", info.reference());
        let (path, name) = (info.path.to_string(), name.to_string());
        return Err(Error::new(Kind::Conflict, what).hint(NamesHint::Unprotect { path, name }));
    }
    if info.aliases.is_empty() || delete_aliases {
        return Ok(());
    }
    let names: Vec<_> = info.aliases.iter().map(|alias| alias.as_str()).collect();
    let what = format!("{} has aliases: {}", info.reference(), names.join(", "));
    Err(Error::new(Kind::Conflict, what).hint(NamesHint::DeleteAliases))
}

/// Refuses a description that is too long and invalid metadata: values from a socket were not
/// parsed in this process.
///
/// # Errors
/// [`Kind::Usage`] for either.
pub(in crate::registry) fn check_texts(
    description: Option<&str>,
    metadata: Option<&Metadata>,
) -> Result<()> {
    description.map_or(Ok(()), check_description)?;
    metadata.map_or(Ok(()), Metadata::check)
}

/// Applies `update` to a version's record.
///
/// # Errors
/// [`Kind::Usage`] for texts, metadata and tags beyond their bounds, and for values that are not
/// JSON.
pub(in crate::registry) fn apply(version: &mut VersionRecord, update: &Update) -> Result<()> {
    check_texts(update.description.as_deref(), update.metadata.as_ref())?;
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

/// Applies `update` to an artifact's record.
///
/// # Errors
/// [`Kind::Usage`] for texts and lists beyond their bounds, and for the protection of `latest`.
pub(super) fn apply_to_artifact(
    artifact: &mut ArtifactRecord,
    update: &ArtifactUpdate,
) -> Result<()> {
    if update.protect.contains(&Alias::latest()) {
        return Err(Error::new(Kind::Usage, "latest moves with every new version")
            .hint("protect an alias of your own, and give it to the version"));
    }
    check_texts(update.description.as_deref(), None)?;
    if let Some(description) = &update.description {
        artifact.description.clone_from(description);
    }
    if let Some(ttl) = update.ttl_milliseconds {
        artifact.ttl_milliseconds = ttl;
    }
    change_tags(&mut artifact.tags, &update.tag, &update.untag)?;
    let change = (&update.protect[..], &update.unprotect[..]);
    change_names(&mut artifact.protected, change, ("protected aliases", PROTECTED_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;
    use crate::model::object_kind::ObjectKind;
    use crate::model::properties::Ttl;
    use crate::model::time::Timestamp;
    use crate::model::version::Totals;

    fn alias(name: &str) -> Alias {
        name.parse().unwrap()
    }

    fn info(aliases: &[&str], protected: &[&str]) -> VersionInfo {
        VersionInfo {
            path: "p/a".parse().unwrap(),
            artifact_type: "dataset".parse().unwrap(),
            number: VersionNumber(3),
            root: Digest::of(ObjectKind::Tree, b""),
            totals: Totals::default(),
            created: Timestamp(0),
            time_seconds: 0,
            aliases: aliases.iter().map(|name| alias(name)).collect(),
            description: String::new(),
            metadata: Metadata::default(),
            tags: Vec::new(),
            ttl: Ttl::Inherit,
            expires: None,
            protected: protected.iter().map(|name| alias(name)).collect(),
        }
    }

    #[test]
    fn a_new_list_of_aliases_removes_only_those_it_lacks() {
        let change = AliasChange::Set(vec![alias("b"), alias("c")]);
        let moves = change_aliases(&info(&["a", "b"], &[]), &change, &Vec::new()).unwrap();
        let expected =
            AliasMoves { removed: vec![alias("a")], given: vec![alias("b"), alias("c")] };
        assert_eq!(moves, expected);
    }

    #[test]
    fn a_protected_alias_is_neither_removed_nor_taken_from_another_version() {
        let here = vec![(alias("prod"), VersionNumber(3))];
        let there = vec![(alias("prod"), VersionNumber(1))];
        let add = AliasChange::Add(vec![alias("prod")]);
        let remove = AliasChange::Remove(vec![alias("prod")]);
        let kind = |change: &AliasChange, protected: &Targets| {
            change_aliases(&info(&["prod"], &["prod"]), change, protected).err().map(|e| e.kind())
        };
        assert_eq!(kind(&add, &here), None);
        assert_eq!(kind(&add, &there), Some(Kind::Conflict));
        assert_eq!(kind(&remove, &here), Some(Kind::Conflict));
        assert_eq!(kind(&AliasChange::Set(Vec::new()), &here), Some(Kind::Conflict));
        assert_eq!(kind(&remove, &Vec::new()), None);
    }

    #[test]
    fn an_alias_of_another_version_is_not_removed() {
        let change = AliasChange::Remove(vec![alias("other")]);
        let refused = change_aliases(&info(&["a"], &[]), &change, &Vec::new()).unwrap_err();
        assert_eq!(refused.kind(), Kind::NotFound);
    }

    #[test]
    fn a_version_with_aliases_is_deleted_only_with_them_and_a_protected_one_never() {
        assert!(delete(&info(&[], &[]), false).is_ok());
        assert!(delete(&info(&["a"], &[]), false).is_err());
        assert!(delete(&info(&["a"], &[]), true).is_ok());
        assert!(delete(&info(&["a"], &["a"]), true).is_err());
    }
}
