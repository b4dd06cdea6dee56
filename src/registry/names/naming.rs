//! Projects, artifacts, versions: look-ups and listings.

use crate::error::{Error, Kind, NamesHint, Result};
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, ArtifactName, ProjectName, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::time::Timestamp;
use crate::model::version::{ArtifactInfo, ProjectInfo, VersionInfo};
use crate::registry::Detail;
use crate::registry::engine::{Span, Transaction, View, Want};
use crate::registry::engine_registry::EngineRegistry;
use crate::registry::keys::{self, Key, Space};
use crate::registry::paging::Page;
use crate::registry::paging::each_below;
use crate::registry::paging::page;
use crate::registry::record::{self, ArtifactRecord, ProjectRecord, VersionCount, VersionRecord};

/// The number of aliases that are asked for together with an artifact.
const ALIASES_AT_ONCE: usize = 100;

/// Returns the artifact's record.
pub(in crate::registry) fn artifact(
    view: &dyn View,
    path: &ArtifactPath,
) -> Result<Option<ArtifactRecord>> {
    view.get(&keys::artifact(path))?.map(|bytes| record::decode_artifact(&bytes)).transpose()
}

pub(in crate::registry) fn known_artifact(
    view: &dyn View,
    path: &ArtifactPath,
) -> Result<ArtifactRecord> {
    if let Some(record) = artifact(view, path)? {
        return Ok(record);
    }
    if view.get(&keys::project(&path.project))?.is_none() {
        return Err(no_project(&path.project));
    }
    Err(Error::new(Kind::NotFound, format!("no artifact {path}"))
        .hint(NamesHint::ListArtifacts(path.project.to_string())))
}

/// Returns the error for a project that does not exist.
fn no_project(project: &ProjectName) -> Error {
    Error::new(Kind::NotFound, format!("no project {project}")).hint(NamesHint::List)
}

/// Returns the version that a reference stands for now.
pub(in crate::registry) fn lookup(view: &dyn View, reference: &Reference) -> Result<VersionInfo> {
    let path = &reference.path;
    view.want(&|| {
        let mut want = Want::keys([keys::artifact(path), keys::project(&path.project)]);
        want.keys.push(match &reference.selector {
            Selector::Version(number) => keys::version(path, *number),
            Selector::Alias(alias) => keys::alias(path, alias),
        });
        let (from, to) = keys::below(Space::Alias, path).range();
        want.spans.push(Span { from, to, limit: ALIASES_AT_ONCE });
        Ok(want)
    })?;
    let artifact = known_artifact(view, path)?;
    let not_found = |what: &str| {
        Error::new(Kind::NotFound, format!("{path} has no {what}"))
            .hint(NamesHint::ListVersions(path.to_string()))
    };
    let number = match &reference.selector {
        Selector::Version(number) => *number,
        Selector::Alias(alias) => match view.get(&keys::alias(path, alias))? {
            Some(bytes) => record::decode(&bytes)?,
            None => return Err(not_found(&format!("alias {alias}"))),
        },
    };
    match view.get(&keys::version(path, number))? {
        Some(bytes) => {
            let aliases = aliases(view, path)?;
            Ok(version_info(path, &artifact, &aliases, number, record::decode_version(&bytes)?))
        }
        None => Err(not_found(&format!("version {number}"))),
    }
}

fn version_info(
    path: &ArtifactPath,
    artifact: &ArtifactRecord,
    aliases: &[(Alias, VersionNumber)],
    number: VersionNumber,
    version: VersionRecord,
) -> VersionInfo {
    let mine = aliases.iter().filter(|(_, target)| *target == number);
    let mine: Vec<_> = mine.map(|(alias, _)| alias.clone()).collect();
    let protected: Vec<_> =
        mine.iter().filter(|alias| artifact.protected.contains(alias)).cloned().collect();
    let expires = version.ttl.expires(version.created, artifact.ttl_milliseconds);
    VersionInfo {
        path: path.clone(),
        artifact_type: artifact.artifact_type.clone(),
        number,
        root: version.root,
        totals: version.totals,
        created: version.created,
        time_seconds: version.time_seconds,
        aliases: mine,
        description: version.description,
        metadata: version.metadata,
        tags: version.tags,
        ttl: version.ttl,
        expires: expires.filter(|_| protected.is_empty()),
        protected,
    }
}

/// Returns the count of an artifact's versions; reads them if its record has no count.
pub(in crate::registry) fn count(
    view: &dyn View,
    path: &ArtifactPath,
    artifact: &ArtifactRecord,
) -> Result<VersionCount> {
    if let Some(count) = artifact.count {
        return Ok(count);
    }
    let mut count = VersionCount::default();
    each_below(view, keys::below(Space::Version, path), &mut |key, value| {
        let version = record::decode_version(value)?;
        count.versions += 1;
        count.newest = keys::number_of(key).map(|number| (VersionNumber(number), version.created));
        Ok(())
    })?;
    Ok(count)
}

