//! The codecs in which the bytes of objects are stored.

use std::borrow::Cow;

use crate::error::{Error, Kind, Result};

/// The bytes as they are.
pub(crate) const CODEC_RAW: u8 = 0;
/// One Zstandard frame (RFC 8878).
pub(crate) const CODEC_ZSTD: u8 = 1;

/// The Zstandard level: fast enough to keep up with a disk. Higher levels save a few percent more.
const LEVEL: i32 = 1;
/// The maximum length of a compressed body in percent; a longer one is stored raw.
const WORTH_PERCENT: usize = 90;

/// Returns the codec for `body` and the bytes to store: compressed if that saves a tenth or more.
pub(crate) fn encode(body: &[u8]) -> (u8, Cow<'_, [u8]>) {
    match zstd::bulk::compress(body, LEVEL) {
        Ok(frame) if frame.len() <= body.len() / 100 * WORTH_PERCENT => {
            (CODEC_ZSTD, Cow::Owned(frame))
        }
        _ => (CODEC_RAW, Cow::Borrowed(body)),
    }
}

/// Decodes `stored`, which is in codec `codec`, to `body_bytes` bytes.
///
/// # Errors
/// [`Kind::Unsupported`] for a codec of a newer release, [`Kind::Corrupt`] for bytes that are not
/// in the codec.
pub(crate) fn decode(codec: u8, stored: Vec<u8>, body_bytes: u32) -> Result<Vec<u8>> {
    match codec {
        CODEC_RAW => Ok(stored),
        CODEC_ZSTD => zstd::bulk::decompress(&stored, body_bytes as usize).map_err(|e| {
            Error::new(Kind::Corrupt, "a compressed object cannot be decoded").because(e)
        }),
        other => Err(Error::new(Kind::Unsupported, format!("an object in codec {other}"))
            .hint("it was written by a newer artifactfs: upgrade this one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_it_is_compressed_and_comes_back() {
        let text = b"the same again and again, ".repeat(1_000);
        let (codec, stored) = encode(&text);
        assert!(codec == CODEC_ZSTD && stored.len() < text.len() / 10);
        assert_eq!(decode(codec, stored.to_vec(), text.len() as u32).unwrap(), text);
        let mut cut = stored.to_vec();
        cut.truncate(cut.len() / 2);
        assert_eq!(decode(codec, cut, text.len() as u32).unwrap_err().kind(), Kind::Corrupt);
        let noise: Vec<u8> =
            (0..20_000u32).map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[0]).collect();
        assert_eq!(encode(&noise).0, CODEC_RAW);
    }
}
