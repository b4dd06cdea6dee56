//! Packs: they are filled in path order, and another thread seals them (`seal.rs`).
//!
//! Chunks and nodes go into different packs, so that metadata lies together. Only a small put stores
//! both in one pack. A node is registered after everything it points at. For that, packs are registered in
//! the order in which they were sealed, and a pack of nodes is sealed after the chunks before it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SendError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::seal::{OpenPack, Sealer, give_up};
use crate::content::codec::{CODEC_RAW, encode};
use crate::content::store::Store;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::host::Host;
use crate::model::merkle::Node;
use crate::model::object::{NewObject, PackId};
use crate::model::object_kind::ObjectKind;
use crate::ops::lease::Lease;
use crate::ops::repository::Repository;
use crate::registry::{LeaseId, Registry};

/// The maximum number of packs that wait to be sealed: bounds the bytes that are not yet durable.
const SEALING_PACKS: usize = 2;
/// The length in bytes up to which a pack holds both chunks and nodes, so that a small put makes one
/// pack.
const MIXED_MAX_BYTES: u64 = 1 << 20;

/// A pack that is made of a user's file.
struct SharedPack {
    id: PackId,
    /// The path of the pack, if it is the same inode; a reflink is not.
    linked: Option<PathBuf>,
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
    /// The number of absent objects when the lease began.
    absent: u64,
    shared: Option<OpenPack>,
    solo: Option<OpenPack>,
    /// The pack that `solo` is, if it is made of a user's file.
    shares: Option<SharedPack>,
    nodes: Option<OpenPack>,
    /// True if no more chunks come.
    chunks_ended: bool,
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
            absent: lease.absent(),
            shared: None,
            solo: None,
            shares: None,
            nodes: None,
            chunks_ended: false,
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

    /// Returns those of `nodes` that have a new child, and so are new themselves. `nodes` has
    /// children before parents. While any object is absent it returns none, because the parents of
    /// an absent object may be registered.
    pub(crate) fn new_nodes(&self, nodes: &[Node]) -> HashSet<Digest> {
        let mut new = HashSet::new();
        if self.absent > 0 {
            return new;
        }
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for Node { digest, children, .. } in nodes {
            if children.iter().any(|child| pending.contains(child) || new.contains(child)) {
                new.insert(*digest);
            }
        }
        new
    }

    /// Writes a chunk that is missing.
    pub(crate) fn chunk(&mut self, lane: Lane, digest: Digest, body: &[u8]) -> Result<()> {
        self.append(lane, digest, ObjectKind::Chunk, body, Vec::new())
    }

    /// Writes a node that is missing.
    pub(crate) fn node(&mut self, node: Node) -> Result<()> {
        let lane = if self.is_mixed(node.body.len()) { Lane::Shared } else { Lane::Nodes };
        self.append(lane, node.digest, node.kind, &node.body, node.children)
    }

    /// Notes that no more chunks come. The nodes that follow may go to the last pack of chunks.
    pub(crate) fn end_chunks(&mut self) {
        self.chunks_ended = true;
    }

    /// Returns whether a node of this length goes to the open pack of chunks.
    fn is_mixed(&self, length: usize) -> bool {
        let room = |pack: &OpenPack| pack.writer.length() + length as u64 <= MIXED_MAX_BYTES;
        self.chunks_ended && self.nodes.is_none() && self.shared.as_ref().is_some_and(room)
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
        PackId::new(self.host.random(), self.lease.zone())
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
            let id = PackId::new(self.host.random(), self.lease.zone());
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
