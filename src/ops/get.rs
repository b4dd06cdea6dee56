//! A get, which writes a version out as ordinary files.
//!
//! Every directory is opened without following symlinks and every name is created in an open
//! directory, so nothing can be written outside the target. A file appears under its name when it
//! is complete. A repeated `get` leaves files alone that are already right.

mod external;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, readlinkat, renameat, statat};
use rustix::fs::{symlinkat, unlinkat};

use super::put::{Filters, Progress};
use super::repository::Repository;
use crate::content::directory::{each_entry, lookup};
use crate::error::{Error, GetHint, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::host::Host;
use crate::model::name::EntryName;
use crate::model::object_kind::ObjectKind;
use crate::model::recipe::Piece;
use crate::model::tree::{Content, Entry, Target};

/// The number of files that wait for a writing thread.
const QUEUED_FILES: usize = 64;
/// The number of places that are looked up at once.
const LOOK_AHEAD: usize = 4_096;
/// The minimum size in bytes of a file that may share its pack's bytes by reflink.
const REFLINK_MIN_BYTES: u64 = 1 << 20;

/// The result of a get.
#[derive(Debug, Default, Clone, Copy)]
pub struct GetReport {
    /// The number of files written.
    pub written: u64,
    /// The number of files and symlinks that were already right.
    pub kept: u64,
    /// The size of the files written, in bytes.
    pub bytes: u64,
}

#[derive(Default)]
struct Counters {
    written: AtomicU64,
    kept: AtomicU64,
    bytes: AtomicU64,
}

/// The treatment of external files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Externals {
    /// Their bytes are written out.
    Downloaded,
    /// They are linked: a local file by a symlink, any other by a file `NAME.url`.
    Linked,
}

/// The outcome for one file.
enum Made {
    Kept,
    /// This number of bytes was written.
    Written(u64),
}

/// The number of threads that write files from a remote store; most of them wait for it.
const REMOTE_THREADS: usize = 16;

/// A file to write.
struct Job {
    directory: Arc<OwnedFd>,
    shown: PathBuf,
    name: EntryName,
    content: Content,
    executable: bool,
    externals: Externals,
}

/// Writes the tree `root` to `target`, and makes that directory if it does not exist.
///
/// # Errors
/// [`Kind::Conflict`] if something else is in the way; any error of reading or writing.
pub fn get(
    repository: &Repository,
    root: Digest,
    target: &Path,
    filters: &Filters,
    progress: &dyn Progress,
) -> Result<GetReport> {
    get_with(repository, root, target, filters, Externals::Downloaded, progress)
}

/// Writes a tree as [`get`] does, with a choice for external files.
///
/// # Errors
/// As [`get`].
pub fn get_with(
    repository: &Repository,
    root: Digest,
    target: &Path,
    filters: &Filters,
    externals: Externals,
    progress: &dyn Progress,
) -> Result<GetReport> {
    make_root(target)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(target, flags, Mode::empty()).at("open", target)?;
    let counters = Counters::default();
    let (jobs, queue) = sync_channel(QUEUED_FILES);
    let queue = Mutex::new(queue);
    let threads = match repository.store.is_remote() {
        true => REMOTE_THREADS,
        false => std::thread::available_parallelism().map_or(2, usize::from),
    };
    let walked = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| write_files(repository, &queue, &counters, progress)))
            .collect();
        let mut walk = Walk { repository, filters, externals, jobs, counters: &counters };
        let walked = walk.directory(root, &Arc::new(directory), target, Path::new(""));
        drop(walk);
        let written = writers.into_iter().map(|writer| {
            let panicked = |_| Err(Error::new(Kind::Unavailable, "a writing thread panicked"));
            writer.join().unwrap_or_else(panicked)
        });
        // The error of the writers is the cause; the walk only found that they had ended.
        written.collect::<Result<Vec<()>>>().and(walked)
    });
    walked?;
    Ok(GetReport {
        written: counters.written.into_inner(),
        kept: counters.kept.into_inner(),
        bytes: counters.bytes.into_inner(),
    })
}

