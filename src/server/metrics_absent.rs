//! The place of `metrics` in a build without the feature `server`: none are served.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;

use crate::error::{Error, Result};
use crate::ops::repository::Repository;

/// Returns no route.
pub(crate) fn router(_: Arc<Repository>) -> Router {
    Router::new()
}

/// Refuses to serve metrics.
///
/// # Errors
/// [`Kind::Unsupported`](crate::error::Kind), always.
pub(crate) fn serve_metrics(address: SocketAddr, _: Arc<Repository>) -> Result<()> {
    Err(Error::left_out(&format!("metrics cannot be served on {address}"), "server"))
}
