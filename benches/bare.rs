//! A bare pass-through file system, to measure against: the cost of fuser and the kernel with
//! almost nothing between them. `bare SOURCE MOUNTPOINT`; files can be copied into it, and no more.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyEmpty,
    ReplyEntry, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

const TTL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Known {
    paths: HashMap<u64, PathBuf>,
    files: HashMap<u64, File>,
    opened: u64,
}

struct Bare(Mutex<Known>);

fn attr(meta: &fs::Metadata, number: u64) -> FileAttr {
    let time = UNIX_EPOCH + Duration::from_secs(meta.mtime().unsigned_abs());
    FileAttr {
        ino: INodeNo(number),
        size: meta.len(),
        blocks: meta.blocks(),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: if meta.is_dir() { FileType::Directory } else { FileType::RegularFile },
        perm: (meta.mode() & 0o7777) as u16,
        nlink: 1,
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: 1 << 20,
        flags: 0,
    }
}

impl Bare {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.lock().paths.get(&number).cloned().unwrap_or_default()
    }

    fn met(&self, path: PathBuf) -> io::Result<FileAttr> {
        let meta = fs::symlink_metadata(&path)?;
        self.lock().paths.insert(meta.ino(), path);
        Ok(attr(&meta, meta.ino()))
    }

    fn entry(&self, met: io::Result<FileAttr>, reply: ReplyEntry) {
        match met {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(e) => reply.error(e.into()),
        }
    }
}

impl Filesystem for Bare {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.met(self.path(parent.0).join(name)), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, _: u64) {
        if ino != INodeNo::ROOT {
            self.lock().paths.remove(&ino.0);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match fs::symlink_metadata(self.path(ino.0)) {
            Ok(meta) => reply.attr(&TTL, &attr(&meta, ino.0)),
            Err(e) => reply.error(e.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match fs::symlink_metadata(self.path(ino.0)) {
            Ok(meta) => reply.attr(&TTL, &attr(&meta, ino.0)),
            Err(e) => reply.error(e.into()),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let path = self.path(parent.0).join(name);
        self.entry(fs::create_dir(&path).and_then(|()| self.met(path)), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let path = self.path(parent.0).join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        match file.and_then(|file| Ok((file, self.met(path)?))) {
            Ok((file, attr)) => {
                let mut known = self.lock();
                known.opened += 1;
                let handle = known.opened;
                known.files.insert(handle, file);
                drop(known);
                let handle = FileHandle(handle);
                reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::empty());
            }
            Err(e) => reply.error(e.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = self.lock().files.get(&handle.0).map(File::try_clone);
        match file.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into())) {
            Ok(file) => match file.write_all_at(data, offset) {
                Ok(()) => reply.written(data.len() as u32),
                Err(e) => reply.error(e.into()),
            },
            Err(e) => reply.error(e.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let file = self.lock().files.remove(&handle.0);
        drop(file);
        reply.ok();
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(source), Some(target)) = (args.next(), args.next()) else {
        return Err(io::Error::other("wanted: SOURCE MOUNTPOINT"));
    };
    let mut known = Known::default();
    known.paths.insert(INodeNo::ROOT.0, source);
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("bare".into()), MountOption::DefaultPermissions];
    config.n_threads = Some(2);
    config.clone_fd = true;
    fuser::mount(Bare(Mutex::new(known)), &target, &config)
}
