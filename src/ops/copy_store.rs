//! Moving a store: every pack is copied to another store, and verified on the way.
//!
//! A pack counts as copied if its index is there, because the index is written last. So an
//! interrupted copy resumes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::garbage::{runs, span};
use super::maintenance;
use super::put::Progress;
use super::repository::{Repository, Settings};
use super::shared;
use crate::content::codec;
use crate::content::pack::IndexEntry;
use crate::content::store::Store;
use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::object::PackId;
use crate::registry::MaintenanceMode;

/// The number of packs copied at the same time, each with one run of objects in memory.
const COPIES_AT_ONCE: usize = 4;
/// The number of zeros written at once where a local pack has a hole.
const HOLE_STEP_BYTES: u64 = 1 << 20;
/// The number of packs read at once.
const PAGE: u32 = 1_000;

/// The result of a copy.
#[derive(Debug, Default, Clone, Copy)]
pub struct Copied {
    /// Packs that were copied.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that were there already.
    pub kept: u64,
}

/// Returns the packs of a repository that hold something; without those under a lease unless
/// `also_leased`.
pub fn packs_of(repository: &Repository, also_leased: bool) -> Result<Vec<PackId>> {
    repository.refuse_served()?;
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let page = repository.registry.scan_packs(after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(ids);
        };
        after = Some(last.id);
        let wanted = page.iter().filter(|pack| also_leased || !pack.leased);
        ids.extend(wanted.filter(|pack| pack.live_objects > 0).map(|pack| pack.id));
    }
}

/// Copies what was put and not yet copied, while no put can run. Then it makes the copy the
/// repository's store.
///
/// # Errors
/// [`Kind::Conflict`] while a put runs, or the error of `in_use`. The repository then keeps
/// its store, and the copied packs stay.
pub fn move_to(
    repository: &Repository,
    (from, to): (&Store, &Store),
    settings: &Settings,
    in_use: &dyn Fn() -> Result<()>,
    progress: &dyn Progress,
) -> Result<Copied> {
    let held = maintenance::begin(repository, MaintenanceMode::Copy)?;
    in_use()?;
    if to.is_writable() {
        to.claim(&settings.id)?;
    }
    // Packs that a killed put left under its lease are copied too: the put may be resumed. Nobody
    // writes under the lease now.
    let copied = copy(from, to, &packs_of(repository, true)?, progress)?;
    // A daemon may have started meanwhile.
    in_use()?;
    shared::replace(repository, settings, &held.holder)?;
    held.end()?;
    Ok(copied)
}

/// Copies `packs` from one store to another.
///
/// # Errors
/// [`Kind::Corrupt`] for a damaged object: its pack is not copied. Packs that were copied stay.
pub fn copy(from: &Store, to: &Store, packs: &[PackId], progress: &dyn Progress) -> Result<Copied> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Copied::default());
    let work = || -> Result<()> {
        while let Some(id) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = copy_pack(from, to, *id).inspect_err(|_| {
                // The other threads finish the packs they have begun.
                next.store(packs.len(), Ordering::Relaxed);
            })?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match bytes {
                Some(bytes) => {
                    done.packs += 1;
                    done.bytes += bytes;
                }
                None => done.kept += 1,
            }
            progress.advance(1, bytes.unwrap_or_default());
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..COPIES_AT_ONCE).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Err(Error::new(Kind::Unavailable, "a copy panicked"));
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(panicked))
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Copies one pack. Returns its length, or `None` if it was there.
fn copy_pack(from: &Store, to: &Store, id: PackId) -> Result<Option<u64>> {
    let entries = from.read_index(id)?;
    let length = from.pack_length(id)?;
    if is_there(to, id, &entries, length)? {
        return Ok(None);
    }
    // An interrupted copy may have left a part of it.
    to.remove(id)?;
    let mut writer = to.create(id)?;
    for run in runs(&entries) {
        let (start, end) = span(run);
        while writer.length() < start {
            let zeros = vec![0; (start - writer.length()).min(HOLE_STEP_BYTES) as usize];
            writer.append(&zeros)?;
        }
        let bytes = from.read_raw(id, start, (end - start) as usize)?;
        for entry in run {
            verify(id, entry, &bytes[(entry.offset - start) as usize..])?;
        }
        writer.append(&bytes)?;
    }
    while writer.length() < length {
        let zeros = vec![0; (length - writer.length()).min(HOLE_STEP_BYTES) as usize];
        writer.append(&zeros)?;
    }
    writer.finish()?;
    to.write_index(id, &entries)?;
    Ok(Some(length))
}

fn is_there(to: &Store, id: PackId, entries: &[IndexEntry], length: u64) -> Result<bool> {
    let found = match to.read_index(id) {
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => return Ok(false),
        found => found?,
    };
    match to.pack_length(id) {
        Err(e) if e.kind() == Kind::NotFound => Ok(false),
        there => Ok(found == entries && there? == length),
    }
}

/// Checks that the bytes of an object, at the beginning of `stored`, match its digest.
fn verify(id: PackId, entry: &IndexEntry, stored: &[u8]) -> Result<()> {
    let stored = stored[..entry.stored_bytes as usize].to_vec();
    let body = codec::decode(entry.codec, stored, entry.body_bytes);
    if body.is_ok_and(|body| entry.digest.is_of(entry.kind, &body)) {
        return Ok(());
    }
    let what = format!("{} {} in pack {id} is damaged", entry.kind, entry.digest);
    Err(Error::new(Kind::Corrupt, what).hint(DamageHint::VerifyAndDelete))
}
