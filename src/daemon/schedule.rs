//! The background tasks of a daemon: it commits idle drafts, and ends leases whose writer is dead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::ops::drafts::DraftService;
use crate::ops::orphans::release_orphans;
use crate::ops::repository::Repository;

/// The interval between two searches for leases whose writer is dead.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The interval between two looks for idle drafts.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// The times at which tasks are due.
pub(super) struct Schedule {
    repository: Arc<Repository>,
    /// The drafts to commit automatically, and the time that each must be idle.
    commits: Option<(Arc<DraftService>, Duration)>,
    swept: Instant,
    looked: Instant,
    committing: Option<JoinHandle<()>>,
}

impl Schedule {
    /// Returns a schedule in which nothing is due yet.
    pub(crate) fn new(
        repository: Arc<Repository>,
        commits: Option<(Arc<DraftService>, Duration)>,
    ) -> Self {
        let now = Instant::now();
        Self { repository, commits, swept: now, looked: now, committing: None }
    }

    /// Starts the tasks that are due, on threads that may block. Commits never overlap.
    pub(crate) fn run_due(&mut self) {
        let idle = self.committing.as_ref().is_none_or(JoinHandle::is_finished);
        if let Some((drafts, quiet)) = &self.commits
            && idle
            && self.looked.elapsed() > COMMIT_EVERY
        {
            self.looked = Instant::now();
            let (drafts, quiet) = (Arc::clone(drafts), *quiet);
            self.committing = Some(spawn_blocking(move || drafts.autocommit(quiet)));
        }
        if self.swept.elapsed() > SWEEP_EVERY {
            self.swept = Instant::now();
            let repository = Arc::clone(&self.repository);
            spawn_blocking(move || {
                if let Err(e) = release_orphans(&repository) {
                    tracing::warn!("cannot end the leases of dead writers: {e}");
                }
            });
        }
    }
}
