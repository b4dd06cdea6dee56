//! Objects and files, verified: the one read path.
//!
//! The path is file → chunks → extents → cached or local? pread : fetch → verify → bytes. An object
//! that is no longer in the registry gives [`Kind::Stale`]; bytes that do not match their digest
//! give [`Kind::Corrupt`].

mod file;
mod pieces;
mod readahead;
mod weighted;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use lru::LruCache;

use super::external::Requester;
use super::fetch::{Class, Fetcher, Patience};
use super::pack::IndexEntry;
use super::store::Store;
use super::{Locate, codec};
use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::object::{Extent, Located, PackId, Presence};
use crate::model::object_kind::ObjectKind;
use crate::model::recipe::RecipeNode;
use crate::model::tree::TreeNode;
use readahead::Streams;
use weighted::WeightedLru;

/// The memory for decoded tree nodes: a listing of a million files stays in. Recipe nodes get a
/// quarter.
const NODE_CACHE_BYTES: usize = 48 << 20;
/// The bytes that a decoded item takes beside its name, roughly: struct, allocation, digest.
const DECODED_ITEM_BYTES: usize = 96;
/// The memory for descriptors of external files.
const EXTERNAL_CACHE_BYTES: usize = 8 << 20;
/// The memory for chunks of which only part was read: a sequential reader takes 128 KiB at a time.
const CHUNK_CACHE_BYTES: usize = 32 << 20;
/// The number of longer chunks remembered as verified: 32 GiB of content for about 10 MiB of
/// memory.
const VERIFIED_CHUNKS: NonZeroUsize = NonZeroUsize::new(128 << 10).expect("it is not zero");

/// The number of objects of a remote store whose places are remembered: some 16 MiB.
const LOCATIONS: NonZeroUsize = NonZeroUsize::new(128 << 10).expect("it is not zero");
/// The number of damaged objects remembered as reported: a program that reads a damaged file in a
/// loop causes one report.
const DOUBTED: NonZeroUsize = NonZeroUsize::new(4 << 10).expect("it is not zero");
/// The number of packs that are remembered as looked up.
const LOOKED_UP_PACKS: NonZeroUsize = NonZeroUsize::new(4 << 10).expect("it is not zero");
/// The number of streams that wait for readahead; more are dropped.
const READAHEAD_QUEUE: usize = 256;

/// A reader of the objects of one store. It is cheap to clone: all clones share its caches.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    patience: Patience,
    /// The user that reads, if that is not this process itself.
    requester: Option<Requester>,
}

struct Shared {
    store: Arc<Store>,
    locate: Arc<dyn Locate>,
    trees: WeightedLru<Digest, Arc<TreeNode>>,
    recipes: WeightedLru<Digest, Arc<RecipeNode>>,
    chunks: WeightedLru<Digest, Arc<Vec<u8>>>,
    externals: WeightedLru<Digest, Arc<External>>,
    /// The chunks that were verified, each with its copy: the instance of a cache's segment, or the
    /// state of a local pack.
    verified: Mutex<LruCache<Digest, u64>>,
    places: Mutex<LruCache<Digest, Located>>,
    doubted: Mutex<LruCache<(Digest, PackId), ()>>,
    streams: Mutex<Streams>,
    wishes: Option<SyncSender<Wish>>,
    /// Packs of which an object was looked up alone, and whether the index was requested since.
    looked_up: Mutex<LruCache<PackId, bool>>,
}

/// Work for the thread that reads ahead.
enum Wish {
    /// A range of a big file is to be fetched.
    Stream(Digest, Range<u64>),
    /// The places of all objects of a pack are to be read from its index.
    Index(PackId),
}

