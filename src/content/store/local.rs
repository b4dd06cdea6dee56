//! A store in a local directory.
//!
//! ```text
//! packs/<first two digits of the id>/<id>.pack   the bodies
//!                                    <id>.idx    their index
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use rustix::fs::{FallocateFlags, fallocate};

use super::space::{Space, room_of};
use crate::error::{DamageHint, Error, IoContext, Kind, Result};
use crate::model::object::{Extent, PackId};

/// The number of pack files kept open for reading: well below the usual limit of 1,024 descriptors.
const OPEN_PACKS: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");

/// A directory of packs.
pub(crate) struct LocalStore {
    root: PathBuf,
    open: Mutex<LruCache<PackId, Arc<File>>>,
}

impl LocalStore {
    /// Returns the store in `root`, which need not exist.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.join("packs"), open: Mutex::new(LruCache::new(OPEN_PACKS)) }
    }

    /// Creates the directory, unless it exists.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.root).at("create", &self.root)
    }

    /// Refuses a directory that holds no store.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it does not exist or has no folder of packs.
    pub(crate) fn refuse_missing(&self) -> Result<()> {
        match fs::metadata(&self.root) {
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                let what = format!("no store in {}", self.top().display());
                Err(Error::new(Kind::NotFound, what)
                    .hint("a relative directory of a store is below the repository"))
            }
            found => found.map(drop).at("read", &self.root),
        }
    }

    /// Returns the directory that holds the whole store.
    pub(crate) fn top(&self) -> &Path {
        self.root.parent().expect("packs lie in a folder of the store")
    }

    /// Returns the length in bytes of one of a pack's files, and its write time in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it does not exist.
    pub(crate) fn age(&self, id: PackId, extension: &str) -> Result<(u64, u64)> {
        let path = self.path(id, extension);
        let meta = fs::metadata(&path).at("stat", &path)?;
        let modified = meta.mtime().saturating_mul(1_000) + meta.mtime_nsec() / 1_000_000;
        Ok((meta.len(), u64::try_from(modified).unwrap_or_default()))
    }

    fn path(&self, id: PackId, extension: &str) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[..2]).join(name).with_extension(extension)
    }

    /// Begins a pack. Its id is registered first: bytes are durable before names, but the registry
    /// must hold every pack that may be on the disk.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub(crate) fn create(&self, id: PackId) -> Result<LocalWriter> {
        let path = self.prepare_path(id)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        Ok(LocalWriter {
            file: file.at("create", &path)?,
            path,
            length: 0,
            linked: false,
            finished: false,
        })
    }

    /// Returns the path of a new pack, and creates its folder.
    fn prepare_path(&self, id: PackId) -> Result<PathBuf> {
        let path = self.path(id, "pack");
        let folder = path.parent().expect("a pack lies in a folder of the store");
        match fs::create_dir(folder) {
            Ok(()) => sync_directory(&self.root)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.at("create", folder)?,
        }
        Ok(path)
    }

    /// Makes a pack that shares the bytes of the file at `source`; `None` if the file systems
    /// cannot.
    ///
    /// # Errors
    /// If the pack cannot be created.
    pub(crate) fn reflink(&self, id: PackId, source: &Path) -> Result<Option<LocalWriter>> {
        let from = File::open(source).at("read", source)?;
        let path = self.prepare_path(id)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.at("create", &path)?;
        if rustix::fs::ioctl_ficlone(&file, &from).is_err() {
            fs::remove_file(&path).at("remove", &path)?;
            return Ok(None);
        }
        let length = file.metadata().at("stat", &path)?.len();
        Ok(Some(LocalWriter { file, path, length, linked: false, finished: false }))
    }

    /// Makes the file at `source` a pack: one more name of the same inode. The file must not change
    /// any more. Returns `None` if the store is on another file system.
    ///
    /// # Errors
    /// If the pack cannot be created.
    pub(crate) fn link(&self, id: PackId, source: &Path) -> Result<Option<LocalWriter>> {
        let file = File::open(source).at("read", source)?;
        let path = self.prepare_path(id)?;
        if let Err(e) = fs::hard_link(source, &path) {
            tracing::debug!("{} is copied: {e}", source.display());
            return Ok(None);
        }
        let length = file.metadata().at("stat", &path)?.len();
        Ok(Some(LocalWriter { file, path, length, linked: true, finished: false }))
    }

    /// Writes the index of a pack durably, in place of an earlier one.
    ///
    /// # Errors
    /// If it cannot be written; an earlier index is then kept.
    pub(crate) fn write_index(&self, id: PackId, index: &[u8]) -> Result<()> {
        let path = self.path(id, "idx");
        let folder = path.parent().expect("an index lies in a folder of the store");
        let write = || -> io::Result<()> {
            // The name is unique: two processes may free bytes of one pack at the same time.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(index)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error).map(drop)
        };
        write().at("write", &path)?;
        sync_directory(folder)
    }

    /// Returns the bytes of the index of a pack.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none.
    pub(crate) fn read_index(&self, id: PackId) -> Result<Vec<u8>> {
        let path = self.path(id, "idx");
        fs::read(&path).at("read", &path)
    }

    /// Fills `buffer` with the bytes of `extent` from its `skip`th on.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the pack is missing or too short.
    pub(crate) fn read(&self, extent: Extent, skip: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.open_pack(extent.pack)?;
        file.read_exact_at(buffer, extent.offset + skip).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                let what =
                    format!("pack {} ends before byte {}", extent.pack, extent.offset + skip);
                Error::new(Kind::Corrupt, what).hint(DamageHint::Verify)
            }
            _ => Error::io(format!("cannot read pack {}", extent.pack), e),
        })
    }

    /// Returns the ctime of the pack's file in nanoseconds, which every change moves and no program
    /// can set (inode(7)); `None` if the file cannot be opened.
    pub(crate) fn state(&self, id: PackId) -> Option<u64> {
        let meta = self.open_pack(id).ok()?.metadata().ok()?;
        Some(
            (meta.ctime() as u64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(meta.ctime_nsec() as u64),
        )
    }

    fn open_pack(&self, id: PackId) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&id) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(id, "pack");
        let file = File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                Error::new(Kind::Corrupt, format!("pack {id} is missing")).hint(DamageHint::Verify)
            }
            _ => Error::io(format!("cannot open {}", path.display()), e),
        })?;
        let file = Arc::new(file);
        open.put(id, Arc::clone(&file));
        Ok(file)
    }

    /// Closes packs that another process removed: while they are open the disk keeps their bytes.
    pub(crate) fn forget_removed(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |file: &File| file.metadata().is_ok_and(|meta| meta.nlink() == 0);
        let removed: Vec<_> =
            open.iter().filter(|(_, file)| gone(file)).map(|(id, _)| *id).collect();
        for id in removed {
            open.pop(&id);
        }
    }

    /// Gives the bytes of `ranges` (offset, length) back to the disk; they read as zeros then. If
    /// the file system has no holes, zeros are written.
    ///
    /// # Errors
    /// If neither is possible. A repetition is harmless.
    pub(crate) fn punch(&self, id: PackId, ranges: &[(u64, u64)]) -> Result<()> {
        let path = self.path(id, "pack");
        let file = match OpenOptions::new().write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file.at("open", &path)?,
        };
        let file = if file.metadata().at("stat", &path)?.nlink() > 1 {
            // The file is a draft's too, until the commit under way is over.
            self.open.lock().unwrap_or_else(PoisonError::into_inner).pop(&id);
            unlink_from_draft(&path)?
        } else {
            file
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for &(offset, length) in ranges {
            match fallocate(&file, flags, offset, length) {
                Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&file, offset, length),
                done => done.map_err(io::Error::from),
            }
            .at("free part of", &path)?;
        }
        file.sync_data().at("sync", &path)
    }

    /// Removes a pack and its index. One that is gone already counts as removed.
    ///
    /// # Errors
    /// If a file exists and cannot be removed.
    pub(crate) fn remove(&self, id: PackId) -> Result<()> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).pop(&id);
        // The index goes last: a process that writes one at this moment finds that the pack is
        // gone, and removes it.
        for extension in ["pack", "idx"] {
            let path = self.path(id, extension);
            match fs::remove_file(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => done.at("remove", &path)?,
            }
        }
        // The caller forgets the pack after this: it must not come back after a power loss.
        let path = self.path(id, "pack");
        let folder = path.parent().expect("a pack lies in a folder of the store");
        if folder.exists() { sync_directory(folder) } else { Ok(()) }
    }

    /// Lists the packs that have a file with one of these extensions, in no order.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub(crate) fn list(&self, extensions: &[&str]) -> Result<Vec<PackId>> {
        let mut ids = Vec::new();
        let folders = match fs::read_dir(&self.root) {
            // The store was not made yet, or its disk is not mounted.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ids),
            folders => folders.at("list", &self.root)?,
        };
        for folder in folders {
            let folder = folder.at("list", &self.root)?.path();
            for file in fs::read_dir(&folder).at("list", &folder)? {
                let path = file.at("list", &folder)?.path();
                let id: Option<PackId> =
                    path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
                    ids.extend(id);
                }
            }
        }
        Ok(ids)
    }

    /// Returns the length of a pack's file, and the bytes that it takes on the disk.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it does not exist.
    pub(crate) fn pack_size(&self, id: PackId) -> Result<(u64, u64)> {
        /// The unit of `st_blocks`, whatever the file system's block is (stat(2)).
        const STAT_BLOCK_BYTES: u64 = 512;
        let path = self.path(id, "pack");
        let meta = fs::metadata(&path).at("stat", &path)?;
        Ok((meta.len(), meta.blocks() * STAT_BLOCK_BYTES))
    }

    /// Makes `file` share the bytes of a pack of exactly `length` bytes; `false` if the file
    /// systems cannot.
    pub(crate) fn clone_pack(&self, id: PackId, file: &File, length: u64) -> bool {
        let whole = self.pack_size(id).is_ok_and(|(found, _)| found == length);
        let pack = if whole { self.open_pack(id).ok() } else { None };
        pack.is_some_and(|pack| rustix::fs::ioctl_ficlone(file, &*pack).is_ok())
    }

    /// Returns the room on the disk.
    ///
    /// # Errors
    /// If statvfs(2) fails.
    pub(crate) fn space(&self) -> Result<Space> {
        room_of(&self.root)
    }
}

