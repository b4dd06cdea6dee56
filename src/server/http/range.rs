//! Ranges of bytes (RFC 9110, 14).

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::RANGE;

/// Returns the bytes that a request asks for, of an object of `length` bytes; `None` if it names
/// bytes behind the end, or several ranges.
pub(super) fn range_of(headers: &HeaderMap, length: u64) -> Option<Range<u64>> {
    let Some(value) = headers.get(RANGE) else { return Some(0..length) };
    let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", suffix) => length.saturating_sub(suffix.parse().ok()?)..length,
        (first, "") => first.parse().ok()?..length,
        (first, last) => {
            first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(length)
        }
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, length: u64) -> Option<Range<u64>> {
        range_of(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]), length)
    }

    #[test]
    fn a_range_is_within_the_object() {
        assert_eq!(range_of(&HeaderMap::new(), 10), Some(0..10));
        assert_eq!(range("bytes=0-0", 10), Some(0..1));
        assert_eq!(range("bytes=4-99", 10), Some(4..10));
        assert_eq!(range("bytes=4-", 10), Some(4..10));
        assert_eq!(range("bytes=-3", 10), Some(7..10));
        assert_eq!(range("bytes=-30", 10), Some(0..10));
        for text in ["bytes=10-12", "bytes=5-4", "bytes=0-1,4-5", "bytes=x-", "bytes=", "0-1"] {
            assert_eq!(range(text, 10), None, "{text}");
        }
        assert_eq!(range("bytes=0-18446744073709551615", 10), Some(0..10));
    }
}
