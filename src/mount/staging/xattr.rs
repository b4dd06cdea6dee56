//! Extended attributes of a staging mount: those of files in drafts, and the properties of drafts
//! and versions as `user.artifact.*`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::model::digest::Digest;
use crate::model::object_kind::ObjectKind;
use crate::model::reference::{Reference, Selector};
use crate::mount::errno;
use crate::mount::inode::node::Node;
use crate::mount::inode::paths::is_path;
use crate::mount::staging::fs::{StagingFs, is_draft};
use crate::ops::drafts::{DraftPlace, field};

/// The field with the digest of a file of a version.
const DIGEST: &str = "digest";

impl StagingFs {
    /// Returns the draft or version whose root `ino` is, if any.
    fn control(&self, ino: u64) -> Option<DraftPlace> {
        if is_draft(ino) {
            return self.drafts().draft_of_root(ino).map(DraftPlace::Draft);
        }
        match self.read.node(ino) {
            Ok(Node::Version(version)) if is_path(ino) => {
                let (path, selector) = (version.path.clone(), Selector::Version(version.number));
                Some(DraftPlace::Version(Reference { path, selector }))
            }
            _ => None,
        }
    }

    /// Returns the digest of a file of a version; `None` for any other inode.
    fn digest(&self, ino: u64) -> Option<Digest> {
        let file = if is_path(ino) { None } else { self.read.file(ino).ok() };
        let content = file?.content;
        Some(content.digest().unwrap_or_else(|| Digest::of(ObjectKind::Chunk, b"")))
    }

    /// Returns the value of an attribute.
    pub(crate) fn getxattr(&self, ino: u64, name: &OsStr) -> Result<Vec<u8>, Errno> {
        if let Some(field) = field(name.as_bytes()) {
            if let Some(place) = self.control(ino) {
                let value = self.service.attribute(&place, field);
                let value = value.map_err(|e| errno::report("getxattr", &e))?;
                return value.map(String::into_bytes).ok_or(Errno::NODATA);
            }
            if !is_draft(ino) && field == DIGEST {
                let digest = self.digest(ino).ok_or(Errno::NODATA)?;
                return Ok(digest.to_string().into_bytes());
            }
        }
        match is_draft(ino) {
            true => self.drafts().getxattr(ino, name),
            false if name.as_bytes().starts_with(b"user.") => Err(Errno::NODATA),
            false => Err(Errno::OPNOTSUPP),
        }
    }

    /// Returns the names of all attributes, each ended by NUL.
    pub(crate) fn listxattr(&self, ino: u64) -> Result<Vec<u8>, Errno> {
        let mut names = match is_draft(ino) {
            true => self.drafts().listxattr(ino)?,
            false => Vec::new(),
        };
        match self.control(ino) {
            Some(place) => {
                let ours = self.service.attributes(&place);
                names.extend(ours.map_err(|e| errno::report("listxattr", &e))?);
            }
            None if !is_draft(ino) && self.digest(ino).is_some() => {
                names.extend_from_slice(b"user.artifact.digest\0");
            }
            None => {}
        }
        Ok(names)
    }

    /// Sets an attribute; `None` removes it.
    pub(crate) fn setxattr(
        &self,
        ino: u64,
        name: &OsStr,
        value: Option<&[u8]>,
        flags: u32,
    ) -> Result<(), Errno> {
        if let (Some(field), Some(place)) = (field(name.as_bytes()), self.control(ino)) {
            let done = self.service.set_attribute(&place, field, value);
            return done.map_err(|e| errno::of(e.kind()));
        }
        if !is_draft(ino) {
            return Err(Errno::ROFS);
        }
        match value {
            Some(value) => self.drafts().setxattr(ino, name, value, flags),
            None => self.drafts().removexattr(ino, name),
        }
    }
}