/// Subtracts a version that was removed from the artifact's count.
pub(in crate::registry) fn count_one_less(
    transaction: &mut dyn Transaction,
    path: &ArtifactPath,
    number: VersionNumber,
) -> Result<()> {
    let mut artifact = known_artifact(&*transaction, path)?;
    let known = artifact.count.is_some();
    let mut count = count(&*transaction, path, &artifact)?;
    if known {
        count.versions = count.versions.saturating_sub(1);
        if count.newest.is_some_and(|(newest, _)| newest == number) {
            count.newest = newest_below(&*transaction, path, number)?
                .map(|(number, version)| (number, version.created));
        }
    }
    artifact.count = Some(count);
    transaction.put(&keys::artifact(path), &record::encode_artifact(&artifact))
}

/// Returns the highest version below `number`. It searches downwards, because an engine scans only
/// upwards; the numbers of deleted versions are gaps.
pub(in crate::registry) fn newest_below(
    view: &dyn View,
    path: &ArtifactPath,
    number: VersionNumber,
) -> Result<Option<(VersionNumber, VersionRecord)>> {
    let (first, _) = keys::below(Space::Version, path).range();
    let mut number = number.0;
    while let Some(below) = number.checked_sub(1) {
        let key = keys::version(path, VersionNumber(below));
        if let Some(bytes) = view.get(&key)? {
            return Ok(Some((VersionNumber(below), record::decode_version(&bytes)?)));
        }
        if view.scan(&first, &key, 1)?.is_empty() {
            return Ok(None);
        }
        number = below;
    }
    Ok(None)
}

/// Returns the entry of an artifact in a listing.
pub(in crate::registry) fn artifact_info(
    view: &dyn View,
    path: ArtifactPath,
    artifact: ArtifactRecord,
) -> Result<ArtifactInfo> {
    let VersionCount { versions, newest } = count(view, &path, &artifact)?;
    Ok(ArtifactInfo {
        path,
        artifact_type: artifact.artifact_type,
        versions,
        newest: newest.map(|(number, _)| number),
        newest_created: newest.map(|(_, created)| created),
        description: artifact.description,
        tags: artifact.tags,
        ttl_milliseconds: artifact.ttl_milliseconds,
        protected: artifact.protected,
    })
}

/// Returns the aliases of an artifact, sorted.
pub(in crate::registry) fn aliases(
    view: &dyn View,
    path: &ArtifactPath,
) -> Result<Vec<(Alias, VersionNumber)>> {
    let prefix = keys::below(Space::Alias, path).done();
    let mut found = Vec::new();
    each_below(view, keys::below(Space::Alias, path), &mut |key, value| {
        found.push((name_in(&key[prefix.len()..])?, record::decode(value)?));
        Ok(())
    })?;
    Ok(found)
}

/// Returns the protected aliases of an artifact that stand for a version.
pub(in crate::registry) fn protected(
    view: &dyn View,
    path: &ArtifactPath,
    artifact: &ArtifactRecord,
) -> Result<Vec<(Alias, VersionNumber)>> {
    let targets = artifact.protected.iter().map(|name| {
        let target = view.get(&keys::alias(path, name))?;
        target.map(|bytes| Ok((name.clone(), record::decode(&bytes)?))).transpose()
    });
    targets.filter_map(Result::transpose).collect()
}

/// Parses a name that is part of a key.
pub(in crate::registry) fn name_in<N: std::str::FromStr>(bytes: &[u8]) -> Result<N> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::new(
            Kind::Corrupt,
            format!("a key of the registry holds \"{}\"", bytes.escape_ascii()),
        )
    })
}

/// Returns the last name in a key that ends with the zero of that name.
fn last_name<N: std::str::FromStr>(key: &[u8]) -> Result<N> {
    let without_end = key.strip_suffix(&[0]).unwrap_or(key);
    let start = without_end.iter().rposition(|b| *b == 0).map_or(1, |at| at + 1);
    name_in(&without_end[start..])
}

/// Makes a project if it does not exist.
pub(in crate::registry) fn open_project(
    transaction: &mut dyn Transaction,
    name: &ProjectName,
    now: Timestamp,
) -> Result<()> {
    let project = keys::project(name);
    if transaction.get(&project)?.is_none() {
        transaction.put(&project, &record::encode(&ProjectRecord { created: now }))?;
    }
    Ok(())
}

