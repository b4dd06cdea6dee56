//! Objects that are written in parts. Each part is sent again until the store has it. An upload
//! that was never finished can be aborted by any process that finds its note.
//!
//! The note, `<pack>.upload`, holds the id that the store gave the upload. It is written before the
//! first part and removed after the last, so a writer that is killed leaves no upload without a
//! note.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::client::{Client, UPLOAD_TIME, WRITE_DEADLINE, upload_time};
use crate::error::{Error, Kind, Result};

/// The number of parts of one upload under way.
const PARTS_AT_ONCE: usize = 4;
/// The maximum length of a note: ids of uploads are far shorter.
const NOTE_BYTES_MAX: usize = 8 << 10;

/// An object that is being written in parts.
pub(crate) struct Parts {
    client: Arc<Client>,
    store: Arc<dyn MultipartStore>,
    path: Key,
    /// The key of the note.
    note: String,
    id: Arc<str>,
    sent: usize,
    length: u64,
    done: Vec<PartId>,
    under_way: Vec<JoinHandle<Result<PartId>>>,
}

impl Client {
    fn multipart(&self) -> Result<&Arc<dyn MultipartStore>> {
        self.refuse_read_only()?;
        let none = || {
            Error::new(
                Kind::Unsupported,
                format!("{} does not support uploads in parts", self.name()),
            )
        };
        self.server.parts.as_ref().ok_or_else(none)
    }

    /// Begins an object that is written in parts, with its note at `note`.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub(crate) async fn begin(self: &Arc<Self>, key: &str, note: &str) -> Result<Parts> {
        let store = Arc::clone(self.multipart()?);
        let path = self.key(key);
        let deadline = Instant::now() + WRITE_DEADLINE;
        let attempt = || async {
            let begun = timeout(UPLOAD_TIME, store.create_multipart(&path)).await;
            begun.map_err(|_| self.stalled())?.map_err(|e| self.failed(e))
        };
        let id: Arc<str> = self.persist(key, deadline, attempt).await?.into();
        let mut parts = Parts {
            client: Arc::clone(self),
            store: Arc::clone(&store),
            path,
            note: note.to_owned(),
            id,
            sent: 0,
            length: 0,
            done: Vec::new(),
            under_way: Vec::new(),
        };
        // Azure's uploads have no id: the store removes their blocks within a week.
        if !parts.id.is_empty() {
            let id = Bytes::copy_from_slice(parts.id.as_bytes());
            if let Err(e) = self.put(note, id).await {
                parts.abort().await;
                return Err(e);
            }
        }
        Ok(parts)
    }

    /// Aborts the upload of the object `key` that is noted at `note`, if there is one.
    ///
    /// # Errors
    /// If the upload may still exist.
    pub(crate) async fn give_up(&self, key: &str, note: &str) -> Result<()> {
        let Some(store) = &self.server.parts else { return Ok(()) };
        let found = match self.get_whole(note, Instant::now() + WRITE_DEADLINE).await {
            Ok(found) => found.bytes,
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let id = std::str::from_utf8(&found).ok().filter(|id| id.len() <= NOTE_BYTES_MAX);
        if let Some(id) = id {
            self.abort(store, &self.key(key), id, WRITE_DEADLINE).await?;
        }
        self.remove(note).await
    }

    async fn abort(
        &self,
        store: &Arc<dyn MultipartStore>,
        path: &Key,
        id: &str,
        patience: Duration,
    ) -> Result<()> {
        let id = id.to_owned();
        let attempt = || async {
            let aborted = timeout(UPLOAD_TIME, store.abort_multipart(path, &id)).await;
            aborted.map_err(|_| self.stalled())?.map_err(|e| self.failed(e))
        };
        match self.persist(path.as_ref(), Instant::now() + patience, attempt).await {
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            done => done,
        }
    }
}

impl Parts {
    /// Sends the next part. Waits while more than [`PARTS_AT_ONCE`] are under way.
    ///
    /// # Errors
    /// If an earlier part failed for good: the object cannot be finished.
    pub(crate) async fn send(&mut self, part: Bytes) -> Result<()> {
        let (client, store, path) =
            (Arc::clone(&self.client), Arc::clone(&self.store), self.path.clone());
        let (id, number) = (self.id.to_string(), self.sent);
        self.sent += 1;
        self.length += part.len() as u64;
        let task = async move {
            let limit = UPLOAD_TIME + upload_time(part.len());
            let attempt = || async {
                let sending = store.put_part(&path, &id, number, part.clone().into());
                let sent = timeout(limit, sending).await.map_err(|_| client.stalled())?;
                sent.map_err(|e| client.failed(e))
            };
            client.persist(path.as_ref(), Instant::now() + limit + WRITE_DEADLINE, attempt).await
        };
        self.under_way.push(self.client.handle().spawn(task));
        while self.under_way.len() > PARTS_AT_ONCE {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<()> {
        let sent = self.under_way.remove(0).await.unwrap_or_else(|e| {
            Err(Error::new(Kind::Unavailable, "an upload broke off").because(e))
        });
        self.done.push(sent?);
        Ok(())
    }

    /// Completes the upload, which makes the object visible.
    ///
    /// # Errors
    /// If a part failed or the store refuses; nothing is visible then.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let finished = self.complete().await;
        if finished.is_err() {
            self.abort().await;
            return finished;
        }
        if !self.id.is_empty()
            && let Err(e) = self.client.remove(&self.note).await
        {
            // The note is removed with the pack.
            tracing::debug!("the note of a finished upload was not removed: {e}");
        }
        finished
    }

    async fn complete(&mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            self.settle_oldest().await?;
        }
        let id = self.id.to_string();
        let (client, store, path) = (&self.client, &self.store, &self.path);
        let attempt = || async {
            let completing = store.complete_multipart(path, &id, self.done.clone());
            let completed =
                timeout(WRITE_DEADLINE, completing).await.map_err(|_| client.stalled())?;
            completed.map(drop).map_err(|e| client.failed(e))
        };
        let deadline = Instant::now() + 2 * WRITE_DEADLINE;
        match client.persist(path.as_ref(), deadline, attempt).await {
            // The response to an earlier attempt may have been lost, though that attempt succeeded.
            Err(e) if e.kind() == Kind::NotFound && self.is_there().await => Ok(()),
            completed => completed,
        }
    }

    async fn is_there(&self) -> bool {
        let deadline = Instant::now() + UPLOAD_TIME;
        let attempt = || self.client.ask_length(&self.path);
        let found = self.client.persist(self.path.as_ref(), deadline, attempt).await;
        found.is_ok_and(|length| length == self.length)
    }

    /// Aborts the upload.
    pub(crate) async fn abort(&mut self) {
        for task in self.under_way.drain(..) {
            task.abort();
        }
        // A store that does not respond gets no more time: the note stays, and the process that
        // removes the pack aborts the upload.
        let mut gone = self.client.abort(&self.store, &self.path, &self.id, UPLOAD_TIME).await;
        if gone.is_ok() && !self.id.is_empty() {
            let removed = timeout(UPLOAD_TIME, self.client.remove(&self.note)).await;
            gone = removed.unwrap_or_else(|_| Err(self.client.stalled()));
        }
        if let Err(e) = gone {
            let (key, parts) = (self.path.as_ref(), self.sent);
            tracing::warn!(key, parts, "parts may be left in the store: {e}");
        }
    }
}
