//! External entries: the bytes of files that are elsewhere, if they are what was recorded.
//!
//! A file on a server is read like a pack that [`frame`] lays out: in ranges, through the cache,
//! and within the bounds of packs. A file of this machine is read where it is.

mod changed;
mod file;
pub mod frame;
#[cfg(feature = "clouds")]
pub mod origin;
#[cfg(not(feature = "clouds"))]
#[path = "origin_absent.rs"]
pub mod origin;
mod place;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::time::Instant;

pub(crate) use super::received::Seen;
pub(crate) use file::{MOUNT_SOURCE, hash, is_ours, loops, modified_text};
pub(crate) use origin::Origins;
pub(crate) use place::{Readers, Requester, open, open_below};

use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::Cache;
use super::fetch::{Class, Fetcher, Patience};
use super::options::StoreOptions;
use super::remote::Client;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::external::{External, Scheme};
use crate::model::object::Extent;

/// The blocks fetched around a miss: enough to be worth the round trip.
const WINDOW_BLOCKS: u64 = 64;

/// The external files of a store.
pub(crate) struct Externals {
    options: StoreOptions,
    files: file::Files,
    servers: OnceLock<Servers>,
    making: Mutex<()>,
    read: AtomicBool,
}

struct Servers {
    fetcher: Arc<Fetcher>,
    origins: Origins,
}

impl Externals {
    /// Returns a value that reads as `options` say. It makes the clients of servers when the first
    /// is needed.
    pub(crate) fn new(options: &StoreOptions) -> Self {
        let files = file::Files::new(options.deadlines.data, options.external_folders.clone());
        let (options, making, read) = (options.clone(), Mutex::default(), AtomicBool::new(false));
        Self { options, files, servers: OnceLock::new(), making, read }
    }

    /// Returns a value that shares the cache and the bounds of a remote store's packs.
    pub(crate) fn beside(options: &StoreOptions, fetcher: &Arc<Fetcher>, client: &Client) -> Self {
        let this = Self::new(options);
        let origins = Origins::beside(client);
        this.servers.get_or_init(|| Servers { fetcher: Arc::clone(fetcher), origins });
        this
    }

    fn servers(&self) -> Result<&Servers> {
        if let Some(servers) = self.servers.get() {
            return Ok(servers);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(servers) = self.servers.get() {
            return Ok(servers);
        }
        let origins = Origins::start()?;
        let (threads, cache) = (Arc::clone(origins.threads()), Cache::of(&self.options));
        let (deadlines, ahead) = (self.options.deadlines, self.options.reads_ahead);
        let fetcher = Fetcher::new(None, threads, cache, deadlines, ahead);
        Ok(self.servers.get_or_init(|| Servers { fetcher: Arc::new(fetcher), origins }))
    }

    /// Returns whether an external file was read, so that more may be.
    pub(crate) fn were_read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }

    /// Closes segments of the cache that another process removed.
    pub(crate) fn forget_removed(&self) {
        if let Some(Servers { fetcher, .. }) = self.servers.get() {
            fetcher.forget_removed();
        }
    }

    /// Returns the servers that have external files.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] without the feature `clouds`, or if the system cannot start threads.
    pub(crate) fn origins(&self) -> Result<&Origins> {
        Ok(&self.servers()?.origins)
    }

