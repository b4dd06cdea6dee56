//! The place of `origin` in a build without the feature `clouds`: no external file on a server can
//! be read.
//!
//! The types have no values, so what would use one is compiled and never runs.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::content::received::{Fetched, Seen};
use crate::content::remote::Client;
use crate::content::threads::Threads;
use crate::error::{Error, Result};
use crate::model::digest::Digest;
use crate::model::external::{External, ExternalUrl};
use crate::model::object::PackId;

/// The servers of external files: there are none.
pub(crate) struct Origins(Infallible);

/// An external file on a server: there is none.
pub(crate) enum Origin {}

impl Origins {
    /// Refuses to reach servers.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::error::Kind), always.
    pub(crate) fn start() -> Result<Self> {
        Err(Error::left_out("files on servers cannot be reached", "clouds"))
    }

    /// Is never called: there is no client.
    pub(crate) fn beside(client: &Client) -> Self {
        match *client {}
    }

    /// Is never called.
    pub(crate) fn threads(&self) -> &Arc<Threads> {
        match self.0 {}
    }

    /// Is never called.
    pub(crate) fn origin(&self, _: Digest, _: &Arc<External>) -> Result<Origin> {
        match self.0 {}
    }

    /// Is never called.
    pub(crate) fn look(&self, _: &ExternalUrl, _: Instant) -> Result<Option<Seen>> {
        match self.0 {}
    }

    /// Is never called.
    pub(crate) fn list(
        &self,
        _: &ExternalUrl,
        _: &mut dyn FnMut(&str, Seen) -> Result<()>,
    ) -> Result<()> {
        match self.0 {}
    }
}

impl Origin {
    /// Is never called.
    pub(crate) fn pack(&self) -> PackId {
        match *self {}
    }

    /// Is never called.
    pub(crate) fn pack_bytes(&self) -> u64 {
        match *self {}
    }

    /// Is never called.
    pub(crate) async fn fetch(&self, _: Range<u64>, _: Instant) -> Result<Fetched> {
        match *self {}
    }

    /// Is never called.
    pub(crate) async fn look(&self, _: Instant) -> Result<()> {
        match *self {}
    }
}
