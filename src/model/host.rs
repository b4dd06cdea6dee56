//! The clock and the randomness of a process, which are passed in wherever a result depends on
//! them.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::time::Timestamp;

/// A clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// A source of random numbers.
pub type Random = Arc<dyn Fn() -> u128 + Send + Sync>;

/// A clock and a source of random numbers.
#[derive(Clone)]
pub struct Host {
    /// The clock.
    pub clock: Clock,
    random: Random,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// Returns the clock and the randomness of this machine.
    #[expect(clippy::disallowed_methods, reason = "the door to the clock and to randomness")]
    pub fn system() -> Self {
        let clock = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        };
        Self::new(Arc::new(clock), Arc::new(rand::random))
    }

    /// Returns a host with this clock and these random numbers.
    pub fn new(clock: Clock, random: Random) -> Self {
        Self { clock, random }
    }

    /// Returns the time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Returns a random number of 128 bits.
    pub fn random(&self) -> u128 {
        (self.random)()
    }
}

/// Returns the time by which this machine stamps files. It is compared with stamps only, so that no
/// other clock may take its place.
#[expect(clippy::disallowed_methods, reason = "stamps of files follow the machine's clock")]
pub(crate) fn file_time() -> SystemTime {
    SystemTime::now()
}