/// Replaces a pack by a copy of its own, and returns that.
fn unlink_from_draft(path: &Path) -> Result<File> {
    let copy = || -> io::Result<File> {
        let folder = path.parent().expect("a pack lies in a folder of the store");
        let mut copy = tempfile::NamedTempFile::new_in(folder)?;
        io::copy(&mut File::open(path)?, copy.as_file_mut())?;
        copy.as_file().sync_all()?;
        copy.persist(path).map_err(|e| e.error)
    };
    let file = copy().at("copy", path)?;
    sync_directory(path.parent().expect("a pack lies in a folder of the store"))?;
    Ok(file)
}

fn write_zeros(file: &File, offset: u64, length: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..step as usize], offset + done)?;
        done += step;
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).at("sync", path)
}

/// A pack being written.
pub(crate) struct LocalWriter {
    file: File,
    path: PathBuf,
    length: u64,
    linked: bool,
    finished: bool,
}

/// A pack that failed, for want of room perhaps, is removed at once. The registry holds it as one
/// that was announced, and needs room itself to forget it.
impl Drop for LocalWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(e) = fs::remove_file(&self.path)
        {
            tracing::warn!("{} was not removed: {e}", self.path.display());
        }
    }
}

impl LocalWriter {
    /// Returns the path of the pack's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the pack is another name of a file that existed.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked
    }

    /// Appends `bytes`, and returns the offset at which they begin.
    ///
    /// # Errors
    /// If they cannot be written, [`Kind::Full`] on a full disk.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let offset = self.length;
        self.file.write_all_at(bytes, offset).at("write", &self.path)?;
        self.length += bytes.len() as u64;
        Ok(offset)
    }

    /// Returns the number of bytes written so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Makes the body durable, and returns its length. The name becomes durable with its index.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.file.sync_all().at("sync", &self.path)?;
        self.finished = true;
        Ok(self.length)
    }
}
