//! What a server says of a file.

use object_store::ObjectMeta;

/// What a server says of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its length.
    pub size_bytes: u64,
    /// Its tag, if it has one.
    pub etag: String,
    /// The id of its version, if it has one.
    pub version: String,
    /// When it was changed, in the server's words.
    pub modified: String,
    /// How its bytes are compressed on the way, though they should not be.
    pub encoding: String,
}

impl From<ObjectMeta> for Seen {
    fn from(object: ObjectMeta) -> Self {
        let (etag, version) =
            (object.e_tag.unwrap_or_default(), object.version.unwrap_or_default());
        // A bucket that kept no versions once calls those "null".
        let version = if version == "null" { String::new() } else { version };
        // Azure's listings leave out the quotes that its headers, and what they are asked for, have (RFC 9110, 8.8.3).
        let bare = !etag.is_empty() && !etag.ends_with('"');
        let etag = if bare { format!("\"{etag}\"") } else { etag };
        Self { size_bytes: object.size, etag, version, ..Self::default() }
    }
}
