//! The places of packs: a local directory, a cloud, or a web server. All hold the same objects
//! under the same names.
//!
//! A pack in a directory may become a file's second name or lose bytes in its middle. A pack in a
//! cloud is written once, read in ranges through the cache, and removed as a whole.

mod identity;
mod local;
mod space;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use tokio::time::Instant;

use super::cache::Cache;
use super::external::Externals;
use super::fetch::{Class, Fetcher, Patience};
use super::options::{ServerAccess, StoreOptions};
use super::pack::{
    IndexEntry, SOLO_REMOTE_BYTES, SOLO_SERVED_BYTES, decode_index, encode_index, pack_key,
};
pub use super::received::SignedUrl;
use super::remote::Client;
pub use super::remote::refuse_secrets;
use super::threads::Threads;
pub use super::url::{STORE_URLS, StoreUrl};
use crate::error::{DamageHint, Error, Kind, Result, StoreHint};
use crate::model::object::{Extent, PackId};
use local::LocalStore;
pub(crate) use space::Space;
pub(crate) use writer::PackWriter;
use writer::{LEFT, NOTE};

/// The time that one request of a listing or for an index may take.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// The room that a remote store reports: it is not known, and no program should stop for it.
const ENDLESS_BYTES: u64 = 1 << 50;

/// The key of the request that checks whether a store responds.
const PROBE_KEY: &str = "packs/probe";
/// The time in which a store must respond to the first request.
const PROBE_TIME: Duration = Duration::from_secs(20);

/// A store of packs.
pub struct Store {
    place: Place,
    externals: Externals,
    owner: Option<identity::Owner>,
}

enum Place {
    Local(LocalStore),
    Remote(Remote),
}

struct Remote {
    client: Arc<Client>,
    fetcher: Arc<Fetcher>,
}

impl Store {
    /// Opens the store at `url`; a relative directory is below `base`. A directory need not exist,
    /// and a remote store gets no request yet.
    ///
    /// # Errors
    /// If options make no sense, or a cache cannot be opened. [`Kind::Unsupported`] for a
    /// remote store without the feature `clouds`. A remote store gets no request yet.
    pub fn open(
        url: &StoreUrl,
        settings: &[(String, String)],
        base: &Path,
        options: &StoreOptions,
    ) -> Result<Self> {
        if let StoreUrl::Directory(path) = url {
            if let Some((key, _)) = settings.first() {
                let what = format!("a directory takes no option \"{key}\"");
                return Err(Error::new(Kind::Usage, what).hint(StoreHint::LeaveOptions));
            }
            let place = Place::Local(LocalStore::new(&base.join(path)));
            return Ok(Self { place, externals: Externals::new(options), owner: None });
        }
        Ok(Self::remote(Client::open(url, settings, Threads::start()?)?, options))
    }

    /// Opens the store of a served repository, whose server hands packs out and takes them.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] without the feature `clouds`. The server gets no request yet.
    pub(crate) fn served(server: &ServerAccess, options: &StoreOptions) -> Result<Self> {
        Ok(Self::remote(Client::served(server, Threads::start()?)?, options))
    }

    fn remote(client: Client, options: &StoreOptions) -> Self {
        let client = Arc::new(client);
        let (store, threads) = (Some(Arc::clone(&client)), Arc::clone(client.threads()));
        let cache = Cache::of(options);
        let fetcher = Fetcher::new(store, threads, cache, options.deadlines, options.reads_ahead);
        let fetcher = Arc::new(fetcher);
        let externals = Externals::beside(options, &fetcher, &client);
        Self { place: Place::Remote(Remote { client, fetcher }), externals, owner: None }
    }

