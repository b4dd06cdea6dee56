//! A repository: one registry and one store, made by `init`.
//!
//! ```text
//! repository.json    format, id, chunker settings, where the store is
//! registry.redb      the registry
//! store/packs/…      the store, if it is not elsewhere
//! drafts/            the drafts
//! puts/              put indexes: what the last put of a path saw
//! artifactfs.sock    the socket of the process that has the registry open
//! lock               held by that process, which it names
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lru::LruCache;
use serde::{Deserialize, Serialize};

use super::resolved::Resolved;
use crate::content::Locate;
use crate::content::chunk::{ChunkerSettings, Cutter};
use crate::content::options::StoreOptions;
use crate::content::reader::Reader;
use crate::content::store::{Store, StoreUrl, refuse_secrets};
use crate::error::{AccessHint, Error, IoContext, Kind, RepositoryHint, Result};
use crate::model::counted::counted;
use crate::model::digest::Digest;
use crate::model::host::Host;
use crate::model::name::TeamName;
use crate::model::object::{Extent, Located, PackId};
use crate::model::object_kind::ObjectKind;
use crate::model::server_url::{TeamUrl, is_server};
use crate::model::time::Timestamp;
use crate::protocol::served::Janitor;
use crate::registry::Registry;

/// The format of a repository with its registry inside.
pub(crate) const REPOSITORY_FORMAT: u32 = 1;
/// The format of a directory whose registry is elsewhere, which older releases must not open.
pub(crate) const SHARED_FORMAT: u32 = 2;
/// The format of a repository in which each project is a zone, which older releases must not open.
pub(crate) const ZONED_FORMAT: u32 = 3;
const SETTINGS_FILE: &str = "repository.json";
/// The default place of the store: below the repository.
const DEFAULT_STORE: &str = "file:store";

/// The settings of a repository. Only a move of the store changes them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The format: [`REPOSITORY_FORMAT`], [`SHARED_FORMAT`] if there is `registry`, or [`ZONED_FORMAT`].
    pub format: u32,
    /// A random id that tells repositories apart.
    pub id: String,
    /// The time at which it was made; files in the mounts bear this time.
    pub created: Timestamp,
    /// The parameters by which files are cut.
    pub chunker: ChunkerSettings,
    /// The place of the store: a URL; a relative directory is below the repository.
    pub store: String,
    /// True if a prefix in that URL is the literal text of the keys. Earlier releases wrote it
    /// percent-encoded.
    #[serde(default)]
    pub literal_prefix: bool,
    /// The other options needed to reach the store; no secrets.
    #[serde(default)]
    pub store_options: BTreeMap<String, String>,
    /// The address of a registry that several hosts share, or the URL of the repository on a server;
    /// no secrets. `None`: the registry is inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// The name under which servers serve it; `None`: that of the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<TeamName>,
    /// A random id of this directory, which tells its drafts from those of other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

impl Settings {
    /// Returns the settings of a new repository whose registry is inside.
    pub(super) fn new(store: String, options: BTreeMap<String, String>, host: &Host) -> Self {
        Self {
            format: REPOSITORY_FORMAT,
            id: format!("{:032x}", host.random()),
            created: host.now(),
            chunker: ChunkerSettings::default(),
            store,
            literal_prefix: true,
            store_options: options,
            registry: None,
            team: None,
            directory: None,
        }
    }

    /// Returns the repository on a server for which the settings stand, if they do.
    pub(crate) fn server(&self) -> Result<Option<TeamUrl>> {
        let registry = self.registry.as_deref().filter(|registry| is_server(registry));
        registry.map(str::parse).transpose()
    }

    /// Returns the URL of the store, and the other options needed to reach it.
    pub(super) fn store_url(&self) -> Result<(StoreUrl, Vec<(String, String)>)> {
        Ok((self.store.parse()?, self.store_options.clone().into_iter().collect()))
    }
}

/// The format alone, which every release must be able to read.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The paths of the parts of a repository.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The repository's directory, absolute.
    pub root: PathBuf,
}

