//! A lease as its writer holds it. A thread renews it, whatever the writer waits for, and it ends
//! with its work.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::maintenance::finish_interrupted;
use super::repository::Repository;
use super::shared;
use super::{judgement, process_id};
use crate::error::Result;
use crate::model::name::ProjectName;
use crate::registry::{Begun, LeaseId, Registry};

/// The interval between renewals: well within the life of a lease.
const RENEW_EVERY: Duration = Duration::from_secs(60);

/// The maximum number of looks for leases to take over. Each look but the last found one.
const LOOKS_MAX: usize = 100;

/// A lease that this process holds.
pub(super) struct Lease {
    registry: Arc<dyn Registry>,
    id: LeaseId,
    /// The number of absent objects when it began.
    absent: u64,
    /// The bytes of new objects that were stored under it.
    stored_bytes: Arc<AtomicU64>,
    renewer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Lease {
    /// Begins a lease, which takes over what writers that are gone stored for the same purpose.
    /// In a zoned repository a lease that keeps objects belongs to `project`.
    pub(super) fn begin(
        repository: &Repository,
        project: Option<&ProjectName>,
        purpose: String,
    ) -> Result<Self> {
        finish_interrupted(repository)?;
        let holder = process_id::new_holder(&repository.host);
        let registry = &repository.registry;
        let lease = Self::renewed_every(registry, project, purpose, holder, RENEW_EVERY)?;
        match shared::refuse_moved(repository) {
            Ok(()) => Ok(lease),
            Err(e) => lease.release().and(Err(e)),
        }
    }

    fn renewed_every(
        registry: &Arc<dyn Registry>,
        project: Option<&ProjectName>,
        purpose: String,
        holder: String,
        period: Duration,
    ) -> Result<Self> {
        let Begun { lease: id, shares_purpose, absent } =
            registry.begin(purpose.clone(), holder, project.cloned())?;
        let (stop, stopped) = channel();
        let (keeper, stored_bytes) = (Arc::clone(registry), Arc::default());
        let renewer = std::thread::spawn(move || renew(&*keeper, id, &stopped, period));
        let lease = Self {
            registry: Arc::clone(registry),
            id,
            absent,
            stored_bytes,
            renewer: Some((stop, renewer)),
        };
        if shares_purpose {
            lease.adopt_orphans(&purpose)?;
        }
        Ok(lease)
    }

    /// Takes over what writers that are gone left for the same purpose, and looks again until
    /// nothing is left. A request of a killed process can be executed after its successor has
    /// looked. That request may be to take over from yet another process.
    fn adopt_orphans(&self, purpose: &str) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            let orphans = judgement::orphans_for(&*self.registry, purpose, self.id)?;
            if orphans.is_empty() {
                break;
            }
            for orphan in orphans {
                self.registry.adopt(self.id, orphan.clone())?;
                // This ends what was not taken over.
                self.registry.end_lease(orphan, false)?;
            }
        }
        Ok(())
    }

    pub(super) fn id(&self) -> LeaseId {
        self.id
    }

    /// Returns the number of absent objects when the lease began.
    pub(super) fn absent(&self) -> u64 {
        self.absent
    }

    /// Returns the counter of the bytes of objects that are registered under it.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.stored_bytes)
    }

    /// Ends the lease, whatever came of its work.
    ///
    /// # Errors
    /// If the registry fails, the next process ends the lease.
    pub(super) fn release(mut self) -> Result<()> {
        self.stop();
        self.registry.release(self.id)
    }

    /// Ends the lease, but keeps what was stored for the next try. Returns the bytes that are kept.
    ///
    /// # Errors
    /// If the registry fails, the next process ends the lease.
    pub(super) fn leave(mut self) -> Result<u64> {
        self.stop();
        self.registry.leave(self.id)
    }

    fn stop(&mut self) {
        let Some((stop, renewer)) = self.renewer.take() else { return };
        drop(stop);
        // The thread never panics. A panic would only mean that the lease was not renewed.
        let _ = renewer.join();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.renewer.is_some() {
            self.stop();
            // The writer panicked. Its process lives on, so nobody would ever take the lease for an
            // orphan.
            if let Err(e) = self.registry.leave(self.id) {
                tracing::warn!("a lease could not be left: {e}");
            }
        }
    }
}

fn renew(registry: &dyn Registry, id: LeaseId, stopped: &Receiver<()>, period: Duration) {
    while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        if let Err(e) = registry.renew(id) {
            tracing::debug!("lease {} was not renewed: {e}", id.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::model::time::Timestamp;
    use crate::registry::EngineRegistry;
    use crate::registry::engine::memory::MemoryEngine;

    #[test]
    fn a_lease_is_renewed_while_its_writer_does_nothing() {
        let now = Arc::new(AtomicU64::new(1));
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)));
        let registry = EngineRegistry::open(Box::new(MemoryEngine::default()), clock).unwrap();
        let registry: Arc<dyn Registry> = Arc::new(registry);
        let period = Duration::from_millis(5);
        let (purpose, holder) = ("test".to_owned(), "holder".to_owned());
        let lease = Lease::renewed_every(&registry, None, purpose, holder, period).unwrap();
        for hour in 1..4u64 {
            now.store(hour * 3_600_000, Ordering::SeqCst);
            let start = std::time::Instant::now();
            while registry.leases().unwrap()[0].expired {
                assert!(start.elapsed().as_secs() < 30, "nobody renewed it");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        drop(lease);
        assert!(registry.leases().unwrap().is_empty(), "a writer that panicked leaves none behind");
    }
}
