//! A repository: one registry and one store, made by `init`.
//!
//! ```text
//! repository.json    format, id, chunker settings, where the store is
//! registry.redb      the registry
//! store/packs/…      the store, unless it is elsewhere
//! drafts/            what is being staged
//! puts/              what the last put of a path saw, so that unchanged files are not read again
//! artifactfs.sock    where the process that has the registry open answers
//! lock               who that is
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::content::Locate;
use crate::content::chunk::{ChunkerSettings, Cutter};
use crate::content::reader::Reader;
use crate::content::store::{Access, Store, StoreUrl};
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Located, ObjectKind, PackId};
use crate::model::version::Timestamp;
use crate::registry::Registry;

/// The format this release writes and reads.
pub const REPOSITORY_FORMAT: u32 = 1;
const SETTINGS_FILE: &str = "repository.json";
/// Where the bytes go when nobody says: below the repository.
const DEFAULT_STORE: &str = "file:store";

/// What a repository is made with and keeps for ever.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// [`REPOSITORY_FORMAT`].
    pub format: u32,
    /// Random, to tell repositories apart.
    pub id: String,
    /// When it was made; files in the mounts bear this time.
    pub created: Timestamp,
    /// How files are cut.
    pub chunker: ChunkerSettings,
    /// Where the store is: a URL; a relative directory is below the repository.
    pub store: String,
    /// What else is needed to reach it; no secrets.
    #[serde(default)]
    pub store_options: BTreeMap<String, String>,
}

/// Only the format, which every release must be able to read.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Where the parts of a repository are.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The repository's directory, absolute.
    pub root: PathBuf,
}

impl Layout {
    /// The parts of the repository in `root`.
    pub fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: std::path::absolute(root).at("find", root)? })
    }

    /// The registry's file.
    pub fn registry(&self) -> PathBuf {
        self.root.join("registry.redb")
    }

    /// Held by the process that has the registry open.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Where that process answers.
    pub fn socket(&self) -> PathBuf {
        self.root.join("artifactfs.sock")
    }

    /// Where the process that has the drafts open answers.
    pub fn staging_socket(&self) -> PathBuf {
        self.root.join("staging.sock")
    }

    /// What is being staged.
    pub fn drafts(&self) -> PathBuf {
        self.root.join("drafts")
    }

    /// What earlier puts saw.
    pub fn puts(&self) -> PathBuf {
        self.root.join("puts")
    }

    /// One file for each daemon.
    pub fn daemons(&self) -> PathBuf {
        self.root.join("daemons")
    }

    /// Where a daemon tells its numbers.
    pub fn daemon_socket(&self, pid: u32) -> PathBuf {
        self.daemons().join(format!("{pid}.sock"))
    }

    /// Whether there is a repository.
    pub fn exists(&self) -> bool {
        self.root.join(SETTINGS_FILE).exists()
    }

    /// Makes a repository.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when there is one, [`Kind::Usage`] for a store that cannot be.
    pub fn init(
        &self,
        store: Option<&StoreUrl>,
        options: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<Settings> {
        if self.exists() {
            let what = format!("{} is a repository already", self.root.display());
            return Err(
                Error::new(Kind::Conflict, what).hint("use it, or choose another directory")
            );
        }
        let store = store.map_or_else(|| DEFAULT_STORE.to_owned(), ToString::to_string);
        let settings = Settings {
            format: REPOSITORY_FORMAT,
            id: format!("{:032x}", rand::random::<u128>()),
            created: now,
            chunker: ChunkerSettings::default(),
            store,
            store_options: options,
        };
        self.open_store(&settings, &Access::default())?;
        fs::create_dir_all(&self.root).at("create", &self.root)?;
        self.write_settings(&settings)?;
        Ok(settings)
    }

    /// Replaces the settings of the repository that is there.
    ///
    /// # Errors
    /// When they cannot be written; those that were there still are.
    pub fn write_settings(&self, settings: &Settings) -> Result<()> {
        let path = self.root.join(SETTINGS_FILE);
        let text = serde_json::to_string_pretty(settings).expect("settings are plain values");
        let mut file = tempfile::NamedTempFile::new_in(&self.root).at("write", &path)?;
        file.write_all(text.as_bytes()).at("write", &path)?;
        file.as_file().sync_all().at("sync", &path)?;
        file.persist(&path).map_err(|e| e.error).at("write", &path)?;
        File::open(&self.root).and_then(|dir| dir.sync_all()).at("sync", &self.root)
    }

    /// The settings of the repository that is there.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none, [`Kind::Unsupported`] when it is of a newer format.
    pub fn settings(&self) -> Result<Settings> {
        let path = self.root.join(SETTINGS_FILE);
        let text = fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::NotFound, format!("no repository in {}", self.root.display()))
                    .hint(format!("`artifactfs init {}` makes one", self.root.display()))
            }
            _ => Error::io(format!("cannot read {}", path.display()), e),
        })?;
        let damaged =
            |e| Error::new(Kind::Corrupt, format!("{} is damaged", path.display())).because(e);
        let FormatOnly { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format != REPOSITORY_FORMAT {
            let what = format!(
                "the repository {} has format {format}; this release reads {REPOSITORY_FORMAT}",
                self.root.display()
            );
            return Err(Error::new(Kind::Unsupported, what)
                .hint("use the release of artifactfs that made it, or a newer one"));
        }
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// The store that `settings` name.
    ///
    /// # Errors
    /// When a directory cannot be made or the settings make no sense.
    pub fn open_store(&self, settings: &Settings, access: &Access) -> Result<Store> {
        let url: StoreUrl = settings.store.parse()?;
        let options: Vec<_> = settings.store_options.clone().into_iter().collect();
        Store::open(&url, &options, &self.root, access)
    }
}

