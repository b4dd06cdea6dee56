//! Sizes as people write them.

use bytesize::ByteSize;

use crate::error::{Error, Kind, Result};

/// Advice for a text that is not a size.
pub(super) const HINT: &str = "write it as 4096, 500MB, or 10GiB";

/// Parses a number of bytes as people write it: `500MB`, `10GiB`, `4096`.
///
/// # Errors
/// [`Kind::Usage`] for any other text.
pub fn parse_size(text: &str) -> Result<u64> {
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| Error::new(Kind::Usage, format!("\"{text}\" is not a size")).hint(HINT))
}
