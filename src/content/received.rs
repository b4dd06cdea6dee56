//! Bytes of a server, and the facts that it gives about them.

use bytes::Bytes;
use serde::Serialize;

/// The bytes of an object, or of a part of it.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The bytes; fewer than requested at the object's end.
    pub(crate) bytes: Bytes,
    /// The length of the whole object.
    pub(crate) object_bytes: u64,
}

/// The facts that a server gives about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The length.
    pub(crate) size_bytes: u64,
    /// The tag; empty if there is none.
    pub(crate) etag: String,
    /// The id of the version; empty if there is none.
    pub(crate) version: String,
    /// The time of the last change, as the server writes it.
    pub(crate) modified: String,
    /// The compression of the bytes that are sent, though none was requested; empty for none.
    pub(crate) encoding: String,
}

/// A URL by which anybody may make a request, and the headers that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignedUrl {
    /// The URL, which is a secret for its life.
    pub url: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
}