/// An open repository.
pub struct Repository {
    /// Where its parts are.
    pub layout: Layout,
    /// What it was made with.
    pub settings: Settings,
    /// How files are cut.
    pub cutter: Cutter,
    /// Names, and where bytes are.
    pub registry: Arc<dyn Registry>,
    /// The bytes.
    pub store: Arc<Store>,
    /// The bytes, verified.
    pub reader: Arc<Reader>,
    zero_chunk: OnceLock<Digest>,
}

impl Repository {
    /// The repository of `layout`, whose registry was opened or is reached by other means.
    ///
    /// # Errors
    /// As [`Layout::settings`], and when the store cannot be opened.
    pub fn new(layout: Layout, registry: Arc<dyn Registry>, access: &Access) -> Result<Self> {
        let settings = layout.settings()?;
        let cutter = Cutter::new(settings.chunker.clone())?;
        let store = Arc::new(layout.open_store(&settings, access)?);
        let locate: Arc<dyn Locate> = Arc::new(RegistryLocator(Arc::clone(&registry)));
        if let Some(near) = store.near() {
            near.learn_from(Arc::clone(&locate));
        }
        let reader = Arc::new(Reader::new(Arc::clone(&store), locate));
        Ok(Self { layout, settings, cutter, registry, store, reader, zero_chunk: OnceLock::new() })
    }

    /// The chunk that a run of zeros is cut into.
    pub fn zero_chunk(&self) -> Digest {
        *self.zero_chunk.get_or_init(|| {
            let window = vec![0; self.cutter.max_bytes()];
            Digest::of(ObjectKind::Chunk, &window[..self.cutter.cut(&window)])
        })
    }
}

/// The registry as content sees it.
struct RegistryLocator(Arc<dyn Registry>);

impl Locate for RegistryLocator {
    fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Located>>> {
        self.0.locate(digests.to_vec())
    }

    fn pack_length(&self, pack: PackId) -> Result<Option<u64>> {
        Ok(self.0.pack(pack)?.map(|pack| pack.length_bytes))
    }
}