/// Makes the directory to write to.
///
/// # Errors
/// [`Kind::Conflict`] if something else than a directory is there, or above it.
fn make_root(target: &Path) -> Result<()> {
    match fs::create_dir_all(target) {
        Err(e) if is_in_the_way(&e) => {
            let what = format!("{} is not a directory", target.display());
            Err(Error::new(Kind::Conflict, what).hint(GetHint::ChooseRoot))
        }
        made => made.at("create", target),
    }
}

/// Returns whether a directory cannot be made because something else is at its path or above it.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory)
}

struct Walk<'a> {
    repository: &'a Repository,
    filters: &'a Filters,
    externals: Externals,
    jobs: SyncSender<Job>,
    counters: &'a Counters,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        tree: Digest,
        directory: &Arc<OwnedFd>,
        shown: &Path,
        relative: &Path,
    ) -> Result<()> {
        let reader = Arc::clone(&self.repository.reader);
        self.look_ahead(tree, relative)?;
        each_entry(&reader, tree, &mut |entry| {
            self.refuse_two_names(tree, entry, shown)?;
            self.entry(entry, directory, shown, relative)
        })
    }

    /// Looks up the places of a directory's files at once, if the registry is far away.
    fn look_ahead(&self, tree: Digest, relative: &Path) -> Result<()> {
        if !self.repository.is_shared() {
            return Ok(());
        }
        let reader = &self.repository.reader;
        let mut digests = Vec::new();
        each_entry(reader, tree, &mut |entry| {
            match &entry.target {
                Target::File { content, .. }
                    if self.filters.takes(&relative.join(entry.name.as_os_str())) =>
                {
                    digests.extend(content.digest());
                }
                Target::Directory(below) => digests.push(*below),
                _ => {}
            }
            Ok(())
        })?;
        digests.chunks(LOOK_AHEAD).try_for_each(|some| reader.look_ahead(some))
    }

    fn entry(
        &mut self,
        entry: &Entry,
        directory: &Arc<OwnedFd>,
        shown: &Path,
        relative: &Path,
    ) -> Result<()> {
        let relative = relative.join(entry.name.as_os_str());
        let shown = shown.join(entry.name.as_os_str());
        match &entry.target {
            Target::Directory(tree) => {
                if !self.filters.enters(&relative) || !self.wanted_below(*tree, &relative)? {
                    return Ok(());
                }
                let below = open_directory(directory, &entry.name, &shown)?;
                self.directory(*tree, &Arc::new(below), &shown, &relative)
            }
            _ if !self.filters.takes(&relative) => Ok(()),
            Target::Symlink(target) => self.symlink(directory, &entry.name, target, &shown),
            Target::File { content, executable } => {
                let job = Job {
                    directory: Arc::clone(directory),
                    shown,
                    name: entry.name.clone(),
                    content: *content,
                    executable: *executable,
                    externals: self.externals,
                };
                let nobody = || Error::new(Kind::Unavailable, "writing stopped");
                self.jobs.send(job).map_err(|_| nobody())
            }
        }
    }

    /// Refuses to write an external file's URL under a name that another entry has.
    fn refuse_two_names(&self, tree: Digest, entry: &Entry, shown: &Path) -> Result<()> {
        let linked = self.externals == Externals::Linked;
        let is_external =
            matches!(&entry.target, Target::File { content, .. } if content.is_external());
        if !linked || !is_external {
            return Ok(());
        }
        let name = [entry.name.as_bytes(), external::URL_SUFFIX.as_bytes()].concat();
        let Ok(name) = EntryName::try_from(&*name) else { return Ok(()) };
        match lookup(&self.repository.reader, tree, &name)? {
            None => Ok(()),
            Some(_) => {
                let what = format!("{} is another file", shown.join(name.as_os_str()).display());
                Err(Error::new(Kind::Conflict, what).hint(GetHint::FetchReferences))
            }
        }
    }

    /// Returns whether anything below is selected; otherwise the directory is not made.
    fn wanted_below(&self, tree: Digest, relative: &Path) -> Result<bool> {
        if !self.filters.chooses() {
            return Ok(true);
        }
        let mut wanted = false;
        each_entry(&self.repository.reader, tree, &mut |entry| {
            let path = relative.join(entry.name.as_os_str());
            wanted = wanted
                || match entry.target {
                    Target::Directory(below) => {
                        self.filters.enters(&path) && self.wanted_below(below, &path)?
                    }
                    _ => self.filters.takes(&path),
                };
            Ok(())
        })?;
        Ok(wanted)
    }

    fn symlink(
        &self,
        directory: &OwnedFd,
        name: &EntryName,
        target: &[u8],
        shown: &Path,
    ) -> Result<()> {
        let there = readlinkat(directory, name.as_os_str(), Vec::new());
        if there.is_ok_and(|there| there.as_bytes() == target) {
            self.counters.kept.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let temporary = temporary_name(&self.repository.host);
        let target = std::ffi::CString::new(target)
            .map_err(|_| Error::new(Kind::Corrupt, format!("{} holds a NUL", shown.display())))?;
        symlinkat(&*target, directory, &temporary).at("create", shown)?;
        rename_into_place(directory, &temporary, name, shown)
    }
}

