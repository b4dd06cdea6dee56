//! Objects and files, verified: the one read path.
//!
//! file → chunks → extents → pread → verify → bytes. An object that is no longer in the registry
//! gives [`Kind::Stale`]; bytes that are not what their digest says give [`Kind::Corrupt`].

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::store::Store;
use super::weighted::WeightedLru;
use super::{Locate, codec};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Located, ObjectKind};
use crate::model::recipe::{Piece, RecipeNode};
use crate::model::tree::{Content, TreeNode};

/// Decoded tree and recipe nodes kept: a listing of a million files stays in.
const NODE_CACHE_BYTES: usize = 48 << 20;
/// What a decoded item takes beside its name, roughly: struct, allocation, digest.
const DECODED_ITEM_BYTES: usize = 96;
/// Chunks kept because only part of them was asked for: a sequential reader takes 128 KiB at a time.
const CHUNK_CACHE_BYTES: usize = 32 << 20;
/// Chunks up to this length are always read whole and verified: it costs less than to remember.
const ALWAYS_VERIFIED_BYTES: u32 = 64 << 10;
/// Longer chunks remembered as verified: 32 GiB of content for about 10 MiB of memory.
const VERIFIED_CHUNKS: NonZeroUsize = NonZeroUsize::new(128 << 10).expect("it is not zero");

/// Reads objects of one store.
pub struct Reader {
    store: Arc<Store>,
    locate: Arc<dyn Locate>,
    trees: WeightedLru<Digest, Arc<TreeNode>>,
    recipes: WeightedLru<Digest, Arc<RecipeNode>>,
    chunks: WeightedLru<Digest, Arc<Vec<u8>>>,
    verified: Mutex<LruCache<Digest, ()>>,
}