impl Reader {
    /// Returns a reader of `store` that gets the places of objects from `locate`.
    pub(crate) fn new(store: Arc<Store>, locate: Arc<dyn Locate>) -> Self {
        let queue = store.is_remote().then(|| sync_channel(READAHEAD_QUEUE));
        let (wishes, queue) = queue.unzip();
        let shared = Arc::new(Shared {
            store,
            locate,
            trees: WeightedLru::new(NODE_CACHE_BYTES),
            recipes: WeightedLru::new(NODE_CACHE_BYTES / 4),
            chunks: WeightedLru::new(CHUNK_CACHE_BYTES),
            externals: WeightedLru::new(EXTERNAL_CACHE_BYTES),
            verified: Mutex::new(LruCache::new(VERIFIED_CHUNKS)),
            places: Mutex::new(LruCache::new(LOCATIONS)),
            doubted: Mutex::new(LruCache::new(DOUBTED)),
            streams: Mutex::default(),
            wishes,
            looked_up: Mutex::new(LruCache::new(LOOKED_UP_PACKS)),
        });
        if let Some(wishes) = queue {
            let weak = Arc::downgrade(&shared);
            let reads = std::thread::Builder::new().name("ahead".to_owned());
            if let Err(e) = reads.spawn(move || read_ahead(&weak, &wishes)) {
                tracing::warn!("cannot start the readahead thread: {e}");
            }
        }
        Self { shared, patience: Patience::Deadline, requester: None }
    }

