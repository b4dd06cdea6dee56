//! Pointers that make one table of a folder of tables.

use serde_json::json;

use super::{POINTER_SUFFIX, Table, no_table};
use crate::error::{Error, Kind, Result};
use crate::model::name::EntryName;
use crate::model::new_version::NewVersion;
use crate::model::version::VersionInfo;
use crate::ops::put::{Insert, PutReport, insert};
use crate::ops::repository::Repository;

/// A pointer that was written.
pub struct Pointer {
    /// The path in the new version.
    pub path: String,
    /// The number of tables that it points to.
    pub parts: u64,
    /// The report on the new version.
    pub report: PutReport,
}

/// Makes a version of the tree of `base` with a pointer to the tables in `folder`. `name` is the
/// pointer's path, with or without `.partitioned-table.json`. Of the content, only the heads of the
/// tables are read.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such folder, or no table in it; as [`Table::open`] if the
/// tables differ; as [`insert`].
pub fn partition(
    repository: &Repository,
    base: &VersionInfo,
    folder: &[EntryName],
    name: &[EntryName],
    version: NewVersion,
) -> Result<Pointer> {
    let shown =
        |path: &[EntryName]| path.iter().map(ToString::to_string).collect::<Vec<_>>().join("/");
    let Some((last, above)) = name.split_last() else {
        return Err(no_table("", "no name"));
    };
    let mut path = above.to_vec();
    path.push(match last.as_bytes().ends_with(POINTER_SUFFIX.as_bytes()) {
        true => last.clone(),
        false => EntryName::try_from([last.as_bytes(), POINTER_SUFFIX.as_bytes()].concat())?,
    });
    let table = Table::of_folder(&repository.reader, base, folder)?;
    if table.parts == 0 {
        let what = format!("{} has no tables in {}", base.reference(), shown(folder));
        return Err(Error::new(Kind::NotFound, what).hint("parts are files named *.table.json"));
    }
    let pointer = json!({ "_type": "partitioned-table", "parts_path": shown(folder) }).to_string();
    let (root, totals) = (base.root, base.totals);
    let with_pointer = Insert { root, totals, path: &path, bytes: pointer.as_bytes() };
    let report = insert(repository, &with_pointer, version)?;
    Ok(Pointer { path: shown(&path), parts: table.parts, report })
}
