//! Unknown packs, which the store has and the registry does not. They come from an upload that
//! ended after its lease, or from a registry that was restored from a copy. They stay until a user
//! has them removed.

use super::table::PAGE;
use crate::error::{Kind, Result};
use crate::model::counted::counted;
use crate::model::object::PackId;
use crate::ops::maintenance;
use crate::ops::repository::Repository;
use crate::registry::MaintenanceMode;

/// The age in milliseconds below which packs are never removed: they may belong to a put that goes
/// on elsewhere.
pub const UNKNOWN_AGE_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

/// A pack that the registry does not have.
pub struct UnknownPack {
    /// Its id.
    pub id: PackId,
    /// The length in bytes; 0 if only an index or an upload note is left.
    pub length_bytes: u64,
    /// The time of writing, in milliseconds since 1970.
    pub modified: u64,
    /// The number of objects that its index names; `None` if there is no index that can be read.
    pub objects: Option<usize>,
}

impl UnknownPack {
    /// Returns a line for people.
    pub(crate) fn describe(&self) -> String {
        let holds = match self.objects {
            Some(objects) => counted(objects, "object"),
            None => "no index that can be read".to_owned(),
        };
        let (id, length) = (self.id, counted(self.length_bytes, "byte"));
        format!("pack {id} in the store is not in the registry: {length}, {holds}; it stays")
    }
}

/// Returns the unknown packs, in the order of ids.
pub(crate) fn find(repository: &Repository) -> Result<Vec<UnknownPack>> {
    let mut unknown = repository.store.list_left()?;
    let mut after = None;
    loop {
        let page = repository.registry.scan_packs(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for pack in &page {
            unknown.remove(&pack.id);
        }
    }
    let mut packs = Vec::new();
    for id in unknown {
        // A put may have announced it, and written it, since the store was listed.
        if repository.registry.pack(id)?.is_some() {
            continue;
        }
        let (length_bytes, modified) = match repository.store.age(id) {
            // It is in a folder that is not its own, where no reader looks. It never counts as old.
            Err(e) if e.kind() == Kind::NotFound => (0, u64::MAX),
            found => found?,
        };
        let objects = match repository.store.read_index(id) {
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => None,
            entries => Some(entries?.len()),
        };
        packs.push(UnknownPack { id, length_bytes, modified, objects });
    }
    packs.sort_unstable_by_key(|pack| pack.id);
    Ok(packs)
}

/// Removes unknown packs that are older than [`UNKNOWN_AGE_MILLISECONDS`]. Returns those that were
/// removed, and those that are too young.
///
/// # Errors
/// [`Kind::Conflict`] while a writer is active.
pub fn remove_unknown(repository: &Repository) -> Result<(Vec<UnknownPack>, Vec<UnknownPack>)> {
    repository.refuse_served()?;
    let held = maintenance::begin(repository, MaintenanceMode::Repair)?;
    let now = repository.registry.now()?.0;
    let (old, young): (Vec<_>, Vec<_>) = find(repository)?
        .into_iter()
        .partition(|pack| now.saturating_sub(pack.modified) > UNKNOWN_AGE_MILLISECONDS);
    for pack in &old {
        repository.store.remove(pack.id)?;
    }
    held.end()?;
    Ok((old, young))
}
