//! Packs: they are filled in path order, and a thread of their own seals them.
//!
//! Chunks and nodes go into different packs, so that metadata lies together. A node is registered
//! after everything it points at. For that, packs are registered in the order in which they were
//! sealed, and a pack of nodes is sealed after the chunks before it.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ScopedJoinHandle};

use crate::content::codec::{CODEC_RAW, encode};
use crate::content::pack::{IndexEntry, PACK_TARGET_BYTES};
use crate::content::store::{PackWriter, Store};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::host::Host;
use crate::model::merkle::Node;
use crate::model::object::{NewObject, PackId};
use crate::model::object_kind::ObjectKind;
use crate::ops::garbage::disown;
use crate::ops::lease::Lease;
use crate::ops::repository::Repository;
use crate::registry::{LeaseId, Registry};

/// The maximum number of packs that wait to be sealed: bounds the bytes that are not yet durable.
const SEALING_PACKS: usize = 2;
/// The number of packs sent to a remote store at the same time. With those that are open or wait,
/// they take some 200 MiB of memory.
const UPLOADS_AT_ONCE: usize = 3;
/// The number of objects registered in one transaction: some 10 MiB. Digests are spread over the
/// whole table, so a transaction rewrites a page for nearly every object. Fewer, larger
/// transactions rewrite each page less often.
const REGISTER_BATCH: usize = 65_536;

struct OpenPack {
    id: PackId,
    writer: PackWriter,
    objects: Vec<NewObject>,
}

/// A pack that is made of a user's file.
struct SharedPack {
    id: PackId,
    /// The path of the pack, if it is the same inode; a reflink is not.
    linked: Option<PathBuf>,
}

impl OpenPack {
    fn is_full(&self) -> bool {
        self.writer.length() >= PACK_TARGET_BYTES
    }
}

/// A pack whose body and index are durable.
struct Durable {
    id: PackId,
    length: u64,
    objects: Vec<NewObject>,
}

/// The pack that an object goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Chunks of many files.
    Shared,
    /// Chunks of one big file.
    Solo,
    /// Recipes and trees.
    Nodes,
}

/// The writer of a put's new objects.
pub(crate) struct Uploader {
    registry: Arc<dyn Registry>,
    store: Arc<Store>,
    host: Host,
    lease: LeaseId,
    shared: Option<OpenPack>,
    solo: Option<OpenPack>,
    /// The pack that `solo` is, if it is made of a user's file.
    shares: Option<SharedPack>,
    nodes: Option<OpenPack>,
    /// The objects that are written and not yet registered.
    pending: Arc<Mutex<HashSet<Digest>>>,
    sealing: Option<SyncSender<OpenPack>>,
    sealer: Option<JoinHandle<Result<()>>>,
    /// A flag of a remote store: bodies are compressed.
    compresses: bool,
    /// Bytes of objects registered under the lease so far.
    stored_bytes: Arc<AtomicU64>,
}

impl Uploader {
    /// Returns an uploader that works under `lease`.
    pub(crate) fn new(repository: &Repository, lease: &Lease) -> Self {
        let remote = repository.store.is_remote();
        let (sealing, sealed) = sync_channel(if remote { 1 } else { SEALING_PACKS });
        let pending = Arc::new(Mutex::new(HashSet::new()));
        let sealer = Sealer {
            registry: Arc::clone(&repository.registry),
            store: Arc::clone(&repository.store),
            lease: lease.id(),
            pending: Arc::clone(&pending),
            stored_bytes: lease.count(),
        };
        Self {
            registry: Arc::clone(&repository.registry),
            store: Arc::clone(&repository.store),
            host: repository.host.clone(),
            lease: lease.id(),
            shared: None,
            solo: None,
            shares: None,
            nodes: None,
            pending,
            sealing: Some(sealing),
            sealer: Some(std::thread::spawn(move || sealer.run(&sealed))),
            compresses: remote,
            stored_bytes: lease.count(),
        }
    }

