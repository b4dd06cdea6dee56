//! Sizes as people write them.

use bytesize::ByteSize;

use crate::error::{Error, Kind, Result};

/// Parses a number of bytes as people write it: `500MB`, `10GiB`, `4096`.
///
/// # Errors
/// [`Kind::Usage`] for any other text.
pub fn parse_size(text: &str) -> Result<u64> {
    text.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| {
        Error::new(Kind::Usage, format!("\"{text}\" is not a size"))
            .hint("write it as 4096, 500MB, or 10GiB")
    })
}
