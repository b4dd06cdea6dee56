//! A pack that is being written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::local::LocalWriter;
use crate::content::pack::{PACK_MAX_BYTES, pack_key};
use crate::content::remote::{Client, Parts};
use crate::error::{Error, Kind, Result};
use crate::model::object::PackId;

/// The shortest part of an upload in parts, and the longest upload in one (S3 wants 5 MiB).
const PART_BYTES: usize = 8 << 20;
/// The extension of the note of an upload in parts.
pub(super) const NOTE: &str = "upload";
/// The extensions of the files that may be left of a pack.
pub(super) const LEFT: [&str; 2] = ["idx", NOTE];

/// A pack that is being written.
pub struct PackWriter {
    to: To,
}

enum To {
    Local(LocalWriter),
    Remote(Box<RemoteWriter>),
}

/// A usual pack is held in memory and sent as one object, so that an upload that breaks off leaves
/// nothing in the store. A longer pack is sent in parts.
struct RemoteWriter {
    client: Arc<Client>,
    key: String,
    /// The key of the note of an upload in parts.
    note: String,
    length: u64,
    held: BytesMut,
    parts: Option<Parts>,
    /// The number of parts that were sent.
    sent: usize,
}

/// Returns the length of the next part. Parts grow, because an object has 10,000 at most (S3): so
/// it may have 2 TB.
fn part_bytes(sent: usize) -> usize {
    PART_BYTES << (sent / PARTS_OF_A_LENGTH).min(5)
}

/// The number of parts of the same length that follow each other.
const PARTS_OF_A_LENGTH: usize = 1_500;

impl PackWriter {
    pub(super) fn local(writer: LocalWriter) -> Self {
        Self { to: To::Local(writer) }
    }

    pub(super) fn remote(client: &Arc<Client>, id: PackId) -> Self {
        let client = Arc::clone(client);
        let (key, note) = (pack_key(id, "pack"), pack_key(id, NOTE));
        let held = BytesMut::new();
        let writer = RemoteWriter { client, key, note, length: 0, held, parts: None, sent: 0 };
        Self { to: To::Remote(Box::new(writer)) }
    }

    /// Returns the path of the pack's file, if it is another name of a file that existed.
    pub(crate) fn linked(&self) -> Option<PathBuf> {
        match &self.to {
            To::Local(local) => local.is_linked().then(|| Path::to_owned(local.path())),
            To::Remote(_) => None,
        }
    }

    /// Appends `bytes`, and returns the offset at which they begin.
    ///
    /// # Errors
    /// If they cannot be written, [`Kind::Full`] on a full disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        match &mut self.to {
            To::Local(local) => local.append(bytes),
            To::Remote(remote) => remote.append(bytes),
        }
    }

    /// Returns the number of bytes written so far.
    pub(crate) fn length(&self) -> u64 {
        match &self.to {
            To::Local(local) => local.length(),
            To::Remote(remote) => remote.length,
        }
    }

    /// Makes the body durable, and returns its length. The name becomes durable with its index.
    ///
    /// # Errors
    /// If the disk or the store fails.
    pub fn finish(self) -> Result<u64> {
        match self.to {
            To::Local(local) => local.finish(),
            To::Remote(remote) => (*remote).finish(),
        }
    }
}

impl RemoteWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let offset = self.length;
        self.held.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        if self.parts.is_some() || self.length > PACK_MAX_BYTES {
            let length = part_bytes(self.sent);
            while self.held.len() >= length {
                let part = self.held.split_to(length).freeze();
                self.send(part)?;
            }
        }
        Ok(offset)
    }

    fn send(&mut self, part: Bytes) -> Result<()> {
        let client = Arc::clone(&self.client);
        if self.parts.is_none() {
            self.parts = Some(client.wait(client.begin(&self.key, &self.note))?);
        }
        let parts = self
            .parts
            .as_mut()
            .ok_or_else(|| Error::new(Kind::Unavailable, format!("{} was not begun", self.key)))?;
        self.sent += 1;
        client.wait(parts.send(part))
    }

    fn finish(mut self) -> Result<u64> {
        let rest = self.held.split().freeze();
        let client = Arc::clone(&self.client);
        if self.parts.is_some() {
            if !rest.is_empty() {
                self.send(rest)?;
            }
            if let Some(parts) = self.parts.take() {
                client.wait(parts.finish())?;
            }
        } else {
            client.wait(client.put(&self.key, rest))?;
        }
        Ok(self.length)
    }
}

impl Drop for RemoteWriter {
    fn drop(&mut self) {
        if let Some(mut parts) = self.parts.take() {
            self.client.wait(parts.abort());
        }
    }
}