fn temporary_name(host: &Host) -> String {
    format!(".artifactfs-{:016x}.tmp", host.random() as u64)
}

/// Gives the complete file its name, in place of anything but a directory.
fn rename_into_place(
    directory: &OwnedFd,
    temporary: &str,
    name: &EntryName,
    shown: &Path,
) -> Result<()> {
    let renamed = renameat(directory, temporary, directory, name.as_os_str());
    if let Err(e) = renamed {
        // The failure is returned; the leftover has a temporary name.
        let _ = unlinkat(directory, temporary, AtFlags::empty());
        if e == rustix::io::Errno::ISDIR {
            let what = format!("{} is a directory", shown.display());
            return Err(Error::new(Kind::Conflict, what).hint(GetHint::ChooseRoot));
        }
        return Err(e).at("create", shown);
    }
    Ok(())
}

/// Opens the directory `name`, made if it does not exist. Never follows a symlink.
fn open_directory(parent: &OwnedFd, name: &EntryName, shown: &Path) -> Result<OwnedFd> {
    let name = name.as_os_str();
    match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e).at("create", shown),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => {
            let what = format!("{} is there and is no directory", shown.display());
            Error::new(Kind::Conflict, what).hint(GetHint::ChooseRoot)
        }
        other => Error::io(format!("cannot open {}", shown.display()), other.into()),
    })
}

fn write_files(
    repository: &Repository,
    queue: &Mutex<Receiver<Job>>,
    counters: &Counters,
    progress: &dyn Progress,
) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return Ok(()) };
        let made = write_file(repository, &job);
        if made.is_err() {
            drain(queue);
        }
        match made? {
            Made::Kept => {
                counters.kept.fetch_add(1, Ordering::Relaxed);
            }
            Made::Written(bytes) => {
                counters.written.fetch_add(1, Ordering::Relaxed);
                counters.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        progress.advance(1, job.content.size_bytes());
    }
}

/// Drops all jobs, so that the walk can end and return the error.
fn drain(queue: &Mutex<Receiver<Job>>) {
    while queue.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok() {}
}