    /// Returns those of `digests` that must be written. The lease keeps the others.
    pub(crate) fn missing(&mut self, mut digests: Vec<Digest>) -> Result<HashSet<Digest>> {
        {
            let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            digests.retain(|digest| !pending.contains(digest));
        }
        if digests.is_empty() {
            return Ok(HashSet::new());
        }
        Ok(self.registry.missing(self.lease, digests)?.into_iter().collect())
    }

    /// Writes a chunk that is missing.
    pub(crate) fn chunk(&mut self, lane: Lane, digest: Digest, body: &[u8]) -> Result<()> {
        self.append(lane, digest, ObjectKind::Chunk, body, Vec::new())
    }

    /// Writes a node that is missing.
    pub(crate) fn node(&mut self, node: Node) -> Result<()> {
        self.append(Lane::Nodes, node.digest, node.kind, &node.body, node.children)
    }

    /// Returns whether the current big file becomes a pack itself.
    pub(crate) fn is_sharing(&self) -> bool {
        self.shares.is_some()
    }

    /// Returns the path of that pack, if it is the same inode as the file.
    pub(crate) fn shared_path(&self) -> Option<PathBuf> {
        self.shares.as_ref().and_then(|shared| shared.linked.clone())
    }

    fn pack_id(&self) -> PackId {
        PackId(self.host.random().to_be_bytes())
    }

    /// Makes the file at `path` a pack, by a reflink or a hard link. Calls `announce` before it
    /// tries a hard link. Returns `false` if neither is possible.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if the file is not `size_bytes` long.
    pub(crate) fn share(
        &mut self,
        path: &Path,
        size_bytes: u64,
        announce: &dyn Fn() -> Result<()>,
    ) -> Result<bool> {
        let id = self.pack_id();
        self.registry.register_pack(self.lease, id)?;
        let writer = match self.store.reflink(id, path)? {
            Some(writer) => writer,
            None => {
                announce()?;
                match self.store.link(id, path)? {
                    Some(writer) => writer,
                    // There is no pack with that id, which goes with the lease.
                    None => return Ok(false),
                }
            }
        };
        if writer.length() != size_bytes {
            return Err(Error::new(Kind::Conflict, format!("{} changed", path.display()))
                .hint("commit again"));
        }
        let linked = writer.linked();
        self.shares = Some(SharedPack { id, linked });
        self.solo = Some(OpenPack { id, writer, objects: Vec::new() });
        Ok(true)
    }

    /// Adds a missing chunk that lies at `offset` of that file.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if there is no such file.
    pub(crate) fn shared_chunk(
        &mut self,
        digest: Digest,
        length: usize,
        offset: u64,
    ) -> Result<()> {
        let new = self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        if !new {
            return Ok(());
        }
        let body_bytes = u32::try_from(length).map_err(|_| {
            Error::new(Kind::Unsupported, format!("an object of {length} bytes is too long"))
        })?;
        let pack = self.solo.as_mut().ok_or_else(|| {
            Error::new(Kind::Unavailable, "a chunk was added to a file that is not a pack")
        })?;
        pack.objects.push(NewObject {
            digest,
            kind: ObjectKind::Chunk,
            codec: CODEC_RAW,
            body_bytes,
            offset,
            stored_bytes: body_bytes,
            children: Vec::new(),
        });
        Ok(())
    }

    fn append(
        &mut self,
        lane: Lane,
        digest: Digest,
        kind: ObjectKind,
        body: &[u8],
        children: Vec<Digest>,
    ) -> Result<()> {
        let new = self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        if !new {
            return Ok(());
        }
        let slot = match lane {
            Lane::Shared => &mut self.shared,
            Lane::Solo => &mut self.solo,
            Lane::Nodes => &mut self.nodes,
        };
        if slot.is_none() {
            let id = PackId(self.host.random().to_be_bytes());
            // The registry has the id before the disk has the pack, so that no pack is forgotten.
            self.registry.register_pack(self.lease, id)?;
            *slot = Some(OpenPack { id, writer: self.store.create(id)?, objects: Vec::new() });
        }
        let too_long = |_| {
            Error::new(Kind::Unsupported, format!("an object of {} bytes is too long", body.len()))
        };
        let body_bytes = u32::try_from(body.len()).map_err(too_long)?;
        let (codec, stored) =
            if self.compresses { encode(body) } else { (CODEC_RAW, Cow::Borrowed(body)) };
        let stored_bytes = u32::try_from(stored.len()).map_err(too_long)?;
        let pack = slot.as_mut().expect("it was just opened");
        let offset = pack.writer.append(&stored)?;
        pack.objects.push(NewObject {
            digest,
            kind,
            codec,
            body_bytes,
            offset,
            stored_bytes,
            children,
        });
        Ok(())
    }

