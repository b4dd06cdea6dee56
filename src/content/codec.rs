//! How an object's bytes are stored.

use crate::error::{Error, Kind, Result};

/// The bytes as they are.
pub const CODEC_RAW: u8 = 0;

/// Decodes `stored`, which is in codec `codec`.
///
/// # Errors
/// [`Kind::Unsupported`] for a codec of a newer release.
pub fn decode(codec: u8, stored: Vec<u8>) -> Result<Vec<u8>> {
    match codec {
        CODEC_RAW => Ok(stored),
        other => Err(Error::new(Kind::Unsupported, format!("an object in codec {other}"))
            .hint("it was written by a newer artifactfs: upgrade this one")),
    }
}