impl Layout {
    /// Returns the paths of the repository in `root`.
    pub fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: std::path::absolute(root).at("find", root)? })
    }

    /// Returns the registry's file.
    pub fn registry(&self) -> PathBuf {
        self.root.join("registry.redb")
    }

    /// Returns the lock, held by the process that has the registry open.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Returns the socket of that process.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("artifactfs.sock")
    }

    /// Returns the socket of the process that has the drafts open.
    pub(crate) fn staging_socket(&self) -> PathBuf {
        self.root.join("staging.sock")
    }

    /// Returns the directory of drafts.
    pub(crate) fn drafts(&self) -> PathBuf {
        self.root.join("drafts")
    }

    /// Returns the directory of put indexes.
    pub(crate) fn puts(&self) -> PathBuf {
        self.root.join("puts")
    }

    /// Returns the directory with one file for each daemon.
    pub(crate) fn daemons(&self) -> PathBuf {
        self.root.join("daemons")
    }

    /// Returns the socket on which a daemon reports its numbers.
    pub fn daemon_socket(&self, pid: u32) -> PathBuf {
        self.daemons().join(format!("{pid}.sock"))
    }

    /// Reports whether there is a repository.
    pub fn exists(&self) -> bool {
        self.root.join(SETTINGS_FILE).exists()
    }

    /// Makes a repository.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if there is one already, [`Kind::Usage`] for a store that cannot be used.
    pub fn init(
        &self,
        store: Option<&StoreUrl>,
        options: BTreeMap<String, String>,
        team: Option<TeamName>,
        host: &Host,
    ) -> Result<Settings> {
        self.refuse_existing()?;
        let store = store.map_or_else(|| DEFAULT_STORE.to_owned(), ToString::to_string);
        let settings = Settings { team, ..Settings::new(store, options, host) };
        let (url, options) = settings.store_url()?;
        refuse_secrets(&url, &options)?;
        self.fill(&settings, || Ok(()))?;
        Ok(settings)
    }

    /// Makes the repository's directory, claims the store, runs `register` and writes the settings.
    /// If a step fails, an empty directory is removed.
    pub(super) fn fill(
        &self,
        settings: &Settings,
        register: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let made = self.make_root()?;
        let claimed = || {
            let store = self.open_store(settings, &StoreOptions::default())?;
            store.probe()?;
            if store.is_writable() { store.claim(&settings.id) } else { Ok(()) }
        };
        if let Err(e) = claimed().and_then(|()| register()) {
            // Only an empty directory is removed.
            let _ = made.then(|| fs::remove_dir(&self.root));
            return Err(e);
        }
        self.write_settings(settings)
    }

    /// Refuses a directory that is a repository already.
    pub(super) fn refuse_existing(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let what = format!("{} is a repository already", self.root.display());
        Err(Error::new(Kind::Conflict, what).hint("use it, or choose another directory"))
    }

    /// Makes the repository's directory, for its owner only, whatever the umask. An existing
    /// directory keeps its mode. Returns whether it was made.
    pub(super) fn make_root(&self) -> Result<bool> {
        if let Some(parent) = self.root.parent() {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && self.root.is_dir() => {
                Ok(false)
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let what = format!("{} is not a directory", self.root.display());
                Err(Error::new(Kind::Conflict, what).hint("choose another directory"))
            }
            made => made.map(|()| true).at("create", &self.root),
        }
    }

    /// Replaces the settings of the repository, durably.
    ///
    /// # Errors
    /// If they cannot be written, the old settings stay.
    pub(crate) fn write_settings(&self, settings: &Settings) -> Result<()> {
        let path = self.root.join(SETTINGS_FILE);
        let text = serde_json::to_string_pretty(settings).expect("settings are plain values");
        let mut file = tempfile::NamedTempFile::new_in(&self.root).at("write", &path)?;
        file.write_all(text.as_bytes()).at("write", &path)?;
        file.as_file().sync_all().at("sync", &path)?;
        file.persist(&path).map_err(|e| e.error).at("write", &path)?;
        File::open(&self.root).and_then(|dir| dir.sync_all()).at("sync", &self.root)
    }

    /// Reads the settings of the repository.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, [`Kind::Unsupported`] if it has another format,
    /// [`Kind::Corrupt`] if the settings are damaged.
    pub fn settings(&self) -> Result<Settings> {
        let path = self.root.join(SETTINGS_FILE);
        let text = fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::NotFound, format!("no repository in {}", self.root.display()))
                    .hint(RepositoryHint::Init(self.root.display().to_string()))
            }
            _ => Error::io(format!("cannot read {}", path.display()), e),
        })?;
        let damaged =
            |e| Error::new(Kind::Corrupt, format!("{} is damaged", path.display())).because(e);
        let FormatOnly { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if ![REPOSITORY_FORMAT, SHARED_FORMAT, ZONED_FORMAT].contains(&format) {
            let what = format!(
                "the repository {} has format {format}; this release reads {ZONED_FORMAT}",
                self.root.display()
            );
            return Err(Error::new(Kind::Unsupported, what)
                .hint("use the release of artifactfs that made it, or a newer one"));
        }
        let mut settings: Settings = serde_json::from_slice(&text).map_err(damaged)?;
        if !settings.literal_prefix {
            settings.store = StoreUrl::of_encoded(&settings.store);
            settings.literal_prefix = true;
        }
        Ok(settings)
    }

    /// Opens the store that `settings` name. The store is changed only if it belongs to this
    /// repository.
    pub(crate) fn open_store(&self, settings: &Settings, access: &StoreOptions) -> Result<Store> {
        if let Some(url) = settings.server()? {
            return Store::served(&access.keys.access(&url)?, access);
        }
        let (url, options) = settings.store_url()?;
        Ok(Store::open(&url, &options, &self.root, access)?.belonging_to(&settings.id))
    }
}