    /// Returns the deadline of a request to a server that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.deadlines.data
    }

    /// Refuses a file or folder of this machine that is in none of the folders that may be referred
    /// to.
    ///
    /// # Errors
    /// [`Kind::Denied`] for such a file or folder, and the errors of the system.
    pub(crate) fn refuse_outside(&self, path: &Path) -> Result<()> {
        let file = open(path).at("read", path)?;
        self.files.refuse_outside(&file, &path.display())
    }

    /// Fills `buffer` from byte `offset` on of the file that `external`, an object named `digest`,
    /// describes. The file must have these bytes. `requester` is the user that reads, if that is
    /// not this process itself.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is not what was recorded; [`Kind::WouldBlock`] if `patience` is
    /// `Now` and it is not cached; the errors of its server or of the system.
    pub(crate) fn read(
        &self,
        digest: Digest,
        external: &Arc<External>,
        offset: u64,
        buffer: &mut [u8],
        patience: Patience,
        requester: Option<Requester>,
    ) -> Result<()> {
        let waits = patience == Patience::Deadline;
        if waits {
            self.read.store(true, Ordering::Relaxed);
        }
        match external.url.scheme() {
            // The file may be on a disk that hangs, or have to be hashed.
            Scheme::File if waits => self.files.read(digest, external, offset, buffer, requester),
            Scheme::S3 | Scheme::Google | Scheme::Azure | Scheme::Web
                if waits || self.servers.get().is_some() =>
            {
                self.read_remote(digest, external, offset, buffer, patience)
            }
            _ => Err(Error::new(Kind::WouldBlock, "not cached: an external file has to be read")),
        }
    }

    /// Refuses a requester that may not read a file of this machine where it is. Servers get
    /// requests with this process's rights alone.
    ///
    /// # Errors
    /// [`Kind::Denied`], and as [`Externals::read`] if that cannot be found out.
    pub(crate) fn permit(&self, external: &External, requester: &Requester) -> Result<()> {
        match external.url.scheme() {
            Scheme::File => self.files.permit(external, requester),
            Scheme::S3 | Scheme::Google | Scheme::Azure | Scheme::Web => Ok(()),
        }
    }

    /// Returns the users that may read a file of this machine at its place. Returns `None` for a
    /// file on a server, which every user of the mount may read.
    pub(crate) fn readers(&self, external: &External) -> Option<Readers> {
        (external.url.scheme() == Scheme::File).then(|| self.files.readers(external))
    }

    fn read_remote(
        &self,
        digest: Digest,
        external: &Arc<External>,
        offset: u64,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<()> {
        let Servers { fetcher, origins } = self.servers()?;
        let origin = origins.origin(digest, external)?;
        let pack = origin.pack();
        if patience == Patience::Deadline {
            fetcher.register(&Arc::new(origin));
        }
        let size = external.size_bytes;
        let blocks = frame::blocks_of(&(offset..offset + buffer.len() as u64));
        let place = frame::place_of(&blocks, size);
        let window = blocks.start / WINDOW_BLOCKS * WINDOW_BLOCKS
            ..blocks.end.div_ceil(WINDOW_BLOCKS) * WINDOW_BLOCKS;
        let window = frame::place_of(&window, size);
        let stored_bytes = u32::try_from(window.end - window.start)
            .map_err(|_| Error::new(Kind::Unsupported, "a read of this length is not supported"))?;
        let extent = Extent { pack, offset: window.start, stored_bytes };
        let mut framed = vec![0; (place.end - place.start) as usize];
        fetcher.read(extent, place.start - window.start, &mut framed, Class::Piece, patience)?;
        if frame::unframe(&digest, blocks.start, &framed, offset, buffer) {
            return Ok(());
        }
        if patience == Patience::Now {
            return Err(Error::new(Kind::WouldBlock, "the cached bytes are damaged"));
        }
        // The cache's disk has damaged the bytes: those of the network were framed as they arrived.
        fetcher.counters.wrong();
        fetcher.distrust(extent);
        let stored_bytes = framed.len() as u32;
        let extent = Extent { pack, offset: place.start, stored_bytes };
        let framed = fetcher.refetch(extent, Class::Piece)?;
        if frame::unframe(&digest, blocks.start, &framed, offset, buffer) {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, format!("{} was not received whole", external.url)))
    }

    /// Queues bytes `range` that may be read soon. It never waits for the server.
    pub(crate) fn readahead(&self, digest: Digest, external: &Arc<External>, range: &Range<u64>) {
        let Some(Servers { fetcher, origins }) = self.servers.get() else { return };
        let Ok(origin) = origins.origin(digest, external) else { return };
        let place = frame::place_of(&frame::blocks_of(range), external.size_bytes);
        let pack = origin.pack();
        fetcher.register(&Arc::new(origin));
        fetcher.readahead(pack, place);
    }

    /// Caches bytes `range` of a file that is on a server.
    ///
    /// # Errors
    /// As [`Externals::read`].
    pub(crate) fn prefetch(
        &self,
        digest: Digest,
        external: &Arc<External>,
        range: &Range<u64>,
    ) -> Result<()> {
        if external.url.scheme() == Scheme::File {
            return Ok(());
        }
        let Servers { fetcher, origins } = self.servers()?;
        let origin = origins.origin(digest, external)?;
        let pack = origin.pack();
        let place = frame::place_of(&frame::blocks_of(range), external.size_bytes);
        fetcher.register(&Arc::new(origin));
        fetcher.prefetch_all(vec![(pack, place)])
    }

    /// Checks that a file is still what was recorded. A file of this machine is read and hashed;
    /// for others their server's metadata are requested.
    ///
    /// # Errors
    /// As [`Externals::read`].
    pub(crate) fn verify(&self, digest: Digest, external: &Arc<External>) -> Result<()> {
        if external.url.scheme() == Scheme::File {
            return self.files.verify(external);
        }
        let origins = self.origins()?;
        let origin = origins.origin(digest, external)?;
        origins.threads().wait(origin.look(self.deadline()))
    }
}
