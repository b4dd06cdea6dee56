//! From a walk to packs and trees: one thread walks, one per CPU hashes, one assembles.

mod assembly;
mod hash;
mod seal;
mod upload;

use std::collections::BTreeMap;
use std::iter;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::outcome::Outcomes;
use super::report::Progress;
use super::walk::Walk;
use super::walk::event::{Event, Found, Unit};
use super::walk::feed::Feed;
use crate::error::{Error, Kind, Result};
use crate::model::zone::Zone;
use crate::ops::lease::Lease;
use crate::ops::repository::Repository;
use assembly::Assembly;
pub(crate) use assembly::Built;
use hash::hash;
use upload::Uploader;

/// The maximum number of units between walk and assembly: bounds memory to 8 MiB times this, about.
const UNITS_IN_FLIGHT: usize = 8;

type Numbered<T> = (u64, Result<T>);

/// The mode of a build: it stores new objects, or counts them.
#[derive(Clone, Copy)]
pub(crate) enum Mode<'a> {
    /// The build stores new objects under a lease.
    Store(&'a Lease),
    /// The build counts the objects that are new in a zone, and stores nothing.
    DryRun(Zone),
}

impl Mode<'_> {
    fn zone(&self) -> Zone {
        match self {
            Self::Store(lease) => lease.id().zone(),
            Self::DryRun(zone) => *zone,
        }
    }
}

/// Walks, hashes, and stores new objects.
pub(crate) fn run(
    repository: &Repository,
    walked: Walk<'_>,
    mode: Mode<'_>,
    outcomes: Outcomes,
    progress: Arc<dyn Progress>,
) -> Result<Built> {
    let uploader = match mode {
        Mode::Store(lease) => Some(Uploader::new(repository, lease)),
        Mode::DryRun(_) => None,
    };
    let mut assembly = Assembly::new(repository, mode.zone(), uploader, outcomes, progress);
    match &walked {
        Walk::Source(source, ..) => {
            assembly.drop_empty = source.is_some_and(|source| source.filters().chooses());
        }
        Walk::Draft(draft) => assembly.draft = Some(draft),
        Walk::Insert(_) | Walk::Merge(_) => {}
    }
    let (permits, permit_taken) = sync_channel::<()>(UNITS_IN_FLIGHT);
    let (work, work_queue) = channel::<(u64, Unit<Found>)>();
    let (done, results) = channel::<Numbered<Option<Unit<Event>>>>();
    let work_queue = Mutex::new(work_queue);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (done, work_queue) = (done.clone(), &work_queue);
            scope.spawn(move || hash_units(work_queue, &done, repository));
        }
        scope.spawn(move || walk(walked, repository, &permits, work, &done));
        // The receivers move in here, so that an error ends the threads that send to them.
        assemble(&mut assembly, results, permit_taken)
    })?;
    assembly.finish()
}

fn hash_units(
    queue: &Mutex<Receiver<(u64, Unit<Found>)>>,
    done: &Sender<Numbered<Option<Unit<Event>>>>,
    repository: &Repository,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, unit)) = next else { return };
        let hashed = hash(unit, &repository.cutter).map(Some);
        if done.send((number, hashed)).is_err() {
            return;
        }
    }
}

/// Returns the error of a thread whose receiver has stopped with an error of its own.
fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the put was stopped")
}

fn walk(
    walked: Walk<'_>,
    repository: &Repository,
    permits: &SyncSender<()>,
    work: Sender<(u64, Unit<Found>)>,
    done: &Sender<Numbered<Option<Unit<Event>>>>,
) {
    let mut number = 0;
    let mut emit = |unit: Unit<Found>| {
        permits.send(()).map_err(|_| stopped())?;
        work.send((number, unit)).map_err(|_| stopped())?;
        number += 1;
        Ok(())
    };
    let feed = Feed::new(&repository.cutter, &mut emit);
    let walked = walked.run(repository, feed);
    // The last message has the walk's result; the receiver may be gone.
    let _ = done.send((number, walked.map(|()| None)));
}

fn assemble(
    assembly: &mut Assembly<'_>,
    results: Receiver<Numbered<Option<Unit<Event>>>>,
    permits: Receiver<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    while let Ok(first) = results.recv() {
        waiting.extend(iter::once(first).chain(results.try_iter()));
        let (mut ready, mut last) = (Vec::new(), false);
        while let Some(result) = waiting.remove(&next) {
            match result? {
                Some(unit) => ready.push(unit),
                None => last = true,
            }
            next += 1;
        }
        assembly.units(ready, &|| permits.recv().map_err(|_| stopped()))?;
        if last {
            return Ok(());
        }
    }
    Err(stopped())
}
