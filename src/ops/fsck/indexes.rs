//! Indexes of packs: a damaged or missing one is made again from the table, which has the same
//! facts.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{LiveTable, Table};
use crate::content::pack::IndexEntry;
use crate::error::{Kind, Result};
use crate::model::counted::counted;
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId};
use crate::ops::repository::Repository;

/// The number of indexes made in one pass over the table. It bounds memory to some 300 MiB for
/// packs of the smallest objects.
const INDEXES_AT_ONCE: usize = 64;

/// Returns what is wrong with the index of a pack in which the table has `objects` objects.
pub(crate) fn check_index(
    repository: &Repository,
    id: PackId,
    objects: u64,
) -> Result<Option<String>> {
    match repository.store.read_index(id) {
        Ok(entries) if (entries.len() as u64) < objects => Ok(Some(format!(
            "the index of pack {id} names {} of {}",
            entries.len(),
            counted(objects, "object")
        ))),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == Kind::NotFound => {
            Ok(Some(format!("the index of pack {id} is missing")))
        }
        Err(e) if e.kind() == Kind::Corrupt => Ok(Some(e.message())),
        Err(e) => Err(e),
    }
}

/// Replaces the indexes of `packs`. Returns the number of indexes it wrote.
///
/// # Errors
/// If registry or store fail, the next repair writes the others.
pub(crate) fn write_indexes(repository: &Repository, packs: &BTreeSet<PackId>) -> Result<u64> {
    let packs: Vec<PackId> = packs.iter().copied().collect();
    let mut written = 0;
    for some in packs.chunks(INDEXES_AT_ONCE) {
        for (id, entries) in entries_of(repository, some)? {
            repository.store.write_index(id, &entries)?;
            written += 1;
        }
    }
    Ok(written)
}

/// Returns what the table has in these packs, in the order of offsets.
fn entries_of(
    repository: &Repository,
    packs: &[PackId],
) -> Result<BTreeMap<PackId, Vec<IndexEntry>>> {
    let mut found: BTreeMap<PackId, Vec<IndexEntry>> =
        packs.iter().map(|id| (*id, Vec::new())).collect();
    LiveTable(repository).each(&mut |digest, located| {
        if let Some(entries) = found.get_mut(&located.extent.pack) {
            entries.push(entry(digest, &located));
        }
        Ok(())
    })?;
    found.values_mut().for_each(|entries| entries.sort_unstable_by_key(|entry| entry.offset));
    Ok(found)
}

fn entry(digest: Digest, located: &Located) -> IndexEntry {
    IndexEntry {
        digest,
        offset: located.extent.offset,
        stored_bytes: located.extent.stored_bytes,
        body_bytes: located.body_bytes,
        kind: located.kind,
        codec: located.codec,
    }
}
