//! Bytes of a server, and the facts that it gives about them.

use bytes::Bytes;

/// The bytes of an object, or of a part of it.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes; fewer than requested at the object's end.
    pub bytes: Bytes,
    /// The length of the whole object.
    pub object_bytes: u64,
}

/// The facts that a server gives about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The length.
    pub size_bytes: u64,
    /// The tag; empty if there is none.
    pub etag: String,
    /// The id of the version; empty if there is none.
    pub version: String,
    /// The time of the last change, as the server writes it.
    pub modified: String,
    /// The compression of the bytes that are sent, though none was requested; empty for none.
    pub encoding: String,
}
