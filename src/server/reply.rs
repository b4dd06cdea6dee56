//! Replies of services, and the requests that wait for one.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode};
use tokio::sync::watch;

use super::status;
use crate::error::{Error, Kind, Result};
use crate::protocol::encode_answer;
use crate::registry::{CHANGES_WAIT_MAX, LastChange};

/// A request that must get its reply before the server ends.
pub(super) struct Active(Arc<AtomicUsize>);

impl Active {
    /// Counts a request until the result is dropped.
    pub(super) fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until there is a change after `after`, the wait times out, or the registry ends. The wait
/// blocks no thread.
pub(super) async fn wait_for_change(
    mut changed: watch::Receiver<LastChange>,
    after: u64,
    wait_milliseconds: u64,
) {
    let wait = Duration::from_millis(wait_milliseconds.min(CHANGES_WAIT_MAX));
    let news = changed.wait_for(|change| change.is_news(after));
    if let Ok(Err(_)) = tokio::time::timeout(wait, news).await {
        tracing::debug!("the registry ended while a request waited for a change");
    }
}

pub(super) async fn answer(
    work: impl FnOnce() -> (Result<Vec<u8>>, Option<Active>) + Send + 'static,
) -> Response<Body> {
    let failed = || Error::new(Kind::Unavailable, "the daemon failed in this request; see its log");
    match tokio::task::spawn_blocking(work).await {
        Ok((answer, active)) => respond(&answer, active),
        // The server ended before the request began. Without a reply the client tries the next
        // server.
        Err(e) if e.is_cancelled() => Response::new(broken()),
        Err(_) => respond(&Err(failed()), None),
    }
}

/// Returns a body that breaks off: the client sees no reply, and not an error reply.
fn broken() -> Body {
    let ended = || std::io::Error::other("the server has ended");
    Body::from_stream(futures_util::stream::once(async move { Err::<Bytes, _>(ended()) }))
}

/// Returns a body whose request counts as active until the body is sent. Otherwise a server that
/// ends could cut the reply off, and the client would take completed work for undone.
fn counted_body(bytes: Vec<u8>, active: Option<Active>) -> Body {
    let sent = async move {
        let _active = active;
        Ok::<_, Infallible>(bytes)
    };
    Body::from_stream(futures_util::stream::once(sent))
}

pub(super) fn respond(answer: &Result<Vec<u8>>, active: Option<Active>) -> Response<Body> {
    let mut response = Response::new(counted_body(encode_answer(answer), active));
    if let Err(error) = answer {
        *response.status_mut() =
            StatusCode::from_u16(status::of(error.kind())).expect("the table holds statuses");
    }
    response
}

pub(super) fn not_here() -> Error {
    Error::new(Kind::NotFound, "this process does not offer that service")
}
