//! Attempts of a request: the waits between them, and a body that stops moving.
//!
//! An attempt that stops moving is given up, and another is made. So a store that hung is read
//! again within seconds of its return. The caller's deadline bounds all attempts together.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::answers;
use crate::content::threads::Threads;
use crate::error::{Error, Kind, Result};

/// The time in which [`PROGRESS_BYTES`] must arrive.
const PROGRESS_TIME: Duration = Duration::from_secs(3);
/// The bytes that must arrive in that time, or else the attempt is given up: 8 KiB/s.
const PROGRESS_BYTES: usize = 24 << 10;
/// The first wait between attempts.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest wait between attempts: short, because readers wait for the store's return.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The number of attempts if the store denies access: credentials may just be renewed.
const DENIED_ATTEMPTS: usize = 3;

/// Makes attempts until one succeeds, `deadline` is over, or trying again is of no use.
pub(crate) async fn persist<T, F: Future<Output = Result<T>>>(
    threads: &Threads,
    name: &str,
    key: &str,
    deadline: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut waits = ExponentialBuilder::default()
        .with_min_delay(BACKOFF_MIN)
        .with_max_delay(BACKOFF_MAX)
        .without_max_times()
        .with_jitter()
        .build();
    let (mut failures, mut last) = (0, None::<Error>);
    loop {
        let error = match timeout_at(deadline, answers::noting(attempt())).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => return Err(too_late(name, last)),
        };
        failures += 1;
        let hopeless = match error.kind() {
            Kind::NotFound
            | Kind::ReadOnly
            | Kind::Usage
            | Kind::Unsupported
            | Kind::Corrupt
            | Kind::Conflict
            | Kind::Full => true,
            Kind::Denied => failures as usize >= DENIED_ATTEMPTS,
            _ => false,
        };
        if hopeless {
            return Err(error);
        }
        tracing::debug!(%key, failures, "a request is made again: {error}");
        last = Some(error);
        let wait = waits.next().unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX);
        if Instant::now() + wait >= deadline {
            return Err(too_late(name, last));
        }
        tokio::time::sleep(wait).await;
        threads.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// Collects the bytes of `body`, at most `length`, unless they arrive too slowly. The buffer begins
/// with room for `held` bytes.
pub(crate) async fn collect(
    name: &str,
    mut body: impl Stream<Item = Result<Bytes>> + Unpin,
    held: usize,
    length: usize,
) -> Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(held);
    let (mut since, mut counted) = (Instant::now(), 0);
    loop {
        let part = timeout(PROGRESS_TIME, body.next()).await.map_err(|_| stalled(name))?;
        let Some(part) = part else {
            return Ok(bytes.freeze());
        };
        let part = part?;
        if bytes.len() + part.len() > length {
            let what = format!("{name} sent more than was requested");
            return Err(Error::new(Kind::Unavailable, what));
        }
        bytes.extend_from_slice(&part);
        counted += part.len();
        if since.elapsed() > PROGRESS_TIME {
            if counted < PROGRESS_BYTES && bytes.len() < length {
                return Err(stalled(name));
            }
            (since, counted) = (Instant::now(), 0);
        }
    }
}

pub(crate) fn stalled(name: &str) -> Error {
    Error::new(Kind::TimedOut, format!("{name} does not respond"))
}

/// Builds the error of attempts that all failed. It names the last response, if there was one.
fn too_late(name: &str, last: Option<Error>) -> Error {
    let silence = || Error::new(Kind::TimedOut, format!("no response from {name} in time"));
    let error = match last {
        Some(last) if last.kind() == Kind::Denied => return last,
        Some(last) if last.is_answer() => {
            Error::new(Kind::TimedOut, format!("{}; all attempts failed", last.message()))
        }
        Some(last) => silence().because(last),
        None => silence(),
    };
    error.hint("try again when the store can be reached")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_cut_off_by_the_deadline_does_not_hide_the_last_response() {
        let threads = Threads::start().unwrap();
        let mut attempts = 0;
        let attempt = || {
            attempts += 1;
            let refused = attempts == 1;
            async move {
                if refused {
                    return Err(Error::new(Kind::Unavailable, "SlowDown"));
                }
                std::future::pending::<Result<()>>().await
            }
        };
        let deadline = Instant::now() + Duration::from_secs(1);
        let failed = threads.wait(persist(&threads, "s3://b", "key", deadline, attempt));
        let error = failed.unwrap_err();
        assert_eq!((error.kind(), attempts), (Kind::TimedOut, 2));
        assert_eq!(error.message(), "SlowDown; all attempts failed");
    }
}
