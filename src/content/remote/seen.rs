//! The facts that a server gives about a file.

use object_store::ObjectMeta;

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

impl From<ObjectMeta> for Seen {
    fn from(object: ObjectMeta) -> Self {
        let (etag, version) =
            (object.e_tag.unwrap_or_default(), object.version.unwrap_or_default());
        // A bucket that once kept no versions names those of that time "null".
        let version = if version == "null" { String::new() } else { version };
        // Azure's listings leave out the quotes that its headers have and its requests need (RFC
        // 9110, 8.8.3).
        let bare = !etag.is_empty() && !etag.ends_with('"');
        let etag = if bare { format!("\"{etag}\"") } else { etag };
        Self { size_bytes: object.size, etag, version, ..Self::default() }
    }
}
