//! The place of `remote` in a build without the feature `clouds`: no store can be reached over the
//! network.
//!
//! The types have no values, so what would use one is compiled and never runs.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::options::ServerAccess;
use super::received::{Fetched, SignedUrl};
use super::threads::Threads;
use super::url::StoreUrl;
use crate::error::{Error, Result};

/// A remote store: there is none.
pub(crate) enum Client {}

/// An object that is being written in parts: there is none.
pub(crate) enum Parts {}

fn left_out(url: &StoreUrl) -> Error {
    Error::left_out(&format!("{url} cannot be reached"), "clouds")
}

/// Refuses a store that is not a directory.
///
/// # Errors
/// [`Kind::Unsupported`](crate::error::Kind) for such a store.
pub fn refuse_secrets(url: &StoreUrl, _options: &[(String, String)]) -> Result<()> {
    match url {
        StoreUrl::Directory(_) => Ok(()),
        StoreUrl::Bucket { .. } | StoreUrl::Web(_) => Err(left_out(url)),
    }
}

impl Client {
    pub(crate) fn open(url: &StoreUrl, _: &[(String, String)], _: Arc<Threads>) -> Result<Self> {
        Err(left_out(url))
    }

    pub(crate) fn served(server: &ServerAccess, _: Arc<Threads>) -> Result<Self> {
        Err(Error::left_out(&format!("{} cannot be reached", server.url), "clouds"))
    }

    pub(crate) fn threads(&self) -> &Arc<Threads> {
        match *self {}
    }

    pub(crate) fn wait<T>(&self, _: impl Future<Output = T>) -> T {
        match *self {}
    }

    pub(crate) fn is_writable(&self) -> bool {
        match *self {}
    }

    pub(crate) fn takes_parts(&self) -> bool {
        match *self {}
    }

    pub(crate) async fn sign(&self, _: &str, _: bool, _: Duration) -> Result<Option<SignedUrl>> {
        match *self {}
    }

    pub(crate) fn refuse_read_only(&self) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn probe(&self, _: &str, _: Instant) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn get(&self, _: &str, _: Range<u64>, _: Instant) -> Result<Fetched> {
        match *self {}
    }

    pub(crate) async fn get_whole(&self, _: &str, _: Instant) -> Result<Fetched> {
        match *self {}
    }

    pub(crate) async fn put(&self, _: &str, _: Bytes) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn put_once(&self, _: &str, _: Bytes, _: Duration) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn begin(self: &Arc<Self>, _: &str, _: &str) -> Result<Parts> {
        match **self {}
    }

    pub(crate) async fn give_up(&self, _: &str, _: &str) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn age(&self, _: &str, _: Instant) -> Result<(u64, u64)> {
        match *self {}
    }

    pub(crate) async fn length(&self, _: &str, _: Instant) -> Result<Option<u64>> {
        match *self {}
    }

    pub(crate) async fn list(&self, _: &str, _: &mut dyn FnMut(&str, u64)) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn remove(&self, _: &str) -> Result<()> {
        match *self {}
    }
}

impl Parts {
    pub(crate) async fn send(&mut self, _: Bytes) -> Result<()> {
        match *self {}
    }

    pub(crate) async fn finish(self) -> Result<()> {
        match self {}
    }

    pub(crate) async fn abort(&mut self) {
        match *self {}
    }
}