/// An open repository.
pub struct Repository {
    /// The paths of its parts.
    pub layout: Layout,
    /// The settings.
    pub settings: Settings,
    /// The cutter of files into chunks.
    pub(crate) cutter: Cutter,
    /// The registry: names, and where bytes are.
    pub registry: Arc<dyn Registry>,
    /// The store of bytes.
    pub store: Arc<Store>,
    /// The reader of verified bytes.
    pub reader: Arc<Reader>,
    /// The clock and the randomness.
    pub host: Host,
    /// The names that were resolved, if the registry is shared.
    pub(crate) resolved: Option<Resolved>,
    /// The janitor at the server, if the repository is reached through a server.
    pub(crate) janitor: Option<Arc<dyn Janitor>>,
    zero_chunk: OnceLock<Digest>,
}

impl Repository {
    /// Opens the repository of `layout` with a registry that was opened or is reached by other
    /// means.
    ///
    /// # Errors
    /// As [`Layout::settings`], and [`Kind::Unavailable`] if the store is empty although the
    /// registry has packs.
    pub fn new(layout: Layout, registry: Arc<dyn Registry>, access: &StoreOptions) -> Result<Self> {
        let settings = layout.settings()?;
        let cutter = Cutter::new(settings.chunker.clone())?;
        let store = Arc::new(layout.open_store(&settings, access)?);
        if !store.is_remote() {
            check_owner(&store, &settings, &*registry)?;
        }
        let far = settings.registry.is_some();
        let locate: Arc<dyn Locate> = Arc::new(RegistryLocator::new(&registry, far));
        if let Some(fetcher) = store.fetcher() {
            fetcher.learn_from(Arc::clone(&locate));
        }
        let reader = Arc::new(Reader::new(Arc::clone(&store), locate));
        Ok(Self {
            layout,
            settings,
            cutter,
            registry,
            store,
            reader,
            host: access.host.clone(),
            resolved: far.then(Resolved::default),
            janitor: None,
            zero_chunk: OnceLock::new(),
        })
    }