    /// Seals the pack of the big file.
    pub(crate) fn end_solo(&mut self) -> Result<()> {
        let solo = self.solo.take();
        if let Some(shared) = self.shares.take() {
            tracing::debug!(pack = %shared.id, "a file became a pack");
        }
        self.seal(solo)
    }

    /// Seals full packs of chunks within a big file, which is safe at any time.
    pub(crate) fn between_segments(&mut self) -> Result<()> {
        let shared = self.shared.take_if(|pack| pack.is_full());
        self.seal(shared)?;
        let most = self.store.solo_max_bytes();
        let solo = self.solo.take_if(|pack| pack.writer.length() >= most);
        self.seal(solo)
    }

    /// Seals full packs between two files: nodes only after the chunks they may point at.
    pub(crate) fn between_files(&mut self) -> Result<()> {
        let nodes_full = self.nodes.as_ref().is_some_and(OpenPack::is_full);
        let shared = self.shared.take_if(|pack| nodes_full || pack.is_full());
        self.seal(shared)?;
        if nodes_full {
            let nodes = self.nodes.take();
            self.seal(nodes)?;
        }
        Ok(())
    }

    fn seal(&mut self, pack: Option<OpenPack>) -> Result<()> {
        let (Some(pack), Some(sealing)) = (pack, &self.sealing) else {
            return Ok(());
        };
        match sealing.send(pack) {
            Ok(()) => Ok(()),
            Err(SendError(pack)) => {
                let done = self.join();
                give_up(&*self.registry, &self.store, pack);
                done
            }
        }
    }

    /// Waits for the sealing thread, and returns its error.
    fn join(&mut self) -> Result<()> {
        self.sealing = None;
        let Some(sealer) = self.sealer.take() else {
            return Ok(());
        };
        sealer.join().unwrap_or_else(|_| {
            Err(Error::new(Kind::Unavailable, "the thread that seals packs panicked"))
        })
    }

    /// Seals everything and waits until it is durable and registered. Returns the bytes of new
    /// objects under the lease.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.end_solo()?;
        let (shared, nodes) = (self.shared.take(), self.nodes.take());
        self.seal(shared)?;
        self.seal(nodes)?;
        self.join()?;
        Ok(self.stored_bytes.load(Ordering::Relaxed))
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // The lease is about to be released: nothing may be registered under it after that.
        if let Err(e) = self.join() {
            tracing::debug!("packs of a put that failed were not sealed: {e}");
        }
        let open = [self.shared.take(), self.solo.take(), self.nodes.take()];
        for pack in open.into_iter().flatten() {
            give_up(&*self.registry, &self.store, pack);
        }
    }
}

/// Gives up a pack that is not finished, of which nothing is registered. On a local disk it is
/// removed at once: the registry may need the room to record the end of the lease. A remote pack
/// goes with its lease, or now if that has ended. So does the name of a pack that is also a draft's
/// file, which stays with the draft.
fn give_up(registry: &dyn Registry, store: &Store, pack: OpenPack) {
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

struct Sealer {
    registry: Arc<dyn Registry>,
    store: Arc<Store>,
    lease: LeaseId,
    pending: Arc<Mutex<HashSet<Digest>>>,
    /// Bytes of objects registered under the lease. What could not be registered is not counted: it
    /// is written again, or not needed.
    stored_bytes: Arc<AtomicU64>,
}

impl Sealer {
    /// Stores packs, to a remote store several at a time, and registers them in order: a node is
    /// registered after the objects it points at.
    fn run(&self, packs: &Receiver<OpenPack>) -> Result<()> {
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
