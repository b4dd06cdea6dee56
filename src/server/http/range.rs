//! Replies with bytes, whole or a range of them (RFC 9110, 14).

use std::ops::Range;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use futures_util::stream::{self, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use crate::error::{Error, Kind, Result};

/// The bytes that are read at once, for one reply.
const PIECE_BYTES: u64 = 2 << 20;

/// The reason why no bytes are sent.
pub(super) enum Unsent {
    /// The range is not within the bytes.
    Range,
    /// The bytes cannot be read.
    Failed(Error),
}

/// Sends the bytes that a request asks for, of `length` bytes. `read` returns those of a range that
/// is never long. `permit` is held until the last byte is sent.
///
/// # Errors
/// [`Unsent`] if not even the first bytes can be sent. A later failure breaks the reply off.
pub(super) async fn send<F: Future<Output = Result<Bytes>> + Send>(
    headers: &HeaderMap,
    length: u64,
    permit: OwnedSemaphorePermit,
    read: impl Fn(Range<u64>) -> F + Send + 'static,
) -> Result<Response<Body>, Unsent> {
    let whole = !headers.contains_key(RANGE);
    let range = match range_of(headers, length) {
        Some(range) => range,
        None if whole => 0..0,
        None => return Err(Unsent::Range),
    };
    let end = range.end;
    let piece = move |at: u64| at..end.min(at + PIECE_BYTES);
    let first = match range.is_empty() {
        true => Bytes::new(),
        false => read(piece(range.start)).await.map_err(Unsent::Failed)?,
    };
    let at = range.start + first.len() as u64;
    let rest = stream::unfold((read, at, permit), move |(read, at, permit)| async move {
        if at >= end {
            return None;
        }
        let bytes = read(piece(at)).await.map_err(std::io::Error::other);
        let next = bytes.as_ref().map_or(end, |bytes| at + bytes.len() as u64);
        Some((bytes, (read, next, permit)))
    });
    let body = stream::once(async move { Ok::<_, std::io::Error>(first) }).chain(rest);
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A file of a user must not run as a page of this server.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - range.start));
    if !whole {
        let text = format!("bytes {}-{}/{length}", range.start, end - 1);
        headers.insert(CONTENT_RANGE, text.parse().expect("numbers are a header"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Reads bytes on a thread that may wait for a disk or a store.
pub(super) async fn read_piece(
    read: impl FnOnce() -> Result<Bytes> + Send + 'static,
) -> Result<Bytes> {
    let ended = |_| Err(Error::new(Kind::Unavailable, "the read could not be finished"));
    spawn_blocking(read).await.unwrap_or_else(ended)
}

/// Returns the bytes that a request asks for, of an object of `length` bytes; `None` if it names
/// bytes behind the end, or several ranges.
fn range_of(headers: &HeaderMap, length: u64) -> Option<Range<u64>> {
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
