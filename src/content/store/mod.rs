//! Where packs live: a local directory, a cloud, or a web server. All hold the same objects under the
//! same names.
//!
//! A pack in a directory may become a file's second name or lose bytes in its middle; one in a cloud
//! is written once, read in ranges through the cache, and removed as a whole.

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
use super::options::StoreOptions;
use super::pack::{IndexEntry, decode_index, encode_index, pack_key};
use super::remote::Client;
pub use super::remote::Threads;
pub use super::remote::secrets::refuse_secrets;
pub use super::remote::url::{STORE_URLS, StoreUrl};
use crate::error::{DamageHint, Error, Kind, Result, StoreHint};
use crate::model::object::{Extent, PackId};
use local::LocalStore;
pub use space::Space;
pub use writer::PackWriter;
use writer::{LEFT, NOTE};

/// How long a listing's or index' single request may take.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// What a remote store says when asked for room: nobody knows, and no program should stop for it.
const ENDLESS_BYTES: u64 = 1 << 50;

/// What is asked for to see whether a store answers.
const PROBE_KEY: &str = "packs/probe";
/// How long a store that is asked for the first time may keep silent.
const PROBE_TIME: Duration = Duration::from_secs(20);

/// Packs.
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
    /// Opens the store at `url`; a relative directory is below `base`.
    ///
    /// # Errors
    /// When a directory cannot be made, or options make no sense. A remote store is not asked yet.
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
            let place = Place::Local(LocalStore::open(&base.join(path))?);
            return Ok(Self { place, externals: Externals::new(options), owner: None });
        }
        let client = Arc::new(Client::open(url, settings, Threads::start()?)?);
        let (store, threads) = (Some(Arc::clone(&client)), Arc::clone(client.threads()));
        let cache = Cache::of(options);
        let fetcher = Fetcher::new(store, threads, cache, options.deadlines, options.reads_ahead);
        let fetcher = Arc::new(fetcher);
        let externals = Externals::beside(options, &fetcher, client.threads());
        Ok(Self { place: Place::Remote(Remote { client, fetcher }), externals, owner: None })
    }

    /// Asks a remote store once whether it can be reached and read, for an object that need not be there.
    ///
    /// # Errors
    /// What the store answers, in its own words; [`Kind::TimedOut`] if it does not answer.
    pub fn probe(&self) -> Result<()> {
        match &self.place {
            Place::Local(_) => Ok(()),
            Place::Remote(Remote { client, .. }) => {
                client.wait(client.probe(PROBE_KEY, Instant::now() + PROBE_TIME))
            }
        }
    }

    /// Files that live elsewhere.
    pub fn externals(&self) -> &Externals {
        &self.externals
    }

    /// What reads a remote store.
    pub fn fetcher(&self) -> Option<&Arc<Fetcher>> {
        match &self.place {
            Place::Local(_) => None,
            Place::Remote(remote) => Some(&remote.fetcher),
        }
    }

    /// Whether it takes time to read.
    pub fn is_remote(&self) -> bool {
        self.fetcher().is_some()
    }

    /// Whether packs can be put into it.
    pub fn is_writable(&self) -> bool {
        match &self.place {
            Place::Local(_) => true,
            Place::Remote(remote) => remote.client.is_writable(),
        }
    }

    /// Begins a pack; its name is registered first (bytes are durable before names, but the
    /// registry must know of every pack that may be in the store).
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn create(&self, id: PackId) -> Result<PackWriter> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => Ok(PackWriter::local(local.create(id)?)),
            Place::Remote(remote) => Ok(PackWriter::remote(&remote.client, id)),
        }
    }

    /// Makes a pack of the bytes of the file at `source`, sharing them; `None` where that cannot be.
    ///
    /// # Errors
    /// When the pack cannot be made.
    pub fn reflink(&self, id: PackId, source: &Path) -> Result<Option<PackWriter>> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => Ok(local.reflink(id, source)?.map(PackWriter::local)),
            Place::Remote(_) => Ok(None),
        }
    }

    /// Makes the file at `source` a pack: one more name of the same inode. Nobody may change the
    /// file any more. `None` where that cannot be.
    ///
    /// # Errors
    /// When the pack cannot be made.
    pub fn link(&self, id: PackId, source: &Path) -> Result<Option<PackWriter>> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => Ok(local.link(id, source)?.map(PackWriter::local)),
            Place::Remote(_) => Ok(None),
        }
    }

    /// Writes the index of a pack, replacing an earlier one, durably.
    ///
    /// # Errors
    /// When it cannot be written; an earlier index is then still there.
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

    /// The index of a pack.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, [`Kind::Corrupt`] when it is damaged.
    pub fn read_index(&self, id: PackId) -> Result<Vec<IndexEntry>> {
        let bytes = match &self.place {
            Place::Local(local) => local.read_index(id)?,
            Place::Remote(_) => self.read_whole(id, "idx")?.to_vec(),
        };
        decode_index(id, &bytes)
    }

    /// An object of a remote store.
    fn read_whole(&self, id: PackId, extension: &str) -> Result<Bytes> {
        let Place::Remote(Remote { client, .. }) = &self.place else {
            return Err(Error::new(Kind::Unsupported, "a directory is read by the file"));
        };
        let key = pack_key(id, extension);
        Ok(client.wait(client.get_whole(&key, Instant::now() + REQUEST_TIME))?.bytes)
    }

    /// Bytes `offset..offset + length` of a pack, past any cache.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such pack.
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
    /// [`Kind::Corrupt`] when the pack is missing or too short, [`Kind::WouldBlock`] if `patience` is `Now` and they
    /// are not cached, and what the store says.
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

    /// Gives the bytes of `ranges` (offset, length) back to the disk; they read as zeros then.
    /// Where the file system has no holes, zeros are written.
    ///
    /// # Errors
    /// When neither is possible. Doing it again is harmless.
    pub fn punch(&self, id: PackId, ranges: &[(u64, u64)]) -> Result<()> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => local.punch(id, ranges),
            Place::Remote(_) => {
                Err(Error::new(Kind::Unsupported, "a remote pack is written anew, never changed"))
            }
        }
    }

    /// Removes a pack and its index. One that is gone already counts as removed.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, id: PackId) -> Result<()> {
        self.ensure_ours()?;
        match &self.place {
            Place::Local(local) => local.remove(id),
            Place::Remote(Remote { client, .. }) => {
                let [index, pack, note] = ["idx", "pack", NOTE].map(|end| pack_key(id, end));
                // A writer that was killed may have left parts of it.
                let gone = join(client.remove(&index), client.give_up(&pack, &note));
                let (index, parts) = client.wait(gone);
                index.and(parts)?;
                client.wait(client.remove(&pack))
            }
        }
    }

    /// The packs that are there, in no order.
    ///
    /// # Errors
    /// When they cannot be listed; [`Kind::Unsupported`] on most web servers.
    pub fn list(&self) -> Result<Vec<PackId>> {
        self.list_with(&["pack"])
    }

    /// Lists all packs, including those of which only an index or an upload note is left.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn list_left(&self) -> Result<BTreeSet<PackId>> {
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
            Place::Remote(_) => Err(Error::new(Kind::Unsupported, "only a directory can do that")),
        }
    }

    /// Returns the ctime of a local pack in nanoseconds; `None` for a remote pack, or if the file cannot be opened.
    pub fn local_state(&self, id: PackId) -> Option<u64> {
        match &self.place {
            Place::Local(local) => local.state(id),
            Place::Remote(_) => None,
        }
    }

    /// Length of a pack's body.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it is not there.
    pub fn pack_length(&self, id: PackId) -> Result<u64> {
        match &self.place {
            Place::Local(local) => Ok(local.pack_size(id)?.0),
            Place::Remote(Remote { client, .. }) => {
                let key = pack_key(id, "pack");
                let length = client.wait(client.length(&key, Instant::now() + REQUEST_TIME))?;
                length.ok_or_else(|| Error::new(Kind::NotFound, format!("pack {id} is not there")))
            }
        }
    }

    /// Makes `file` share the bytes of a pack of exactly `length` bytes; `false` where that cannot
    /// be.
    pub fn clone_pack(&self, id: PackId, file: &File, length: u64) -> bool {
        match &self.place {
            Place::Local(local) => local.clone_pack(id, file, length),
            Place::Remote(_) => false,
        }
    }

    /// Closes what another process removed, packs and pieces of the cache: while they are open the
    /// disk keeps their bytes.
    pub fn forget_removed(&self) {
        match &self.place {
            Place::Local(local) => local.forget_removed(),
            Place::Remote(remote) => remote.fetcher.forget_removed(),
        }
        self.externals.forget_removed();
    }

    /// Room for more.
    ///
    /// # Errors
    /// When the host does not say.
    pub fn space(&self) -> Result<Space> {
        match &self.place {
            Place::Local(local) => local.space(),
            Place::Remote(_) => {
                Ok(Space { free_bytes: ENDLESS_BYTES, total_bytes: 2 * ENDLESS_BYTES })
            }
        }
    }
}

/// A pack that should be there and is not is damage, no wrong name.
fn unfound(extent: Extent, error: Error) -> Error {
    match error.kind() {
        Kind::NotFound => {
            let what = format!("pack {} is missing", extent.pack);
            Error::new(Kind::Corrupt, what).because(error).hint(DamageHint::Verify)
        }
        // To a reader it is a store that cannot be read now, never a file that is closed to him.
        Kind::Denied | Kind::Usage | Kind::Conflict => {
            Error::new(Kind::Unavailable, "the store refuses").because(error)
        }
        _ => error,
    }
}

fn short_pack(id: PackId) -> Error {
    Error::new(Kind::Corrupt, format!("pack {id} is too short")).hint(DamageHint::Verify)
}
