//! Extended attributes of users. Those of our own prefix stay hidden.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs;
use rustix::io::Errno;

use super::Result;
use super::base_xattr::OWN_PREFIX;
use super::drafts::Drafts;
use super::node::Body;
use super::upper::Placed;

/// The longest value, and the longest list of names, of extended attributes (xattr(7)).
const XATTR_MAX_BYTES: usize = 64 << 10;

/// A file with extended attributes.
enum Place {
    /// A path; the calls do not follow a symlink in its last place.
    Named(Placed),
    /// An open file without a name.
    Nameless(Arc<File>),
}

impl Place {
    fn get(&self, name: &OsStr, value: &mut [u8]) -> Result<usize> {
        match self {
            Self::Named(path) => fs::lgetxattr(&**path, name, value),
            Self::Nameless(file) => fs::fgetxattr(file, name, value),
        }
    }

    fn set(&self, name: &OsStr, value: &[u8], flags: fs::XattrFlags) -> Result<()> {
        match self {
            Self::Named(path) => fs::lsetxattr(&**path, name, value, flags),
            Self::Nameless(file) => fs::fsetxattr(file, name, value, flags),
        }
    }

    fn list(&self, names: &mut [u8]) -> Result<usize> {
        match self {
            Self::Named(path) => fs::llistxattr(&**path, names),
            Self::Nameless(file) => fs::flistxattr(file, names),
        }
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        match self {
            Self::Named(path) => fs::lremovexattr(&**path, name),
            Self::Nameless(file) => fs::fremovexattr(file, name),
        }
    }
}

impl Drafts {
    /// Returns where the attributes of a node are; `None` if the node is only in the lower tree.
    fn attributes_of(&self, id: u64) -> Result<Option<Place>> {
        let named = {
            let nodes = self.lock_nodes();
            match nodes.body(id)? {
                Body::Upper(_) => nodes.named(id),
                Body::Lower(_) => return Ok(None),
            }
        };
        match named {
            Ok(path) => Ok(Some(Place::Named(self.upper.placed(&path)?))),
            Err(_) => Ok(Some(Place::Nameless(self.nameless(id, None)?))),
        }
    }

    /// Returns the value of a `user.` attribute.
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, EPERM for our own prefix, ENODATA, and any error of the
    /// upper file system.
    pub(crate) fn getxattr(&self, id: u64, name: &OsStr) -> Result<Vec<u8>> {
        only_users(name)?;
        let _names = self.shared(id)?;
        let place = self.attributes_of(id)?.ok_or(Errno::NODATA)?;
        let mut value = vec![0; XATTR_MAX_BYTES];
        let length = place.get(name, &mut value)?;
        value.truncate(length);
        Ok(value)
    }

    /// Sets a `user.` attribute; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, EPERM for our own prefix, and any error of the upper file
    /// system.
    pub(crate) fn setxattr(&self, id: u64, name: &OsStr, value: &[u8], flags: u32) -> Result<()> {
        only_users(name)?;
        let _change = self.change(id)?;
        if self.lock_nodes().path(id).is_ok() {
            self.copy_up_node(id)?;
        }
        let _names = self.shared(id)?;
        let place = self.attributes_of(id)?.ok_or(Errno::STALE)?;
        let flags = fs::XattrFlags::from_bits_truncate(flags);
        place.set(name, value, flags)
    }

    /// Returns the names of all `user.` attributes but our own, each ended by NUL.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn listxattr(&self, id: u64) -> Result<Vec<u8>> {
        let _names = self.shared(id)?;
        let Some(place) = self.attributes_of(id)? else { return Ok(Vec::new()) };
        let mut names = vec![0; XATTR_MAX_BYTES];
        let length = place.list(&mut names)?;
        names.truncate(length);
        let names = names.split_inclusive(|b| *b == 0);
        let theirs = names
            .filter(|name| name.starts_with(b"user.") && !name.starts_with(OWN_PREFIX.as_bytes()));
        Ok(theirs.flatten().copied().collect())
    }

    /// Removes a `user.` attribute.
    ///
    /// # Errors
    /// EOPNOTSUPP for other namespaces, EPERM for our own prefix, ENODATA, and any error of the
    /// upper file system.
    pub(crate) fn removexattr(&self, id: u64, name: &OsStr) -> Result<()> {
        only_users(name)?;
        let _change = self.change(id)?;
        let _names = self.shared(id)?;
        self.attributes_of(id)?.ok_or(Errno::NODATA)?.remove(name)
    }
}

fn only_users(name: &OsStr) -> Result<()> {
    match name.as_bytes() {
        own if own.starts_with(OWN_PREFIX.as_bytes()) => Err(Errno::PERM),
        theirs if theirs.starts_with(b"user.") => Ok(()),
        _ => Err(Errno::OPNOTSUPP),
    }
}
