//! Reads that timed out recently, so that a retry by the kernel fails fast. The kernel reads ahead.
//! If that fails, it requests again the page that its reader wants: one read(2) would wait twice as
//! long as it may.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fuser::Errno;

/// The time that a timeout counts. The kernel retries at once; a later retry of a program is
/// served.
const SINCE: Duration = Duration::from_millis(500);
/// The most reads that are remembered: more cannot have been under way at once.
const READS_MAX: usize = 1024;

struct Timeout {
    ino: u64,
    bytes: Range<u64>,
    ended: Instant,
}

/// Reads that have just ended because the store did not reply in time.
#[derive(Default)]
pub(crate) struct RecentTimeouts {
    recent: Mutex<VecDeque<Timeout>>,
}

impl RecentTimeouts {
    /// Does `read`, unless a read of its first byte has just timed out.
    ///
    /// # Errors
    /// ETIMEDOUT, and those of `read`.
    pub(crate) fn read<T>(
        &self,
        ino: u64,
        offset: u64,
        size: u32,
        read: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if self.was_late(ino, offset, Instant::now()) {
            return Err(Errno::ETIMEDOUT);
        }
        let done = read();
        if done.as_ref().is_err_and(|errno| *errno == Errno::ETIMEDOUT) {
            self.note(ino, offset..offset.saturating_add(size.into()), Instant::now());
        }
        done
    }

    fn was_late(&self, ino: u64, at: u64, now: Instant) -> bool {
        let late = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        late.iter().any(|one| {
            one.ino == ino && one.bytes.contains(&at) && now.duration_since(one.ended) < SINCE
        })
    }

    fn note(&self, ino: u64, bytes: Range<u64>, now: Instant) {
        let mut late = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain(|one| now.duration_since(one.ended) < SINCE);
        if late.len() == READS_MAX {
            late.pop_front();
        }
        late.push_back(Timeout { ino, bytes, ended: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_late_is_not_waited_for_at_once_again_and_then_it_is() {
        let timeouts = RecentTimeouts::default();
        let now = Instant::now();
        timeouts.note(1, 100..200, now);
        assert!(timeouts.was_late(1, 100, now) && timeouts.was_late(1, 199, now + SINCE / 2));
        assert!(!timeouts.was_late(2, 100, now) && !timeouts.was_late(1, 200, now));
        assert!(!timeouts.was_late(1, 100, now + SINCE));
        timeouts.note(2, 0..1, now + SINCE);
        assert_eq!(timeouts.recent.lock().unwrap().len(), 1, "what is over is forgotten");
    }

    #[test]
    fn only_what_took_too_long_is_remembered() {
        let timeouts = RecentTimeouts::default();
        for (errno, tried_again) in [(Errno::EIO, true), (Errno::ETIMEDOUT, false)] {
            assert!(timeouts.read(1, 0, 10, || Err::<(), _>(errno)).is_err());
            assert_eq!(timeouts.read(1, 5, 5, || Ok(())).is_ok(), tried_again);
        }
        assert!(timeouts.read(1, 10, 10, || Ok(())).is_ok());
    }
}