    /// Returns the store.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Returns the same reader, but one that never waits for a remote store. Data that is not local
    /// gives [`Kind::WouldBlock`].
    #[must_use]
    pub(crate) fn non_blocking(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            patience: Patience::Now,
            requester: self.requester,
        }
    }

    /// Returns the same reader for another user, whose right to read external files is checked.
    #[must_use]
    pub(crate) fn on_behalf_of(&self, requester: Requester) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            patience: self.patience,
            requester: Some(requester),
        }
    }

    /// Returns whether the places of objects are remembered: the store or the registry is reached
    /// over a network.
    fn remembers_places(&self) -> bool {
        self.store().is_remote() || self.shared.locate.is_far()
    }

    /// Looks up the places of objects that are about to be read, all at once.
    ///
    /// # Errors
    /// The errors of the registry.
    pub(crate) fn look_ahead(&self, digests: &[Digest]) -> Result<()> {
        let unknown = digests.iter().filter(|digest| self.known_location(digest).is_none());
        let unknown: Vec<_> = unknown.copied().collect();
        if unknown.is_empty() { Ok(()) } else { self.locate(&unknown).map(drop) }
    }

    /// Returns the place of each of `digests`; `None` for one that is not in the repository. If
    /// the store or the registry is remote, the places are remembered.
    ///
    /// # Errors
    /// The errors of the registry.
    pub(crate) fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Located>>> {
        let found = self.shared.locate.locate(digests)?;
        if self.remembers_places() {
            let mut places = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
            for (digest, located) in digests.iter().zip(&found) {
                if let Some(located) = located {
                    places.put(*digest, *located);
                }
            }
        }
        Ok(found)
    }

    fn known_location(&self, digest: &Digest) -> Option<Located> {
        let mut places = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(digest).copied()
    }

    fn locate_one(&self, digest: Digest) -> Result<Located> {
        if self.remembers_places() {
            if let Some(located) = self.known_location(&digest) {
                return Ok(located);
            }
            if self.patience == Patience::Now {
                return Err(Error::new(
                    Kind::WouldBlock,
                    "not cached: the place of the object has to be looked up",
                ));
            }
        }
        let located = self.locate(&[digest])?.pop().flatten().ok_or_else(|| {
            Error::new(Kind::Stale, format!("object {digest} is not in the repository any more"))
                .hint("the version it belonged to was deleted")
        })?;
        if self.shared.locate.is_far() {
            self.note_look_up(located.extent.pack);
        }
        Ok(located)
    }

    /// Notes that an object of a pack was looked up over a network. If it is the second one, the
    /// places of all others are learned from the index, which is one request.
    fn note_look_up(&self, pack: PackId) {
        let Some(wishes) = &self.shared.wishes else { return };
        let mut packs = self.shared.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        match packs.get_mut(&pack) {
            None => {
                packs.put(pack, false);
            }
            // If the queue is full, the next look-up tries again.
            Some(requested) if !*requested => {
                *requested = wishes.try_send(Wish::Index(pack)).is_ok();
            }
            Some(_) => {}
        }
    }

    /// Remembers the places of all objects of a pack. One that has moved since is looked up again
    /// when its bytes are not at its place.
    fn learn_places(&self, pack: PackId) -> Result<()> {
        let entries = self.store().read_index(pack)?;
        let mut places = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let IndexEntry { digest, offset, stored_bytes, body_bytes, kind, codec } = entry;
            let extent = Extent { pack, offset, stored_bytes };
            let presence = Presence::Present;
            let located = Located { kind, codec, body_bytes, extent, refs: 0, presence };
            places.get_or_insert(digest, || located);
        }
        Ok(())
    }

    /// Returns the verified body of an object.
    ///
    /// # Errors
    /// [`Kind::Stale`], [`Kind::Corrupt`], or the errors of the store.
    pub(crate) fn body(&self, digest: Digest) -> Result<Vec<u8>> {
        let located = self.locate_one(digest)?;
        self.body_at(digest, &located, Class::Piece)
    }

    /// Returns the verified body of an object whose place is known.
    fn body_at(&self, digest: Digest, located: &Located, class: Class) -> Result<Vec<u8>> {
        let read = self.read_and_verify(digest, located, class);
        if !read.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt) {
            return read;
        }
        // The object may have been deleted, and its bytes freed, or moved between the look-up and
        // the read.
        self.shared.places.lock().unwrap_or_else(PoisonError::into_inner).pop(&digest);
        let now = self.locate_one(digest)?;
        if now.extent != located.extent {
            return self.read_and_verify(digest, &now, class);
        }
        let again = match self.store().fetcher() {
            Some(fetcher) => self.fetch_again(fetcher, digest, &now, class),
            None => self.read_and_verify(digest, &now, class),
        };
        if again.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt) {
            self.doubt(digest, &now);
        }
        again
    }

    /// Reports an object whose bytes were wrong twice.
    fn doubt(&self, digest: Digest, located: &Located) {
        let key = (digest, located.extent.pack);
        let mut doubted = self.shared.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        let new = doubted.put(key, ()).is_none();
        drop(doubted);
        if new && !located.is_absent() {
            self.shared.locate.doubt(digest, located.extent);
        }
    }

    /// Has the store fetch a range of a big file.
    fn read_stream_ahead(&self, file: Digest, range: &Range<u64>) -> Result<()> {
        let digests: Vec<_> =
            self.pieces_in(file, range)?.iter().map(|piece| piece.digest).collect();
        if let Some(fetcher) = self.store().fetcher() {
            for (pack, range) in self.extents(&digests)? {
                fetcher.readahead(pack, range);
            }
        }
        Ok(())
    }

    /// Returns the objects that the node stored at `located` points at, each once. It neither uses
    /// nor fills a cache of nodes, and does not query the registry.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a node that is damaged or missing, or the errors of the store.
    pub(crate) fn children_at(&self, digest: Digest, located: &Located) -> Result<Vec<Digest>> {
        if located.kind == ObjectKind::Chunk {
            return Ok(Vec::new());
        }
        children_in(digest, located.kind, &self.check_at(digest, located)?)
    }

    /// Returns the verified body of the object stored at `located`.
    ///
    /// # Errors
    /// As [`Reader::children_at`].
    pub(crate) fn check_at(&self, digest: Digest, located: &Located) -> Result<Vec<u8>> {
        if located.extent.pack == PackId::NONE {
            return Err(lost(digest));
        }
        let read = self.read_and_verify(digest, located, Class::Piece);
        match (read, self.store().fetcher()) {
            (Err(e), Some(fetcher)) if e.kind() == Kind::Corrupt => {
                self.fetch_again(fetcher, digest, located, Class::Piece)
            }
            (read, _) => read,
        }
    }

    /// Fetches bytes once more, past the cache, after those of the cache or of the store were
    /// wrong.
    fn fetch_again(
        &self,
        fetcher: &Arc<Fetcher>,
        digest: Digest,
        located: &Located,
        class: Class,
    ) -> Result<Vec<u8>> {
        fetcher.counters.wrong();
        fetcher.distrust(located.extent);
        let stored = fetcher.refetch(located.extent, class).map_err(|e| match e.kind() {
            Kind::NotFound => Error::new(Kind::Corrupt, "a pack is missing").because(e),
            _ => e,
        })?;
        verify(digest, located, stored.to_vec())
    }

    fn read_and_verify(&self, digest: Digest, located: &Located, class: Class) -> Result<Vec<u8>> {
        if located.extent.pack == PackId::NONE {
            return Err(lost(digest));
        }
        let mut stored = vec![0; located.extent.stored_bytes as usize];
        self.read_store(located, 0, &mut stored, class)?;
        verify(digest, located, stored)
    }

    fn read_store(
        &self,
        located: &Located,
        skip: u64,
        buffer: &mut [u8],
        class: Class,
    ) -> Result<()> {
        let class = if located.kind == ObjectKind::Chunk { class } else { Class::Node };
        self.store().read(located.extent, skip, buffer, class, self.patience)
    }

    /// Returns a tree node.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub(crate) fn tree(&self, digest: Digest) -> Result<Arc<TreeNode>> {
        if let Some(node) = self.shared.trees.get(&digest) {
            return Ok(node);
        }
        let body = self.body(digest)?;
        let node = TreeNode::decode(digest, &body).ok_or_else(|| unknown_format(digest))?;
        let items = match &node {
            TreeNode::Leaf(entries) => entries.len(),
            TreeNode::Inner(children) => children.len(),
        };
        let node = Arc::new(node);
        self.shared.trees.put(digest, Arc::clone(&node), body.len() + items * DECODED_ITEM_BYTES);
        Ok(node)
    }

    /// Returns a recipe node.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub(crate) fn recipe(&self, digest: Digest) -> Result<Arc<RecipeNode>> {
        if let Some(node) = self.shared.recipes.get(&digest) {
            return Ok(node);
        }
        let body = self.body(digest)?;
        let node =
            Arc::new(RecipeNode::decode(digest, &body).ok_or_else(|| unknown_format(digest))?);
        self.shared.recipes.put(digest, Arc::clone(&node), 2 * body.len());
        Ok(node)
    }

    /// Returns the objects that a node points at, each once; none for a chunk.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn children(&self, digest: Digest, kind: ObjectKind) -> Result<Vec<Digest>> {
        match kind {
            ObjectKind::Chunk => Ok(Vec::new()),
            ObjectKind::Tree => Ok(self.tree(digest)?.children()),
            ObjectKind::Recipe => Ok(self.recipe(digest)?.children()),
        }
    }
}

