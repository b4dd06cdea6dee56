//! The error of a file that has changed.

use crate::error::{Error, Kind};
use crate::model::external::ExternalUrl;

/// Returns the error for a file that is not what was recorded.
pub(crate) fn changed(url: &ExternalUrl, how: &str) -> Error {
    Error::new(Kind::Corrupt, format!("{url} is not what was recorded: {how}"))
        .hint("bring back what was there, or record what is there now as a new version")
}
