//! Files that are replaced as a whole: readers and crashes meet the old text or the new one. And
//! sockets with long paths.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};

/// Replaces the text of a file. After a power loss it may have the old text.
///
/// # Errors
/// Any error of the disk.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<()> {
    replace_by(path, |part| fs::write(part, text)).at("write", path)
}

/// Replaces the text of a file. When this returns, a power loss does not bring the old text back.
///
/// # Errors
/// Any error of the disk.
pub(crate) fn replace_durably(path: &Path, text: &[u8]) -> Result<()> {
    let write = |part: &Path| {
        let mut file = File::create(part)?;
        file.write_all(text)?;
        file.sync_all()
    };
    replace_by(path, write).at("write", path)?;
    sync_directory(path.parent().unwrap_or(path))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// Any error of the disk.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).at("sync", path)
}

/// The maximum length of a Unix socket's path in bytes (unix(7): 108 with the zero that ends it).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The path of a Unix socket, in a form that is short enough for the kernel.
pub(crate) struct SocketPath {
    path: PathBuf,
    /// The socket's folder, through which a long path leads.
    _folder: Option<File>,
}

impl SocketPath {
    /// Returns a path of the socket at `path`, which need not exist; its folder must.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Self { path: path.to_owned(), _folder: None });
        };
        if path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }

    /// Returns the path, which is valid while the value lives.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[expect(clippy::disallowed_methods, reason = "the door to renames")]
fn replace_by(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".new");
    write(Path::new(&part))?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_have_a_long_path() {
        use std::os::unix::net::{UnixListener, UnixStream};
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(200));
        fs::create_dir(&long).unwrap();
        for path in [folder.path().join("socket"), long.join("socket")] {
            let _listener = UnixListener::bind(SocketPath::of(&path).unwrap().path()).unwrap();
            UnixStream::connect(SocketPath::of(&path).unwrap().path()).unwrap();
            assert!(path.exists());
        }
        assert!(SocketPath::of(&long.join("none/socket")).is_err());
    }

    #[test]
    fn a_text_is_replaced_as_a_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        for (text, put) in [("one", replace as fn(&Path, &[u8]) -> _), ("two", replace_durably)] {
            put(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        assert!(replace(&folder.path().join("none/record"), b"x").is_err());
    }
}
