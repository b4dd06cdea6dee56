//! Paths of Unix sockets, which the kernel bounds.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_have_a_long_path() {
        use std::os::unix::net::{UnixListener, UnixStream};
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(200));
        std::fs::create_dir(&long).unwrap();
        for path in [folder.path().join("socket"), long.join("socket")] {
            let _listener = UnixListener::bind(SocketPath::of(&path).unwrap().path()).unwrap();
            UnixStream::connect(SocketPath::of(&path).unwrap().path()).unwrap();
            assert!(path.exists());
        }
        assert!(SocketPath::of(&long.join("none/socket")).is_err());
    }
}
