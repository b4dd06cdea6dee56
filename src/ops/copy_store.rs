//! Moving a store: every pack of one is copied to another, verified on the way.
//!
//! A pack counts as copied when its index is there: it is written last. So a copy that was interrupted
//! goes on where it was.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::garbage::{runs, span};
use super::maintenance;
use super::put::Progress;
use super::repository::{Repository, Settings};
use crate::content::codec;
use crate::content::pack::IndexEntry;
use crate::content::store::Store;
use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::PackId;
use crate::registry::MaintenanceMode;

/// Packs copied at the same time, each with one run of objects in memory.
const COPIES_AT_ONCE: usize = 4;
/// Zeros written where a local pack has a hole.
const HOLE_STEP_BYTES: u64 = 1 << 20;
/// Packs asked for at once.
const PAGE: u32 = 1_000;

/// What a copy did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Copied {
    /// Packs that were copied.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that were there.
    pub kept: u64,
}

/// The packs of a repository that hold something; without those under a lease unless `also_leased`.
///
/// # Errors
/// When the registry fails.
pub fn packs_of(repository: &Repository, also_leased: bool) -> Result<Vec<PackId>> {
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

/// Copies what was put, and not yet copied, while nobody can put more, and makes the copy the repository's store.
///
/// # Errors
/// [`Kind::Conflict`] while somebody writes, or `in_use` says so; the repository then keeps its store, and what was copied
/// stays.
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
    // What a killed put left under its lease too: the put may be taken up again. Nobody writes under it now.
    let copied = copy(from, to, &packs_of(repository, true)?, progress)?;
    // A daemon may have begun meanwhile.
    in_use()?;
    repository.layout.write_settings(settings)?;
    held.end()?;
    Ok(copied)
}

/// Copies `packs` from one store to another.
///
/// # Errors
/// [`Kind::Corrupt`] for an object that is damaged: its pack is not copied; what the stores say. What was
/// copied stays.
pub fn copy(from: &Store, to: &Store, packs: &[PackId], progress: &dyn Progress) -> Result<Copied> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Copied::default());
    let work = || -> Result<()> {
        while let Some(id) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = copy_pack(from, to, *id).inspect_err(|_| {
                // The others end with what they have begun.
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

/// Copies one pack; its length, or `None` when it was there.
fn copy_pack(from: &Store, to: &Store, id: PackId) -> Result<Option<u64>> {
    let entries = from.read_index(id)?;
    let length = from.pack_length(id)?;
    if is_there(to, id, &entries, length)? {
        return Ok(None);
    }
    // What an interrupted copy left of it.
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

/// Whether an object's bytes, at the beginning of `stored`, are what its digest says.
fn verify(id: PackId, entry: &IndexEntry, stored: &[u8]) -> Result<()> {
    let stored = stored[..entry.stored_bytes as usize].to_vec();
    let body = codec::decode(entry.codec, stored, entry.body_bytes);
    if body.is_ok_and(|body| Digest::of(entry.kind, &body) == entry.digest) {
        return Ok(());
    }
    let what = format!("{} {} in pack {id} is damaged", entry.kind, entry.digest);
    Err(Error::new(Kind::Corrupt, what).hint(DamageHint::VerifyAndDelete))
}