    /// Returns whether processes of other hosts use the same registry.
    pub(crate) fn is_shared(&self) -> bool {
        self.settings.registry.is_some()
    }

    /// Returns the repository with the janitor at its server, if it has one.
    #[must_use]
    pub(crate) fn with_janitor(mut self, janitor: Option<Arc<dyn Janitor>>) -> Self {
        self.janitor = janitor;
        self
    }

    /// Refuses work that needs the registry and the store themselves.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if the repository is reached through a server.
    pub fn refuse_served(&self) -> Result<()> {
        match &self.janitor {
            None => Ok(()),
            Some(_) => {
                let what = "that needs the repository's own registry and store";
                Err(Error::new(Kind::Unsupported, what).hint(AccessHint::RunAtServer))
            }
        }
    }

    /// Returns the digest of the chunk that a run of zeros is cut into.
    pub(crate) fn zero_chunk(&self) -> Digest {
        *self.zero_chunk.get_or_init(|| {
            let window = vec![0; self.cutter.max_bytes()];
            Digest::of(ObjectKind::Chunk, &window[..self.cutter.cut(&window)])
        })
    }
}

/// Refuses a directory that belongs to another repository, or that is empty while the registry has
/// packs: then its disk is not mounted. A remote store is checked before the first change.
fn check_owner(store: &Store, settings: &Settings, registry: &dyn Registry) -> Result<()> {
    match store.owner()? {
        // The directory is the right one. A copy of it may lack empty folders.
        Some(owner) if owner == settings.id => return store.make(),
        Some(_) => return store.claim(&settings.id),
        None => {}
    }
    let packs = registry.info()?.packs;
    if packs > 0 && store.list()?.is_empty() {
        let packs = counted(packs, "pack");
        let what = format!("the store {} is empty, and should hold {packs}", settings.store);
        return Err(
            Error::new(Kind::Unavailable, what).hint("is its disk mounted? nothing was changed")
        );
    }
    match store.claim(&settings.id) {
        Err(e) if matches!(e.kind(), Kind::ReadOnly | Kind::Denied | Kind::Full) => {
            tracing::debug!("the store does not bear the repository's id yet: {e}");
            Ok(())
        }
        claimed => claimed,
    }
}

/// The number of packs whose lengths are remembered.
const LENGTHS: NonZeroUsize = NonZeroUsize::new(4 << 10).expect("it is not zero");

/// The registry as content sees it.
struct RegistryLocator {
    registry: Arc<dyn Registry>,
    /// True if it is reached over a network.
    far: bool,
    /// The lengths of packs, if it is. A pack of a remote store never changes. The lock of one is held
    /// while it is looked up.
    lengths: Mutex<LruCache<PackId, Arc<Mutex<Option<u64>>>>>,
}

impl RegistryLocator {
    fn new(registry: &Arc<dyn Registry>, far: bool) -> Self {
        Self { registry: Arc::clone(registry), far, lengths: Mutex::new(LruCache::new(LENGTHS)) }
    }
}

impl Locate for RegistryLocator {
    fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Located>>> {
        self.registry.locate(digests.to_vec())
    }

    fn pack_length(&self, pack: PackId) -> Result<Option<u64>> {
        let look_up = || Ok(self.registry.pack(pack)?.map(|pack| pack.length_bytes));
        if !self.far {
            return look_up();
        }
        let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        let known = Arc::clone(lengths.get_or_insert(pack, Arc::default));
        drop(lengths);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            // A pack without objects has no length yet.
            *known = look_up()?.filter(|length| *length > 0);
        }
        Ok(*known)
    }

    fn is_far(&self) -> bool {
        self.far
    }

    fn doubt(&self, digest: Digest, extent: Extent) {
        if let Err(e) = self.registry.doubt(vec![(digest, extent)]) {
            tracing::warn!(%digest, "the damage could not be recorded: {e}");
        }
    }
}
