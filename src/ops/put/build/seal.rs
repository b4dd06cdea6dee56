//! The sealing of packs, by a thread of their own: body, index, registration.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use crate::content::pack::{IndexEntry, PACK_TARGET_BYTES};
use crate::content::store::{PackWriter, Store};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{NewObject, PackId};
use crate::ops::garbage::disown;
use crate::registry::{LeaseId, Registry};

/// The number of packs sent to a remote store at the same time. With those that are open or wait,
/// they take some 200 MiB of memory.
const UPLOADS_AT_ONCE: usize = 3;
/// The number of objects registered in one transaction: some 10 MiB. Digests are spread over the
/// whole table, so a transaction rewrites a page for nearly every object. Fewer, larger
/// transactions rewrite each page less often.
const REGISTER_BATCH: usize = 65_536;

/// A pack that is being filled.
pub(super) struct OpenPack {
    pub(super) id: PackId,
    pub(super) writer: PackWriter,
    pub(super) objects: Vec<NewObject>,
}

impl OpenPack {
    /// Returns whether nothing more goes into the pack.
    pub(super) fn is_full(&self) -> bool {
        self.writer.length() >= PACK_TARGET_BYTES
    }
}

/// A pack whose body and index are durable.
struct Durable {
    id: PackId,
    length: u64,
    objects: Vec<NewObject>,
}

/// Gives up a pack that is not finished, of which nothing is registered. On a local disk it is
/// removed at once: the registry may need the room to record the end of the lease. A remote pack
/// goes with its lease, or now if that has ended. So does the name of a pack that is also a draft's
/// file, which stays with the draft.
pub(super) fn give_up(registry: &dyn Registry, store: &Store, pack: OpenPack) {
    let OpenPack { id, writer, .. } = pack;
    let linked = writer.linked().is_some();
    drop(writer);
    give_up_stored(registry, store, id, linked);
}

fn give_up_stored(registry: &dyn Registry, store: &Store, id: PackId, linked: bool) {
    if linked || store.is_remote() {
        return disown(registry, store, id);
    }
    if let Err(e) = store.remove(id) {
        tracing::debug!(pack = %id, "an unfinished pack goes with its lease: {e}");
    }
}

/// The thread that seals the packs of a put.
pub(super) struct Sealer {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) store: Arc<Store>,
    pub(super) lease: LeaseId,
    /// The objects that are written and not yet registered.
    pub(super) pending: Arc<Mutex<HashSet<Digest>>>,
    /// Bytes of objects registered under the lease. What could not be registered is not counted: it
    /// is written again, or not needed.
    pub(super) stored_bytes: Arc<AtomicU64>,
}

impl Sealer {
    /// Stores packs, to a remote store several at a time, and registers them in order: a node is
    /// registered after the objects it points at.
    pub(super) fn run(&self, packs: &Receiver<OpenPack>) -> Result<()> {
        let at_once = if self.store.is_remote() { UPLOADS_AT_ONCE } else { 1 };
        std::thread::scope(|scope| {
            let mut under_way = VecDeque::new();
            let mut done = Ok(());
            for pack in packs {
                if under_way.len() >= at_once {
                    done = self.register_next(&mut under_way);
                    if done.is_err() {
                        give_up(&*self.registry, &self.store, pack);
                        break;
                    }
                }
                under_way.push_back(scope.spawn(move || self.store_pack(pack)));
            }
            for pack in packs.try_iter() {
                give_up(&*self.registry, &self.store, pack);
            }
            // Also after a failure: packs that were stored are kept for the next try.
            while !under_way.is_empty() {
                let registered = self.register_next(&mut under_way);
                done = done.and(registered);
            }
            done
        })
    }

    fn register_next(
        &self,
        under_way: &mut VecDeque<ScopedJoinHandle<'_, Result<Durable>>>,
    ) -> Result<()> {
        let panicked = |_| Err(Error::new(Kind::Unavailable, "an upload panicked"));
        match under_way.pop_front() {
            Some(upload) => self.register(upload.join().unwrap_or_else(panicked)?),
            None => Ok(()),
        }
    }

    /// Makes the body, then the index of a pack durable, both before [`Self::register`].
    fn store_pack(&self, pack: OpenPack) -> Result<Durable> {
        let OpenPack { id, writer, objects } = pack;
        let linked = writer.linked().is_some();
        let store = || -> Result<u64> {
            let length = writer.finish()?;
            let entries: Vec<IndexEntry> = objects.iter().map(IndexEntry::from).collect();
            self.store.write_index(id, &entries)?;
            Ok(length)
        };
        let failed = |_: &Error| give_up_stored(&*self.registry, &self.store, id, linked);
        let length = store().inspect_err(failed)?;
        Ok(Durable { id, length, objects })
    }

    /// Removes a pack that could not be registered, if its lease has ended: its end removed only
    /// the files that were there then.
    fn disown(&self, id: PackId) {
        disown(&*self.registry, &self.store, id);
    }

    /// Registers the objects of a durable pack.
    fn register(&self, pack: Durable) -> Result<()> {
        let id = pack.id;
        self.register_objects(pack).inspect_err(|_| self.disown(id))
    }

    fn register_objects(&self, pack: Durable) -> Result<()> {
        let Durable { id, length, objects } = pack;
        let digests: Vec<Digest> = objects.iter().map(|object| object.digest).collect();
        let mut objects = objects.into_iter();
        loop {
            let batch: Vec<_> = objects.by_ref().take(REGISTER_BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let bytes = batch.iter().map(|object| u64::from(object.stored_bytes)).sum();
            let added = self.registry.add_objects(self.lease, id, length, batch)?;
            if let Some(lost) = added.missing.first() {
                let what =
                    format!("object {lost} was deleted before the version that needs it was made");
                return Err(Error::new(Kind::Stale, what).hint("try again"));
            }
            self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        digests.iter().for_each(|digest| {
            pending.remove(digest);
        });
        Ok(())
    }
}
