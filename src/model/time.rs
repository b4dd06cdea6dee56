//! Points in time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A time in milliseconds since 1970 by the registry's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the whole seconds since 1970.
    pub(crate) fn seconds(self) -> u64 {
        self.0 / 1_000
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(milliseconds) {
            Ok(at) => at.fmt(f),
            Err(_) => write!(f, "{} ms after 1970", self.0),
        }
    }
}