fn write_file(repository: &Repository, job: &Job) -> Result<Made> {
    if let (Content::External { digest, .. }, Externals::Linked) = (job.content, job.externals) {
        return external::link(repository, job, digest);
    }
    if is_there(repository, job)? {
        return Ok(Made::Kept);
    }
    let temporary = temporary_name(&repository.host);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(if job.executable { 0o777 } else { 0o666 });
    let file = openat(&*job.directory, &*temporary, flags, mode).at("create", &job.shown)?;
    let written = fill(repository, &File::from(file), job);
    if let Err(e) = written {
        // The failure is returned; the leftover has a temporary name.
        let _ = unlinkat(&*job.directory, &*temporary, AtFlags::empty());
        return Err(e);
    }
    rename_into_place(&job.directory, &temporary, &job.name, &job.shown)?;
    Ok(Made::Written(job.content.size_bytes()))
}

/// Writes the content of a file; whole chunks of zeros become holes.
fn fill(repository: &Repository, file: &File, job: &Job) -> Result<()> {
    if let Content::External { digest, .. } = job.content {
        return external::fill(repository, file, job, digest);
    }
    let reader = &repository.reader;
    let size = job.content.size_bytes();
    let shared = size >= REFLINK_MIN_BYTES && reflink(repository, file, &job.content)?;
    let zeros = repository.zero_chunk();
    let mut offset = 0;
    let mut holes = false;
    reader.each_piece(&job.content, &mut |piece: Piece| {
        let read = || reader.piece(&job.content, piece, offset);
        let body = (!piece.digest.has_content_of(&zeros)).then(read).transpose()?;
        match body {
            // The bytes are there by reflink, and now verified.
            Some(_) if shared => {}
            Some(body) => file.write_all_at(&body, offset).at("write", &job.shown)?,
            None => holes = true,
        }
        offset += piece.size_bytes;
        Ok(())
    })?;
    if holes { file.set_len(size).at("write", &job.shown) } else { Ok(()) }
}

/// Shares the bytes of a file that is a pack of its own, if the file system can.
fn reflink(repository: &Repository, file: &File, content: &Content) -> Result<bool> {
    let mut pack = None;
    let mut next_offset = 0;
    let mut alone = true;
    repository.reader.each_piece(content, &mut |piece| {
        let located = repository.registry.locate(vec![piece.digest])?.pop().flatten();
        let fits = located.is_some_and(|at| {
            let expected = *pack.get_or_insert(at.extent.pack) == at.extent.pack;
            expected && at.extent.offset == next_offset && at.codec == 0
        });
        alone = alone && fits;
        next_offset += piece.size_bytes;
        Ok(())
    })?;
    match pack {
        Some(pack) if alone => Ok(repository.store.clone_pack(pack, file, content.size_bytes())),
        _ => Ok(false),
    }
}

/// Returns whether the file exists with the right bytes and executable bit.
fn is_there(repository: &Repository, job: &Job) -> Result<bool> {
    let name = job.name.as_os_str();
    let Ok(stat) = statat(&*job.directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return Ok(false);
    };
    let size = job.content.size_bytes();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as u64 != size
    {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = openat(&*job.directory, name, flags, Mode::empty()) else {
        return Ok(false);
    };
    let mut file = File::from(file);
    if !same_content(repository, &mut file, &job.content)? {
        return Ok(false);
    }
    let mode = stat.st_mode & 0o777;
    if (mode & 0o111 != 0) != job.executable {
        let mode = if job.executable { mode | ((mode & 0o444) >> 2) } else { mode & !0o111 };
        file.set_permissions(fs::Permissions::from_mode(mode)).at("change", &job.shown)?;
    }
    Ok(true)
}

fn same_content(repository: &Repository, file: &mut File, content: &Content) -> Result<bool> {
    if let Content::External { digest, .. } = *content {
        return external::is_same(repository, file, digest);
    }
    let mut same = true;
    repository.reader.each_piece(content, &mut |piece| {
        if same {
            let mut bytes = vec![0; piece.size_bytes as usize];
            same = match file.read_exact(&mut bytes) {
                Ok(()) => piece.digest.is_of(ObjectKind::Chunk, &bytes),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => false,
                Err(e) => return Err(Error::io("cannot read what is there", e)),
            };
        }
        Ok(())
    })?;
    Ok(same)
}
