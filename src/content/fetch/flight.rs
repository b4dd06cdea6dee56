//! One request that is under way, and its waiting readers.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Kind, Result, WireError};

type Outcome = std::result::Result<Bytes, WireError>;

/// A request for blocks of a segment.
pub(crate) struct Flight {
    /// The blocks. At the end of the pack the bytes may end before the last block does.
    pub(crate) blocks: Range<u32>,
    outcome: watch::Sender<Option<Outcome>>,
    landed: watch::Sender<bool>,
}

impl Flight {
    /// Returns a flight that has begun.
    pub(crate) fn new(blocks: Range<u32>) -> Self {
        Self { blocks, outcome: watch::Sender::new(None), landed: watch::Sender::new(false) }
    }

    /// Wakes all readers that wait for the outcome.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Returns whether the outcome is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Marks the bytes as written to the cache, if the cache takes them.
    pub(crate) fn land(&self) {
        self.landed.send_replace(true);
    }

    /// Waits for [`Flight::land`].
    ///
    /// # Errors
    /// As [`Flight::outcome`].
    pub(crate) async fn landed(&self, deadline: Instant) -> Result<()> {
        self.outcome(deadline).await?;
        let mut watch = self.landed.subscribe();
        let late = |_| Error::new(Kind::TimedOut, "the cache's disk did not respond in time");
        let landed = timeout_at(deadline, watch.wait_for(|landed| *landed)).await.map_err(late)?;
        landed
            .map(drop)
            .map_err(|e| Error::new(Kind::Unavailable, "writing to the cache broke off").because(e))
    }

    /// Waits for the outcome of the request.
    ///
    /// # Errors
    /// The error of the request; [`Kind::TimedOut`] at the deadline.
    pub(crate) async fn outcome(&self, deadline: Instant) -> Result<Bytes> {
        let mut watch = self.outcome.subscribe();
        let late = |_| Error::new(Kind::TimedOut, "the store did not respond in time");
        let ended = timeout_at(deadline, watch.wait_for(Option::is_some)).await.map_err(late)?;
        let ended = ended.map_err(|e| {
            Error::new(Kind::Unavailable, "a request to the store broke off").because(e)
        })?;
        match ended.as_ref() {
            Some(Ok(bytes)) => Ok(bytes.clone()),
            Some(Err(error)) => Err(error.clone().into()),
            None => {
                Err(Error::new(Kind::Unavailable, "a request to the store ended without a result"))
            }
        }
    }
}
