//! The embedded engine: one redb file, one process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
};

use super::{Durability, Engine, Pair, Transaction, View};
use crate::error::{Error, IoContext, Kind, Result};
use crate::files::sync_directory;

/// The only table: each key of the registry begins with the byte of its space.
const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("registry");
/// The size of redb's page cache. Its default of 1 GiB would be most of a daemon's memory.
const CACHE_BYTES: usize = 64 << 20;

/// An engine over a redb file.
///
/// After a write that failed (on a full disk, for example) redb refuses everything until it is
/// opened again. The next transaction does that, so that a daemon continues once there is room.
pub struct RedbEngine {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl RedbEngine {
    /// Opens the file, and makes it if it does not exist. After a crash redb repairs it.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another process has it open, [`Kind::Corrupt`], [`Kind::Full`], and
    /// other errors of redb.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            create_database(path)?;
        }
        let database = RwLock::new(Some(open_database(path)?));
        Ok(Self { path: path.to_owned(), database })
    }

    /// Runs `body` on the open database; opens it again if an earlier write failed.
    fn with<T>(&self, mut body: impl FnMut(&Database) -> Result<T>) -> Result<T> {
        {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(database) = &*database {
                match body(database) {
                    Err(e) if is_previous_failure(&e) => {}
                    done => return done,
                }
            }
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The database is closed before it is opened again, because redb locks its file.
        drop(database.take());
        body(database.insert(open_database(&self.path)?))
    }
}

fn open_database(path: &Path) -> Result<Database> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).open(path);
    database.map_err(|e| open_error(path, e))
}

/// Makes the file under another name and renames it. Redb writes its header in several steps, and a
/// process that is killed between them would leave a file that cannot be opened. The caller holds
/// the repository's lock.
#[expect(clippy::disallowed_methods, reason = "the file is synced by redb, its name below")]
fn create_database(path: &Path) -> Result<()> {
    let part = path.with_extension("redb.new");
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at("remove", &part),
        _ => {}
    }
    let database = Database::builder().create(&part).map_err(|e| open_error(&part, e))?;
    let transaction = database.begin_write().map_err(failed)?;
    transaction.open_table(TABLE).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    drop(database);
    fs::rename(&part, path).at("create", path)?;
    sync_directory(path.parent().unwrap_or(path))
}

fn is_previous_failure(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let redb = source.and_then(|source| source.downcast_ref::<StorageError>());
    matches!(redb, Some(StorageError::PreviousIo))
}

fn open_error(path: &Path, error: DatabaseError) -> Error {
    let what = format!("cannot open the registry {}", path.display());
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::new(Kind::Conflict, format!("{what}: another process has it open"))
        }
        DatabaseError::UpgradeRequired(format) => {
            Error::new(Kind::Unsupported, format!("{what}: its file format is {format}"))
                .hint("it was made by another release of artifactfs: use that one")
        }
        DatabaseError::Storage(storage) => storage_error(what, storage),
        other => Error::new(Kind::Unavailable, what).because(other),
    }
}

fn storage_error(what: String, error: StorageError) -> Error {
    match error {
        StorageError::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            Error::new(Kind::Corrupt, what).because(io)
        }
        StorageError::Io(io) => Error::io(what, io),
        StorageError::Corrupted(text) => Error::new(Kind::Corrupt, format!("{what}: {text}")),
        other => Error::new(Kind::Unavailable, what).because(other),
    }
}

fn failed(error: impl Into<redb::Error>) -> Error {
    let what = "the registry failed".to_owned();
    match error.into() {
        redb::Error::Io(io) => storage_error(what, StorageError::Io(io)),
        redb::Error::Corrupted(text) => storage_error(what, StorageError::Corrupted(text)),
        redb::Error::PreviousIo => storage_error(what, StorageError::PreviousIo),
        other => Error::new(Kind::Unavailable, what).because(other),
    }
}

impl Drop for RedbEngine {
    /// Makes all commits durable: the next process that opens the file must see them.
    fn drop(&mut self) {
        if let Err(e) = self.write(Durability::Immediate, &mut |_| Ok(())) {
            tracing::warn!("the last changes of the registry may not be durable: {e}");
        }
    }
}

struct TableView<T>(T);

impl<T: ReadableTable<&'static [u8], &'static [u8]>> View for TableView<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.0.get(key).map_err(failed)?;
        Ok(value.map(|guard| guard.value().to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = self.0.range::<&[u8]>(from..to).map_err(failed)?;
        range
            .take(limit)
            .map(|pair| {
                let (key, value) = pair.map_err(failed)?;
                Ok((key.value().to_vec(), value.value().to_vec()))
            })
            .collect()
    }
}

impl Transaction for TableView<Table<'_, &'static [u8], &'static [u8]>> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key, value).map(drop).map_err(failed)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.0.remove(key).map(drop).map_err(failed)
    }
}

impl Engine for RedbEngine {
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(failed)?;
            body(&TableView(transaction.open_table(TABLE).map_err(failed)?))
        })
    }

    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        self.with(|database| {
            let mut transaction = database.begin_write().map_err(failed)?;
            transaction
                .set_durability(match durability {
                    Durability::Immediate => redb::Durability::Immediate,
                    Durability::Eventual => redb::Durability::None,
                })
                .map_err(failed)?;
            let done = body(&mut TableView(transaction.open_table(TABLE).map_err(failed)?));
            match done {
                Ok(()) => transaction.commit().map_err(failed),
                Err(error) => {
                    transaction.abort().map_err(failed)?;
                    Err(error)
                }
            }
        })
    }
}