    /// Creates the directory of a local store, unless it exists.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn make(&self) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.make(),
            Place::Remote(_) => Ok(()),
        }
    }

    /// Refuses a directory that holds no store.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none. A remote store gets no request.
    pub fn refuse_missing(&self) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.refuse_missing(),
            Place::Remote(_) => Ok(()),
        }
    }

    /// Checks that a remote store can be reached and read, by a request for an object that need not
    /// exist.
    ///
    /// # Errors
    /// The error of the store, in its own words; [`Kind::TimedOut`] if it does not respond.
    pub(crate) fn probe(&self) -> Result<()> {
        match &self.place {
            Place::Local(_) => Ok(()),
            Place::Remote(Remote { client, .. }) => {
                client.wait(client.probe(PROBE_KEY, Instant::now() + PROBE_TIME))
            }
        }
    }

    /// Returns the external files.
    pub(crate) fn externals(&self) -> &Externals {
        &self.externals
    }

    /// Returns the fetcher of a remote store; `None` for a directory.
    pub(crate) fn fetcher(&self) -> Option<&Arc<Fetcher>> {
        match &self.place {
            Place::Local(_) => None,
            Place::Remote(remote) => Some(&remote.fetcher),
        }
    }

    /// Returns whether reads go over the network.
    pub fn is_remote(&self) -> bool {
        self.fetcher().is_some()
    }

    /// Returns whether packs can be written to it.
    pub(crate) fn is_writable(&self) -> bool {
        match &self.place {
            Place::Local(_) => true,
            Place::Remote(remote) => remote.client.is_writable(),
        }
    }

    /// Returns the length in bytes at which a big file goes on in another pack. So an interrupted
    /// put does not repeat all of it, and a server takes each pack in one request.
    pub(crate) fn solo_max_bytes(&self) -> u64 {
        match &self.place {
            Place::Local(_) => u64::MAX,
            Place::Remote(remote) if remote.client.takes_parts() => SOLO_REMOTE_BYTES,
            Place::Remote(_) => SOLO_SERVED_BYTES,
        }
    }

    /// Returns a URL by which anybody may read or write a pack until `life` is over; `None` if the
    /// store signs none.
    ///
    /// # Errors
    /// If the store's credentials cannot sign.
    pub fn sign(&self, id: PackId, write: bool, life: Duration) -> Result<Option<SignedUrl>> {
        match &self.place {
            Place::Local(_) => Ok(None),
            Place::Remote(Remote { client, .. }) => {
                client.wait(client.sign(&pack_key(id, "pack"), write, life))
            }
        }
    }

    /// Begins a pack. Its id is registered first: bytes are durable before names, but the registry
    /// must hold every pack that may be in the store.
    ///
    /// # Errors
    /// If it cannot be begun.
    pub fn create(&self, id: PackId) -> Result<PackWriter> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => Ok(PackWriter::local(local.create(id)?)),
            Place::Remote(remote) => Ok(PackWriter::remote(&remote.client, id)),
        }
    }

    /// Makes a pack that shares the bytes of the file at `source`; `None` if that is not possible.
    ///
    /// # Errors
    /// If the pack cannot be created.
    pub(crate) fn reflink(&self, id: PackId, source: &Path) -> Result<Option<PackWriter>> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => Ok(local.reflink(id, source)?.map(PackWriter::local)),
            Place::Remote(_) => Ok(None),
        }
    }

    /// Makes the file at `source` a pack: one more name of the same inode. The file must not change
    /// any more. Returns `None` if that is not possible.
    ///
    /// # Errors
    /// If the pack cannot be created.
    pub(crate) fn link(&self, id: PackId, source: &Path) -> Result<Option<PackWriter>> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => Ok(local.link(id, source)?.map(PackWriter::local)),
            Place::Remote(_) => Ok(None),
        }
    }

    /// Writes the index of a pack durably, in place of an earlier one.
    ///
    /// # Errors
    /// If it cannot be written; an earlier index is then kept.
    pub fn write_index(&self, id: PackId, entries: &[IndexEntry]) -> Result<()> {
        self.ensure_ours()?;
        let index = encode_index(id, entries);
        match &self.place {
            Place::Local(local) => local.write_index(id, &index),
            Place::Remote(remote) => {
                let client = &remote.client;
                client.wait(client.put(&pack_key(id, "idx"), Bytes::from(index)))
            }
        }
    }

    /// Reads the index of a pack.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, [`Kind::Corrupt`] if it is damaged.
    pub fn read_index(&self, id: PackId) -> Result<Vec<IndexEntry>> {
        let bytes = match &self.place {
            Place::Local(local) => local.read_index(id)?,
            Place::Remote(_) => self.read_whole(id, "idx")?.to_vec(),
        };
        decode_index(id, &bytes)
    }

    /// Reads a whole object of a remote store.
    fn read_whole(&self, id: PackId, extension: &str) -> Result<Bytes> {
        let Place::Remote(Remote { client, .. }) = &self.place else {
            return Err(Error::new(Kind::Unsupported, "a directory holds no remote objects"));
        };
        let key = pack_key(id, extension);
        Ok(client.wait(client.get_whole(&key, Instant::now() + REQUEST_TIME))?.bytes)
    }

    /// Reads bytes `offset..offset + length` of a pack, past any cache.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such pack.
    pub fn read_raw(&self, id: PackId, offset: u64, length: usize) -> Result<Bytes> {
        match &self.place {
            Place::Local(local) => {
                let stored_bytes = u32::try_from(length).unwrap_or(u32::MAX);
                let mut bytes = vec![0; length];
                local.read(Extent { pack: id, offset, stored_bytes }, 0, &mut bytes)?;
                Ok(bytes.into())
            }
            Place::Remote(Remote { client, .. }) => {
                let range = offset..offset + length as u64;
                let deadline = Instant::now() + REQUEST_TIME;
                let bytes = client.wait(client.get(&pack_key(id, "pack"), range, deadline))?.bytes;
                if bytes.len() == length { Ok(bytes) } else { Err(short_pack(id)) }
            }
        }
    }

    /// Fills `buffer` with the bytes of `extent` from its `skip`th on.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the pack is missing or too short, [`Kind::WouldBlock`] if `patience` is
    /// `Now` and they are not cached, and the errors of the store.
    pub fn read(
        &self,
        extent: Extent,
        skip: u64,
        buffer: &mut [u8],
        class: Class,
        patience: Patience,
    ) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.read(extent, skip, buffer),
            Place::Remote(remote) => remote
                .fetcher
                .read(extent, skip, buffer, class, patience)
                .map_err(|e| unfound(extent, e)),
        }
    }

    /// Gives the bytes of `ranges` (offset, length) back to the disk; they read as zeros then. If
    /// the file system has no holes, zeros are written.
    ///
    /// # Errors
    /// If neither is possible. A repetition is harmless.
    pub(crate) fn punch(&self, id: PackId, ranges: &[(u64, u64)]) -> Result<()> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => local.punch(id, ranges),
            Place::Remote(_) => {
                Err(Error::new(Kind::Unsupported, "a remote pack cannot be changed in place"))
            }
        }
    }

    /// Removes a pack and its index. One that is gone already counts as removed.
    ///
    /// # Errors
    /// If it exists and cannot be removed.
    pub fn remove(&self, id: PackId) -> Result<()> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => local.remove(id),
            Place::Remote(Remote { client, .. }) => {
                let [index, pack, note] = ["idx", "pack", NOTE].map(|end| pack_key(id, end));
                // A writer that was killed may have left parts of the pack.
                let gone = join(client.remove(&index), client.give_up(&pack, &note));
                let (index, parts) = client.wait(gone);
                index.and(parts)?;
                client.wait(client.remove(&pack))
            }
        }
    }

    /// Lists the packs, in no order.
    ///
    /// # Errors
    /// If they cannot be listed; [`Kind::Unsupported`] on most web servers.
    pub fn list(&self) -> Result<Vec<PackId>> {
        self.list_with(&["pack"])
    }

    /// Lists all packs, including those of which only an index or an upload note is left.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub(crate) fn list_left(&self) -> Result<BTreeSet<PackId>> {
        let [index, note] = LEFT;
        Ok(self.list_with(&["pack", index, note])?.into_iter().collect())
    }

    fn list_with(&self, extensions: &[&str]) -> Result<Vec<PackId>> {
        let Place::Remote(Remote { client, .. }) = &self.place else {
            return self.local()?.list(extensions);
        };
        let mut ids = Vec::new();
        let mut each = |key: &str, _| {
            let name = key.rsplit('/').next().and_then(|name| name.rsplit_once('.'));
            let name = name.filter(|(_, extension)| extensions.contains(extension));
            ids.extend(name.and_then(|(name, _)| name.parse::<PackId>().ok()));
        };
        client.wait(client.list("packs", &mut each))?;
        Ok(ids)
    }

    fn local(&self) -> Result<&LocalStore> {
        match &self.place {
            Place::Local(local) => Ok(local),
            Place::Remote(_) => {
                Err(Error::new(Kind::Unsupported, "only a store in a local directory can do that"))
            }
        }
    }

    /// Returns the ctime of a local pack in nanoseconds; `None` for a remote pack, or if the file
    /// cannot be opened.
    pub(crate) fn local_state(&self, id: PackId) -> Option<u64> {
        match &self.place {
            Place::Local(local) => local.state(id),
            Place::Remote(_) => None,
        }
    }

    /// Returns the length of a pack's body.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it does not exist.
    pub fn pack_length(&self, id: PackId) -> Result<u64> {
        match &self.place {
            Place::Local(local) => Ok(local.pack_size(id)?.0),
            Place::Remote(Remote { client, .. }) => {
                let key = pack_key(id, "pack");
                let length = client.wait(client.length(&key, Instant::now() + REQUEST_TIME))?;
                length
                    .ok_or_else(|| Error::new(Kind::NotFound, format!("pack {id} does not exist")))
            }
        }
    }

    /// Makes `file` share the bytes of a pack of exactly `length` bytes; `false` if that is not
    /// possible.
    pub(crate) fn clone_pack(&self, id: PackId, file: &File, length: u64) -> bool {
        match &self.place {
            Place::Local(local) => local.clone_pack(id, file, length),
            Place::Remote(_) => false,
        }
    }

    /// Closes packs and segments of the cache that another process removed: the disk keeps their
    /// bytes while they are open.
    pub(crate) fn forget_removed(&self) {
        match &self.place {
            Place::Local(local) => local.forget_removed(),
            Place::Remote(remote) => remote.fetcher.forget_removed(),
        }
        self.externals.forget_removed();
    }

    /// Returns the room for more.
    ///
    /// # Errors
    /// If statvfs(2) fails.
    pub fn space(&self) -> Result<Space> {
        match &self.place {
            Place::Local(local) => local.space(),
            Place::Remote(_) => {
                Ok(Space { free_bytes: ENDLESS_BYTES, total_bytes: 2 * ENDLESS_BYTES })
            }
        }
    }
}

/// Maps the error of a remote store to the kind a reader sees. A pack that should exist and does
/// not is damage.
fn unfound(extent: Extent, error: Error) -> Error {
    match error.kind() {
        Kind::NotFound => {
            let what = format!("pack {} is missing", extent.pack);
            Error::new(Kind::Corrupt, what).because(error).hint(DamageHint::Verify)
        }
        // A reader sees a store that cannot be read now, never a file that it may not read.
        Kind::Denied | Kind::Usage | Kind::Conflict => {
            Error::new(Kind::Unavailable, "the store refused the request").because(error)
        }
        _ => error,
    }
}

fn short_pack(id: PackId) -> Error {
    Error::new(Kind::Corrupt, format!("pack {id} is too short")).hint(DamageHint::Verify)
}
