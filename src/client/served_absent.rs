//! The place of `served` in a build without the feature `clouds`: no server can be reached over the
//! network.
//!
//! The type has no values, so what would use it is compiled and never runs.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::model::api_key::ApiKey;
use crate::model::server_url::{ServerUrl, TeamUrl};
use crate::protocol::Service;
use crate::protocol::served::{Cleaned, Janitor, JanitorCall, Whoami};
use crate::registry::{Call, Transport};

/// A connection to a server: there is none.
pub enum ServedClient {}

/// Fails: servers are left out of this build.
///
/// # Errors
/// [`Kind::Unsupported`](crate::error::Kind), always.
pub fn whoami(server: &ServerUrl, _: &ApiKey) -> Result<Whoami> {
    Err(Error::left_out(&format!("{server} cannot be reached"), "clouds"))
}

impl ServedClient {
    /// Fails: servers are left out of this build.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::error::Kind), always.
    pub fn new(url: &TeamUrl, _: &ApiKey, _: Option<&str>) -> Result<Self> {
        Err(Error::left_out(&format!("{url} cannot be reached"), "clouds"))
    }

    /// Makes a call to a service.
    ///
    /// # Errors
    /// None: there is no value to call.
    pub fn ask<C: Serialize, V: DeserializeOwned>(&self, _: Service, _: &C) -> Result<V> {
        match *self {}
    }
}

impl Transport for ServedClient {
    fn call(&self, _: Call) -> Result<Vec<u8>> {
        match *self {}
    }
}

impl Janitor for ServedClient {
    fn clean(&self, _: JanitorCall) -> Result<Cleaned> {
        match *self {}
    }
}