impl Reader {
    /// A reader of `store`, told by `locate` where things are.
    pub fn new(store: Arc<Store>, locate: Arc<dyn Locate>) -> Self {
        Self {
            store,
            locate,
            trees: WeightedLru::new(NODE_CACHE_BYTES),
            recipes: WeightedLru::new(NODE_CACHE_BYTES / 4),
            chunks: WeightedLru::new(CHUNK_CACHE_BYTES),
            verified: Mutex::new(LruCache::new(VERIFIED_CHUNKS)),
        }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn locate_one(&self, digest: Digest) -> Result<Located> {
        self.locate.locate(&[digest])?.pop().flatten().ok_or_else(|| {
            Error::new(Kind::Stale, format!("object {digest} is not in the repository any more"))
                .hint("the version it belonged to was deleted")
        })
    }

    /// The verified body of an object.
    ///
    /// # Errors
    /// [`Kind::Stale`], [`Kind::Corrupt`], or what the store says.
    pub fn body(&self, digest: Digest) -> Result<Vec<u8>> {
        let located = self.locate_one(digest)?;
        self.body_at(digest, &located)
    }

    /// The verified body of an object whose place is known.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn body_at(&self, digest: Digest, located: &Located) -> Result<Vec<u8>> {
        let read = self.read_and_verify(digest, located);
        if read.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt) {
            // It may have been deleted, and its bytes freed, between the look-up and the read.
            let now = self.locate_one(digest)?;
            if now.extent != located.extent {
                return self.read_and_verify(digest, &now);
            }
        }
        read
    }

    fn read_and_verify(&self, digest: Digest, located: &Located) -> Result<Vec<u8>> {
        let mut stored = vec![0; located.extent.stored_bytes as usize];
        self.store.read(located.extent, 0, &mut stored)?;
        let body = codec::decode(located.codec, stored)?;
        if Digest::of(located.kind, &body) != digest {
            let Located { kind, extent, .. } = located;
            let what =
                format!("{kind} {digest} in pack {} at {} is damaged", extent.pack, extent.offset);
            tracing::error!(%digest, pack = %extent.pack, offset = extent.offset, "damaged {kind}");
            return Err(Error::new(Kind::Corrupt, what)
                .hint("`artifactfs verify` names the files and versions that are hurt"));
        }
        Ok(body)
    }

    /// A tree node.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn tree(&self, digest: Digest) -> Result<Arc<TreeNode>> {
        if let Some(node) = self.trees.get(&digest) {
            return Ok(node);
        }
        let body = self.body(digest)?;
        let node = TreeNode::decode(&body).ok_or_else(|| unknown_format(digest))?;
        let items = match &node {
            TreeNode::Leaf(entries) => entries.len(),
            TreeNode::Inner(children) => children.len(),
        };
        let node = Arc::new(node);
        self.trees.put(digest, Arc::clone(&node), body.len() + items * DECODED_ITEM_BYTES);
        Ok(node)
    }

    /// A recipe node.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn recipe(&self, digest: Digest) -> Result<Arc<RecipeNode>> {
        if let Some(node) = self.recipes.get(&digest) {
            return Ok(node);
        }
        let body = self.body(digest)?;
        let node = Arc::new(RecipeNode::decode(&body).ok_or_else(|| unknown_format(digest))?);
        self.recipes.put(digest, Arc::clone(&node), 2 * body.len());
        Ok(node)
    }

    /// The objects a node points at, each once; none for a chunk.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn children(&self, digest: Digest, kind: ObjectKind) -> Result<Vec<Digest>> {
        match kind {
            ObjectKind::Chunk => Ok(Vec::new()),
            ObjectKind::Tree => Ok(self.tree(digest)?.children()),
            ObjectKind::Recipe => {
                let recipe = self.recipe(digest)?;
                let mut children: Vec<_> = recipe.pieces.iter().map(|p| p.digest).collect();
                children.sort_unstable();
                children.dedup();
                Ok(children)
            }
        }
    }

    /// Fills `buffer` from byte `offset` of a file on; how much was there to read.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub fn read_at(&self, content: &Content, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = content.size_bytes().saturating_sub(offset);
        let wanted = left.min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..wanted];
        match *content {
            _ if wanted == 0 => {}
            Content::Empty => {}
            Content::Chunk { digest, size_bytes } => {
                self.read_chunk(Piece { size_bytes, digest }, offset, buffer)?;
            }
            Content::Recipe { digest, .. } => self.read_recipe(digest, offset, buffer)?,
        }
        Ok(wanted)
    }

    /// `buffer` lies wholly within the recipe.
    fn read_recipe(&self, node: Digest, offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        let node = self.recipe(node)?;
        let mut start = 0;
        let mut offset = offset;
        for piece in &node.pieces {
            let end = start + piece.size_bytes;
            if offset < end && !buffer.is_empty() {
                let step = (end - offset).min(buffer.len() as u64) as usize;
                let (here, rest) = buffer.split_at_mut(step);
                match node.level {
                    0 => self.read_chunk(*piece, offset - start, here)?,
                    _ => self.read_recipe(piece.digest, offset - start, here)?,
                }
                buffer = rest;
                offset += step as u64;
            }
            start = end;
        }
        if buffer.is_empty() { Ok(()) } else { Err(short_recipe()) }
    }

    /// `buffer` lies wholly within the chunk.
    fn read_chunk(&self, piece: Piece, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let digest = piece.digest;
        if let Some(chunk) = self.chunks.get(&digest) {
            return copy_part(&chunk, offset, buffer);
        }
        let located = self.locate_one(digest)?;
        let whole = buffer.len() as u64 == piece.size_bytes;
        if !whole && self.is_verified(&digest) && located.codec == codec::CODEC_RAW {
            self.store.read(located.extent, offset, buffer)?;
            // Deletion takes an object out of the registry before its bytes go. If it is still
            // there and where it was, what was just read was not being freed.
            if self.locate_one(digest)?.extent == located.extent {
                return Ok(());
            }
        }
        let body = self.body_at(digest, &located)?;
        copy_part(&body, offset, buffer)?;
        if located.body_bytes > ALWAYS_VERIFIED_BYTES {
            self.verified.lock().unwrap_or_else(PoisonError::into_inner).put(digest, ());
        }
        if !whole {
            let bytes = body.len();
            self.chunks.put(digest, Arc::new(body), bytes);
        }
        Ok(())
    }

    fn is_verified(&self, digest: &Digest) -> bool {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(digest).is_some()
    }

    /// Calls `each` with every chunk of a file in order; stops at the first error.
    ///
    /// # Errors
    /// As [`Reader::body`], and those of `each`.
    pub fn each_piece(
        &self,
        content: &Content,
        each: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        match *content {
            Content::Empty => Ok(()),
            Content::Chunk { digest, size_bytes } => each(Piece { size_bytes, digest }),
            Content::Recipe { digest, .. } => self.each_recipe_piece(digest, each),
        }
    }

    fn each_recipe_piece(
        &self,
        node: Digest,
        each: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        let node = self.recipe(node)?;
        for piece in &node.pieces {
            match node.level {
                0 => each(*piece)?,
                _ => self.each_recipe_piece(piece.digest, each)?,
            }
        }
        Ok(())
    }
}

fn copy_part(chunk: &[u8], offset: u64, buffer: &mut [u8]) -> Result<()> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let part = start.checked_add(buffer.len()).and_then(|end| chunk.get(start..end));
    buffer.copy_from_slice(part.ok_or_else(short_recipe)?);
    Ok(())
}

fn short_recipe() -> Error {
    Error::new(Kind::Corrupt, "a file's chunks are shorter than the file")
}

fn unknown_format(digest: Digest) -> Error {
    Error::new(Kind::Unsupported, format!("object {digest} has a format this release cannot read"))
        .hint("it was written by a newer artifactfs: upgrade this one")
}