/// Fetches the ranges that streams will read, until the reader is gone.
fn read_ahead(reader: &Weak<Shared>, wishes: &Receiver<Wish>) {
    for wish in wishes {
        let Some(shared) = reader.upgrade() else { return };
        let reader = Reader { shared, patience: Patience::Deadline, requester: None };
        let done = match wish {
            Wish::Stream(file, range) => reader.read_stream_ahead(file, &range),
            Wish::Index(pack) => reader.learn_places(pack),
        };
        if let Err(e) = done {
            tracing::debug!("readahead failed: {e}");
        }
    }
}

/// Returns the children of an object whose bytes in the store are at hand.
///
/// # Errors
/// [`Kind::Corrupt`] if the bytes do not match the digest.
pub fn stored_children(digest: Digest, located: &Located, stored: Vec<u8>) -> Result<Vec<Digest>> {
    children_in(digest, located.kind, &verify(digest, located, stored)?)
}

/// Returns the children in the verified body of an object.
fn children_in(digest: Digest, kind: ObjectKind, body: &[u8]) -> Result<Vec<Digest>> {
    match kind {
        ObjectKind::Chunk => return Ok(Vec::new()),
        ObjectKind::Tree => TreeNode::decode(digest, body).map(|node| node.children()),
        ObjectKind::Recipe => RecipeNode::decode(digest, body).map(|node| node.children()),
    }
    .ok_or_else(|| unknown_format(digest))
}

/// Decodes `stored`, and returns the body if it matches the digest.
fn verify(digest: Digest, located: &Located, stored: Vec<u8>) -> Result<Vec<u8>> {
    let Located { kind, codec, body_bytes, extent, .. } = *located;
    let body = codec::decode(codec, stored, body_bytes);
    match body {
        Err(e) if e.kind() != Kind::Corrupt => return Err(e),
        Ok(body) if digest.is_of(kind, &body) => return Ok(body),
        _ => {}
    }
    let what = format!("{kind} {digest} in pack {} at {} is damaged", extent.pack, extent.offset);
    tracing::error!(%digest, pack = %extent.pack, offset = extent.offset, "damaged {kind}");
    Err(Error::new(Kind::Corrupt, what).hint(DamageHint::VerifyAndPut))
}

fn lost(digest: Digest) -> Error {
    Error::new(Kind::Corrupt, format!("object {digest} is lost")).hint(DamageHint::PutGoodCopy)
}

/// Returns the error for an object of a format that a newer release may read.
pub(crate) fn unknown_format(digest: Digest) -> Error {
    Error::new(Kind::Unsupported, format!("object {digest} has a format this release cannot read"))
        .hint("it was written by a newer artifactfs: upgrade this one")
}
