//! Extended attributes: those of users, and none of our own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

use super::Result;
use super::mark::OWN_PREFIX;
use super::node::Body;
use super::scratch::Drafts;

/// The longest value, and the longest list of names, of extended attributes (xattr(7)).
const XATTR_MAX_BYTES: usize = 64 << 10;

impl Drafts {
    /// The host path of a node, for calls that only take paths; `None` when it is only in the base.
    fn host_path(&self, id: u64) -> Result<Option<PathBuf>> {
        let nodes = self.lock_nodes();
        match nodes.body(id)? {
            Body::Host(_) => Ok(Some(self.root.join(nodes.path(id)?))),
            Body::Base(_) => Ok(None),
        }
    }

    /// The value of a `user.` attribute.
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, ENODATA, and what the host says.
    pub fn getxattr(&self, id: u64, name: &OsStr) -> Result<Vec<u8>> {
        only_users(name)?;
        let _names = self.shared();
        let path = self.host_path(id)?.ok_or(Errno::NODATA)?;
        let mut value = vec![0; XATTR_MAX_BYTES];
        let length = rustix::fs::lgetxattr(&path, name, &mut value)?;
        value.truncate(length);
        Ok(value)
    }

    /// Sets a `user.` attribute; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, and what the host says.
    pub fn setxattr(&self, id: u64, name: &OsStr, value: &[u8], flags: u32) -> Result<()> {
        only_users(name)?;
        let _change = self.change(id)?;
        self.bring_node(id)?;
        let _names = self.shared();
        let path = self.host_path(id)?.ok_or(Errno::STALE)?;
        let flags = rustix::fs::XattrFlags::from_bits_truncate(flags);
        rustix::fs::lsetxattr(&path, name, value, flags)
    }

    /// The names of all attributes, each ended by NUL.
    ///
    /// # Errors
    /// What the host says.
    pub fn listxattr(&self, id: u64) -> Result<Vec<u8>> {
        let _names = self.shared();
        let Some(path) = self.host_path(id)? else { return Ok(Vec::new()) };
        let mut names = vec![0; XATTR_MAX_BYTES];
        let length = rustix::fs::llistxattr(&path, &mut names)?;
        names.truncate(length);
        let names = names.split_inclusive(|b| *b == 0);
        let theirs = names
            .filter(|name| name.starts_with(b"user.") && !name.starts_with(OWN_PREFIX.as_bytes()));
        Ok(theirs.flatten().copied().collect())
    }

    /// Removes a `user.` attribute.
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, ENODATA, and what the host says.
    pub fn removexattr(&self, id: u64, name: &OsStr) -> Result<()> {
        only_users(name)?;
        let _change = self.change(id)?;
        let _names = self.shared();
        rustix::fs::lremovexattr(self.host_path(id)?.ok_or(Errno::NODATA)?, name)
    }
}

fn only_users(name: &OsStr) -> Result<()> {
    match name.as_bytes() {
        own if own.starts_with(OWN_PREFIX.as_bytes()) => Err(Errno::PERM),
        theirs if theirs.starts_with(b"user.") => Ok(()),
        _ => Err(Errno::OPNOTSUPP),
    }
}
