//! The content of files, which consists of pieces or is external.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::{Reader, Wish, unknown_format};
use crate::content::codec;
use crate::content::external::{Readers, Requester};
use crate::content::fetch::{Class, Patience};
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::external::External;
use crate::model::object::Located;
use crate::model::recipe::{Piece, RecipeNode};
use crate::model::tree::Content;

/// The bytes that a descriptor takes beside its texts, roughly.
const EXTERNAL_ITEM_BYTES: usize = 256;
/// The length up to which chunks are always read whole and verified: that costs less than to
/// remember them.
const ALWAYS_VERIFIED_BYTES: u32 = 64 << 10;

impl Reader {
    /// Fills `buffer` from byte `offset` of a file on. Returns the number of bytes read, which is
    /// smaller only at the end of the file.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub(crate) fn read_at(
        &self,
        content: &Content,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let left = content.size_bytes().saturating_sub(offset);
        let wanted = left.min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..wanted];
        match *content {
            _ if wanted == 0 => {}
            Content::Empty => {}
            Content::Chunk { digest, size_bytes } => {
                self.read_chunk(Piece { size_bytes, digest }, offset, buffer, Class::SmallFile)?;
            }
            Content::Recipe { digest, size_bytes } => {
                self.note_stream(digest, &(offset..offset + wanted as u64), size_bytes);
                self.read_recipe(digest, offset, buffer)?;
            }
            Content::External { digest, .. } => self.read_external(digest, offset, buffer)?,
        }
        Ok(wanted)
    }

    /// Returns the external file that an object describes.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub(crate) fn external(&self, digest: Digest) -> Result<Arc<External>> {
        if let Some(external) = self.shared.externals.get(&digest) {
            return Ok(external);
        }
        // The descriptors of a directory lie together, and a reader that lists it needs them all.
        let located = self.locate_one(digest)?;
        let body = self.body_at(digest, &located, Class::SmallFile)?;
        let external = Arc::new(External::decode(&body).ok_or_else(|| unknown_format(digest))?);
        let weight = body.len() + EXTERNAL_ITEM_BYTES;
        self.shared.externals.put(digest, Arc::clone(&external), weight);
        Ok(external)
    }

    /// Refuses a requester that may not read the external file behind `content` at its place.
    ///
    /// # Errors
    /// [`Kind::Denied`], and as [`Reader::body`] if that cannot be found out.
    pub(crate) fn permit(&self, content: &Content, requester: &Requester) -> Result<()> {
        match content {
            Content::External { digest, .. } => {
                self.store().externals().permit(&*self.external(*digest)?, requester)
            }
            Content::Empty | Content::Chunk { .. } | Content::Recipe { .. } => Ok(()),
        }
    }

    /// Returns the users that may read the external file behind `content` at its place, or `None`
    /// if every user may.
    ///
    /// # Errors
    /// As [`Reader::body`], if the descriptor cannot be read.
    pub(crate) fn readers(&self, content: &Content) -> Result<Option<Readers>> {
        match content {
            Content::External { digest, .. } => {
                Ok(self.store().externals().readers(&*self.external(*digest)?))
            }
            Content::Empty | Content::Chunk { .. } | Content::Recipe { .. } => Ok(None),
        }
    }

    fn read_external(&self, digest: Digest, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let external = self.external(digest)?;
        let range = offset..offset + buffer.len() as u64;
        if range.end > external.size_bytes {
            return Err(Error::new(
                Kind::Corrupt,
                "a descriptor gives a smaller size than the entry of its file",
            ));
        }
        let externals = self.store().externals();
        if self.patience == Patience::Deadline {
            let mut streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let wish = streams.note(digest, &range, external.size_bytes);
            drop(streams);
            wish.into_iter().for_each(|range| externals.readahead(digest, &external, &range));
        }
        externals.read(digest, &external, offset, buffer, self.patience, self.requester)
    }

    /// Returns the verified body of the piece at `offset` of a file, for a sequential reader.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub(crate) fn piece(&self, file: &Content, piece: Piece, offset: u64) -> Result<Vec<u8>> {
        let class = match *file {
            Content::Recipe { digest, size_bytes } => {
                self.note_stream(digest, &(offset..offset + piece.size_bytes), size_bytes);
                Class::Piece
            }
            _ => Class::SmallFile,
        };
        let located = self.locate_one(piece.digest)?;
        self.body_at(piece.digest, &located, class)
    }

    /// Notes a read of a big file, and queues a readahead if the read belongs to a stream.
    fn note_stream(&self, file: Digest, read: &Range<u64>, size_bytes: u64) {
        let Some(wishes) = &self.shared.wishes else { return };
        let mut streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(range) = streams.note(file, read, size_bytes) {
            // If more streams wait than can be served, readahead is of no use.
            let _ = wishes.try_send(Wish::Stream(file, range));
        }
    }

    /// Fills `buffer` from byte `offset` of a recipe on. The recipe holds all of these bytes.
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
                    0 => {
                        self.locate_pieces(&node, piece)?;
                        self.read_chunk(*piece, offset - start, here, Class::Piece)?;
                    }
                    _ => self.read_recipe(piece.digest, offset - start, here)?,
                }
                buffer = rest;
                offset += step as u64;
            }
            start = end;
        }
        if buffer.is_empty() { Ok(()) } else { Err(short_recipe()) }
    }

    /// Locates all pieces of a node at once, if the place of `wanted` is not known.
    fn locate_pieces(&self, node: &RecipeNode, wanted: &Piece) -> Result<()> {
        let waits = self.patience != Patience::Now;
        if waits && self.remembers_places() && self.known_location(&wanted.digest).is_none() {
            let digests: Vec<_> = node.pieces.iter().map(|piece| piece.digest).collect();
            self.locate(&digests)?;
        }
        Ok(())
    }

    /// Fills `buffer` from byte `offset` of a chunk on. The chunk holds all of these bytes.
    fn read_chunk(&self, piece: Piece, offset: u64, buffer: &mut [u8], class: Class) -> Result<()> {
        let digest = piece.digest;
        if let Some(chunk) = self.shared.chunks.get(&digest) {
            return copy_part(&chunk, offset, buffer);
        }
        let located = self.locate_one(digest)?;
        let whole = buffer.len() as u64 == piece.size_bytes;
        if !whole && located.codec == codec::CODEC_RAW && self.was_verified(&digest, &located) {
            self.read_store(&located, offset, buffer, class)?;
            if self.still_verified(&digest, &located)? {
                return Ok(());
            }
        }
        let remembers = located.body_bytes > ALWAYS_VERIFIED_BYTES;
        // The state is taken before the read, so that a change during the read is noticed later.
        let state = remembers.then(|| self.store().local_state(located.extent.pack)).flatten();
        let body = self.body_at(digest, &located, class)?;
        copy_part(&body, offset, buffer)?;
        if remembers && let Some(copy) = state.or_else(|| self.cached_copy(&located)) {
            self.shared.verified.lock().unwrap_or_else(PoisonError::into_inner).put(digest, copy);
        }
        if !whole {
            let bytes = body.len();
            self.shared.chunks.put(digest, Arc::new(body), bytes);
        }
        Ok(())
    }

    /// Returns the number of the cached copy of a remote object.
    fn cached_copy(&self, located: &Located) -> Option<u64> {
        self.store().fetcher().and_then(|fetcher| fetcher.instance(located.extent))
    }

    /// Returns the number of the copy in which a chunk was verified.
    fn verified_copy(&self, digest: &Digest) -> Option<u64> {
        self.shared.verified.lock().unwrap_or_else(PoisonError::into_inner).get(digest).copied()
    }

    /// Returns whether this copy was verified before. For a local store it does not look at the
    /// pack: [`Reader::still_verified`] does, after the read.
    fn was_verified(&self, digest: &Digest, located: &Located) -> bool {
        let copy = self.verified_copy(digest);
        copy.is_some() && (!self.store().is_remote() || copy == self.cached_copy(located))
    }

    /// Returns whether the bytes just read came from the copy that was verified. A cache evicts
    /// whole copies only. A local pack must have its old ctime, and the object its old place:
    /// deletion unregisters an object before it frees the bytes.
    fn still_verified(&self, digest: &Digest, located: &Located) -> Result<bool> {
        let store = self.store();
        if store.is_remote() {
            return Ok(self.was_verified(digest, located));
        }
        let state = store.local_state(located.extent.pack);
        Ok(state.is_some()
            && state == self.verified_copy(digest)
            && self.locate_one(*digest)?.extent == located.extent)
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