impl EngineRegistry {
    pub(in crate::registry) fn projects(&self) -> Result<Vec<ProjectInfo>> {
        self.read(|view| {
            let mut projects = Vec::new();
            each_below(view, Key::of(Space::Project), &mut |key, _| {
                let name: ProjectName = last_name(key)?;
                let mut artifacts = 0;
                let below = Key::of(Space::Artifact).name(name.as_str());
                each_below(view, below, &mut |_, _| {
                    artifacts += 1;
                    Ok(())
                })?;
                projects.push(ProjectInfo { name, artifacts });
                Ok(())
            })?;
            Ok(projects)
        })
    }

    pub(in crate::registry) fn artifacts(
        &self,
        project: &ProjectName,
        after: Option<&ArtifactName>,
        limit: u32,
    ) -> Result<Page<ArtifactInfo>> {
        let of = |artifact: ArtifactName| ArtifactPath { project: project.clone(), artifact };
        let (first, to) = Key::of(Space::Artifact).name(project.as_str()).range();
        let from =
            after.map_or(first, |artifact| keys::next(&keys::artifact(&of(artifact.clone()))));
        self.read(|view| {
            if view.get(&keys::project(project))?.is_none() {
                return Err(no_project(project));
            }
            let found = page(view, &from, &to, limit as usize)?;
            let artifacts = found.items.iter().map(|(key, value)| {
                artifact_info(view, of(last_name(key)?), record::decode_artifact(value)?)
            });
            Ok(Page { items: artifacts.collect::<Result<_>>()?, more: found.more })
        })
    }

    pub(in crate::registry) fn versions(
        &self,
        path: &ArtifactPath,
        after: Option<VersionNumber>,
        limit: u32,
        detail: Detail,
    ) -> Result<Page<VersionInfo>> {
        let first = after.map_or(0, |number| number.0.saturating_add(1));
        let from = keys::version(path, VersionNumber(first));
        let (_, to) = keys::below(Space::Version, path).range();
        self.read(|view| {
            let artifact = known_artifact(view, path)?;
            let found = page(view, &from, &to, limit as usize)?;
            let aliases = aliases(view, path)?;
            let versions = found.items.iter().map(|(key, value)| {
                let number = VersionNumber(keys::number_of(key).unwrap_or_default());
                let mut version = record::decode_version(value)?;
                if detail == Detail::Brief {
                    version.metadata = Metadata::default();
                }
                Ok(version_info(path, &artifact, &aliases, number, version))
            });
            Ok(Page { items: versions.collect::<Result<_>>()?, more: found.more })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;
    use crate::model::host::Host;
    use crate::model::object::{NewObject, PackId};
    use crate::model::object_kind::ObjectKind;
    use crate::registry::engine::Durability;
    use crate::registry::engine::memory::MemoryEngine;
    use crate::registry::{CommitRequest, Registry};

    fn commit(registry: &dyn Registry, seed: u8) {
        let lease = registry.begin("put".into(), format!("h{seed}"), None).unwrap().lease;
        let pack = PackId([seed + 1; 16]);
        registry.register_pack(lease, pack).unwrap();
        let (kind, children) = (ObjectKind::Tree, Vec::new());
        let root = Digest::of(kind, &[seed]);
        let object = NewObject {
            digest: root,
            kind,
            codec: 0,
            body_bytes: 1,
            offset: 0,
            stored_bytes: 1,
            children,
        };
        registry.add_objects(lease, pack, 1, vec![object]).unwrap();
        let request = CommitRequest::plain("p/a".parse().unwrap(), root);
        registry.commit(lease, request).unwrap();
    }

    /// Writes the artifact's record in format 2, without a count.
    fn forget_count(registry: &EngineRegistry, path: &ArtifactPath) {
        let write = |transaction: &mut dyn Transaction| {
            let known = known_artifact(&*transaction, path)?;
            let old = (known.artifact_type, known.next, known.description, known.tags);
            let old = (old.0, old.1, old.2, old.3, known.ttl_milliseconds, known.protected);
            transaction.put(&keys::artifact(path), &record::encode(&old))
        };
        registry.write(Durability::Immediate, write).unwrap();
    }

    #[test]
    fn an_artifact_that_was_recorded_without_a_count_is_counted() {
        let registry =
            EngineRegistry::open(Box::new(MemoryEngine::default()), Host::system().clock).unwrap();
        let path: ArtifactPath = "p/a".parse().unwrap();
        let counted = || {
            let info = registry.artifact(&path).unwrap();
            (info.versions, info.newest.map(|number| number.0))
        };
        for seed in 0..4 {
            commit(&registry, seed);
        }
        forget_count(&registry, &path);
        assert_eq!(counted(), (4, Some(3)));
        registry.delete(&"p/a:v3".parse().unwrap(), true).unwrap();
        assert_eq!(counted(), (3, Some(2)));
        forget_count(&registry, &path);
        commit(&registry, 9);
        assert_eq!(counted(), (4, Some(4)));
    }
}
