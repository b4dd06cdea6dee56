//! Lists of projects, artifacts, versions, and the entries of a version.

use super::listing;
use super::repository::Repository;
use super::select::{Selection, each_selected};
use crate::content::directory::{each_entry, resolve};
use crate::error::{Error, Kind, NamesHint, Result};
use crate::model::external::External;
use crate::model::name::{EntryName, ProjectName, Tag};
use crate::model::reference::Reference;
use crate::model::tree::{Content, Entry, Target};
use crate::model::version::{ArtifactInfo, ProjectInfo, VersionInfo};

/// Returns all projects.
pub fn projects(repository: &Repository) -> Result<Vec<ProjectInfo>> {
    repository.registry.projects()
}

/// Returns the artifacts of a project that have all these tags.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such project.
pub fn artifacts(
    repository: &Repository,
    project: &ProjectName,
    tags: &[Tag],
) -> Result<Vec<ArtifactInfo>> {
    let mut artifacts = listing::artifacts(&*repository.registry, project)?;
    artifacts.retain(|artifact| tags.iter().all(|tag| artifact.tags.contains(tag)));
    Ok(artifacts)
}

/// Calls `each` with every version of a selection.
///
/// # Errors
/// As [`each_selected`], and those of `each`.
pub fn versions(
    repository: &Repository,
    selection: &Selection,
    each: &mut dyn FnMut(VersionInfo) -> Result<()>,
) -> Result<()> {
    each_selected(&*repository.registry, selection, each)
}

/// Calls `each` with the entries of the directory at `path` in a version, or with the one file
/// there. With `described`, external files come with their descriptors.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such version or path, and the errors of `each`.
pub fn entries(
    repository: &Repository,
    reference: Reference,
    path: &[EntryName],
    described: bool,
    each: &mut dyn FnMut(&Entry, Option<&External>) -> Result<()>,
) -> Result<()> {
    let info = repository.registry.lookup(reference)?;
    let mut each = |entry: &Entry| match entry.target {
        Target::File { content: Content::External { digest, .. }, .. } if described => {
            each(entry, Some(&*repository.reader.external(digest)?))
        }
        _ => each(entry, None),
    };
    let mut tree = info.root;
    if !path.is_empty() {
        let entry = resolve(&repository.reader, info.root, path)?.ok_or_else(|| {
            let shown: Vec<_> = path.iter().map(ToString::to_string).collect();
            let what = format!("{} has no {}", info.reference(), shown.join("/"));
            Error::new(Kind::NotFound, what)
                .hint(NamesHint::ListFiles(info.reference().to_string()))
        })?;
        match entry.target {
            Target::Directory(digest) => tree = digest,
            _ => return each(&entry),
        }
    }
    each_entry(&repository.reader, tree, &mut each)
}
