//! Maintenance: one process at a time repairs the object table, or moves the store.
//!
//! The mark is durable, in the registry (`registry/upkeep/maintenance.rs`). A thread renews it. If
//! its holder is known to be dead, or did not renew it for long, the next process takes it over.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::judgement::idle_leases;
use super::process_id::{is_dead, this_process};
use super::reclaim_lock;
use super::repository::Repository;
use super::shared;
use crate::error::{Error, Kind, RepositoryHint, Result};
use crate::registry::{Maintenance, MaintenanceMode, Registry};

/// The interval between renewals of the mark.
const RENEW_EVERY: Duration = Duration::from_secs(60);
/// The age of the last renewal, in milliseconds, beyond which a mark is abandoned, wherever its
/// holder was.
const ABANDONED_MILLISECONDS: u64 = 10 * 60 * 1000;

/// The mark, held by this process until it is ended or dropped.
pub(crate) struct Held<'a> {
    repository: &'a Repository,
    /// The id of the holder, which calls under the mark require.
    pub(crate) holder: String,
    renewing: Option<(SyncSender<()>, JoinHandle<()>)>,
}

/// Takes the mark. Interrupted maintenance of another process is completed or undone first.
///
/// # Errors
/// [`Kind::Conflict`] while a writer is active, or while another process does maintenance or frees
/// dead bytes.
pub(crate) fn begin(repository: &Repository, mode: MaintenanceMode) -> Result<Held<'_>> {
    repository.refuse_served()?;
    finish_interrupted(repository)?;
    let registry = &repository.registry;
    let holder = this_process();
    registry.begin_maintenance(mode, holder.clone(), None, idle_leases(&**registry)?)?;
    let held = hold(repository, holder);
    reclaim_lock::wait_for_others(repository)?;
    Ok(held)
}

/// Refuses to begin if the store is being moved, or has moved since the repository was opened.
///
/// # Errors
/// [`Kind::Conflict`] if it is being moved or has moved.
pub(crate) fn refuse_moving(repository: &Repository) -> Result<()> {
    if repository.janitor.is_some() {
        return Ok(());
    }
    let moves = |mark: Maintenance| mark.mode == MaintenanceMode::Copy && !is_dead(&mark.holder);
    if repository.registry.maintenance()?.is_some_and(moves) {
        return Err(Error::new(Kind::Conflict, "the repository is being moved to another store")
            .hint(RepositoryHint::AwaitCopy));
    }
    shared::refuse_moved(repository)
}

fn hold(repository: &Repository, holder: String) -> Held<'_> {
    let (stop, stopped) = sync_channel(0);
    let (registry, name) = (Arc::clone(&repository.registry), holder.clone());
    let thread = std::thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
        while stopped.recv_timeout(RENEW_EVERY) == Err(RecvTimeoutError::Timeout) {
            if let Err(e) = registry.renew_maintenance(name.clone()) {
                tracing::warn!("the maintenance mark could not be renewed: {e}");
            }
        }
    });
    // Without the thread the mark lasts for ten minutes: enough for most.
    let renewing = thread.ok().map(|thread| (stop, thread));
    Held { repository, holder, renewing }
}

impl Held<'_> {
    /// Ends the maintenance.
    ///
    /// # Errors
    /// If the registry fails, the mark stays until the next process takes it over.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop_renewing();
        self.repository.registry.end_maintenance(self.holder.clone())
    }

    fn stop_renewing(&mut self) {
        if let Some((stop, thread)) = self.renewing.take() {
            drop(stop);
            if thread.join().is_err() {
                tracing::debug!("the thread that renews the maintenance mark panicked");
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.renewing.is_none() {
            return;
        }
        self.stop_renewing();
        if let Err(e) = self.repository.registry.end_maintenance(self.holder.clone()) {
            tracing::warn!("the maintenance mark could not be removed: {e}");
        }
    }
}

/// Reports whether maintenance is abandoned: its process is gone or silent, or is this one, which
/// failed in the middle of it.
fn is_abandoned(registry: &dyn Registry, mark: &Maintenance) -> Result<bool> {
    let silent = registry.now()?.0.saturating_sub(mark.renewed.0);
    let gone = is_dead(&mark.holder) || mark.holder == this_process();
    Ok(gone || silent > ABANDONED_MILLISECONDS)
}

/// Cleans up after interrupted maintenance, if there was any. A table that was being made is given
/// up, since the old one is untouched; one that was being swapped in is swapped completely. Nothing
/// is read from the store.
///
/// # Errors
/// [`Kind::Conflict`] while another process does maintenance.
pub(crate) fn finish_interrupted(repository: &Repository) -> Result<()> {
    if repository.janitor.is_some() {
        // The server does its own maintenance, and refuses what that excludes.
        return Ok(());
    }
    let registry = &repository.registry;
    let Some(mark) = registry.maintenance()? else { return Ok(()) };
    if !is_abandoned(&**registry, &mark)? {
        return Err(Error::new(Kind::Conflict, "another process repairs or moves the repository")
            .hint("try again when it has finished"));
    }
    tracing::info!(mode = ?mark.mode, "cleaning up after interrupted maintenance");
    let (mode, holder) = (mark.mode, this_process());
    let idle = idle_leases(&**registry)?;
    registry.begin_maintenance(mode, holder.clone(), Some(mark), idle)?;
    let held = hold(repository, holder.clone());
    match mode {
        MaintenanceMode::Swap => swap(&**registry, &holder)?,
        MaintenanceMode::Rebuild => registry.begin_rebuild(holder)?,
        MaintenanceMode::Repair | MaintenanceMode::Copy => {}
    }
    held.end()
}

/// Replaces the old object table by the new one.
///
/// # Errors
/// If the registry fails, [`finish_interrupted`] completes the swap.
pub(crate) fn swap(registry: &dyn Registry, holder: &str) -> Result<()> {
    while !registry.swap_rebuilt(holder.to_owned())? {}
    Ok(())
}
