//! Projects, artifacts, versions: looking up and listing.

use super::api::Names;
use super::embedded::{Embedded, each_below};
use super::engine::View;
use super::keys::{self, Key, Space};
use super::record::{self, ArtifactRecord, VersionRecord};
use crate::error::{Error, Kind, Result};
use crate::model::name::{Alias, ArtifactName, ProjectName, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::version::{ArtifactInfo, ProjectInfo, VersionInfo};

/// The artifact's record.
pub(super) fn artifact(view: &dyn View, path: &ArtifactPath) -> Result<Option<ArtifactRecord>> {
    view.get(&keys::artifact(path))?.map(|bytes| record::decode(&bytes)).transpose()
}

pub(super) fn known_artifact(view: &dyn View, path: &ArtifactPath) -> Result<ArtifactRecord> {
    if let Some(record) = artifact(view, path)? {
        return Ok(record);
    }
    let project = view.get(&keys::project(&path.project))?;
    let missing = match project {
        Some(_) => format!("no artifact {path}"),
        None => format!("no project {}", path.project),
    };
    Err(Error::new(Kind::NotFound, missing).hint("`artifactfs ls` lists what there is"))
}

/// The version a reference stands for now.
pub(super) fn lookup(view: &dyn View, reference: &Reference) -> Result<VersionInfo> {
    let path = &reference.path;
    let artifact = known_artifact(view, path)?;
    let not_found = |what: &str| {
        Error::new(Kind::NotFound, format!("{path} has no {what}"))
            .hint(format!("`artifactfs ls {path}` lists its versions"))
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
            Ok(version_info(path, &artifact, &aliases, number, record::decode(&bytes)?))
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
        aliases: mine,
        description: version.description,
        metadata: version.metadata,
        tags: version.tags,
        ttl: version.ttl,
        expires: expires.filter(|_| protected.is_empty()),
        protected,
    }
}

/// What a listing says of an artifact.
pub(super) fn artifact_info(
    view: &dyn View,
    path: ArtifactPath,
    artifact: ArtifactRecord,
) -> Result<ArtifactInfo> {
    let below = keys::below(Space::Version, &path);
    let mut info = ArtifactInfo {
        path,
        artifact_type: artifact.artifact_type,
        versions: 0,
        newest: None,
        newest_created: None,
        description: artifact.description,
        tags: artifact.tags,
        ttl_milliseconds: artifact.ttl_milliseconds,
        protected: artifact.protected,
    };
    each_below(view, below, &mut |key, value| {
        info.versions += 1;
        info.newest = keys::number_of(key).map(VersionNumber);
        let version: VersionRecord = record::decode(value)?;
        info.newest_created = Some(version.created);
        Ok(())
    })?;
    Ok(info)
}

/// The aliases of an artifact, sorted.
pub(super) fn aliases(view: &dyn View, path: &ArtifactPath) -> Result<Vec<(Alias, VersionNumber)>> {
    let prefix = keys::below(Space::Alias, path).done();
    let mut found = Vec::new();
    each_below(view, keys::below(Space::Alias, path), &mut |key, value| {
        found.push((name_in(&key[prefix.len()..])?, record::decode(value)?));
        Ok(())
    })?;
    Ok(found)
}

/// A name that stands in a key.
pub(super) fn name_in<N: std::str::FromStr>(bytes: &[u8]) -> Result<N> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::new(
            Kind::Corrupt,
            format!("a key of the registry holds \"{}\"", bytes.escape_ascii()),
        )
    })
}

/// The last name in a key that ends with the zero of that name.
fn last_name<N: std::str::FromStr>(key: &[u8]) -> Result<N> {
    let without_end = key.strip_suffix(&[0]).unwrap_or(key);
    let start = without_end.iter().rposition(|b| *b == 0).map_or(1, |at| at + 1);
    name_in(&without_end[start..])
}

impl Embedded {
    pub(super) fn list_projects(&self) -> Result<Vec<ProjectInfo>> {
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

    fn each_artifact(
        view: &dyn View,
        project: &ProjectName,
        each: &mut dyn FnMut(ArtifactPath, ArtifactRecord) -> Result<()>,
    ) -> Result<()> {
        if view.get(&keys::project(project))?.is_none() {
            return Err(Error::new(Kind::NotFound, format!("no project {project}"))
                .hint("`artifactfs ls` lists what there is"));
        }
        let below = Key::of(Space::Artifact).name(project.as_str());
        each_below(view, below, &mut |key, value| {
            let artifact: ArtifactName = last_name(key)?;
            each(ArtifactPath { project: project.clone(), artifact }, record::decode(value)?)
        })
    }

    pub(super) fn list_artifacts(&self, project: &ProjectName) -> Result<Vec<ArtifactInfo>> {
        self.read(|view| {
            let mut artifacts = Vec::new();
            Self::each_artifact(view, project, &mut |path, artifact| {
                artifacts.push(artifact_info(view, path, artifact)?);
                Ok(())
            })?;
            Ok(artifacts)
        })
    }

    pub(super) fn list_versions(
        &self,
        path: &ArtifactPath,
        after: Option<VersionNumber>,
        limit: u32,
    ) -> Result<Vec<VersionInfo>> {
        self.read(|view| {
            let artifact = known_artifact(view, path)?;
            let first = after.map_or(0, |number| number.0.saturating_add(1));
            let from = keys::version(path, VersionNumber(first));
            let (_, to) = keys::below(Space::Version, path).range();
            let page = view.scan(&from, &to, limit as usize)?;
            let aliases = aliases(view, path)?;
            page.iter()
                .map(|(key, value)| {
                    let number = VersionNumber(keys::number_of(key).unwrap_or_default());
                    Ok(version_info(path, &artifact, &aliases, number, record::decode(value)?))
                })
                .collect()
        })
    }

    pub(super) fn list_names(&self, project: &ProjectName) -> Result<Vec<Names>> {
        self.read(|view| {
            let mut names = Vec::new();
            Self::each_artifact(view, project, &mut |path, _| {
                let mut versions = Vec::new();
                each_below(view, keys::below(Space::Version, &path), &mut |key, _| {
                    versions.extend(keys::number_of(key).map(VersionNumber));
                    Ok(())
                })?;
                let aliases = aliases(view, &path)?;
                names.push(Names { artifact: path.artifact, versions, aliases });
                Ok(())
            })?;
            Ok(names)
        })
    }
}
