//! Transactions over a table that knows only looks and guarded changes.
//!
//! A closure runs on what was looked up, and its changes are kept until it ends. Then one guarded
//! change makes them, if every row and range that the closure read is unchanged. Otherwise the
//! closure runs again. After some attempts it runs alone, so that every writer gets its turn.
//!
//! The reads of one run may see different moments. The run then has no effect, because its guards do
//! not hold; an error of the closure is reported only if they do.

mod rows;
mod run;

use std::time::{Duration, Instant};

use rand::RngExt;

use super::table::{Mode, Table};
use super::{Durability, Engine, Transaction, View};
use crate::error::{Error, Kind, Result};
use run::Run;

/// The number of attempts beside other writers, before a closure runs alone.
const ATTEMPTS: u32 = 3;
/// The longest pause before the second attempt; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(2);
/// The number of times that a closure runs again because its session was lost.
const LOST_MAX: u32 = 5;
/// The time after which a closure does not run again. A look waits for the table before it fails.
const LOST_PATIENCE: Duration = Duration::from_secs(10);

/// An engine over a table.
pub struct Optimistic<T>(pub T);

/// The end of one run of a closure.
enum Ran {
    /// Its result is true.
    Done(Result<()>),
    /// Something that it read has changed; it changed nothing.
    Outrun,
    /// A look failed; it changed nothing.
    Lost(Error),
}

impl<T: Table> Engine for Optimistic<T> {
    fn is_shared(&self) -> bool {
        true
    }

    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()> {
        repeat_lost(|| {
            let run = Run::new(self.0.session(Mode::Snapshot)?);
            let done = body(&run);
            Ok(run.failure().map_or(Ran::Done(done), Ran::Lost))
        })
        .map(drop)
    }

    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            if repeat_lost(|| self.attempt(Mode::Latest, durability, body))? {
                return Ok(());
            }
            std::thread::sleep(pause(attempt));
        }
        for _ in 0..LOST_MAX {
            if repeat_lost(|| self.attempt(Mode::Alone, durability, body))? {
                return Ok(());
            }
        }
        let what = "the connection to the registry broke again and again";
        Err(Error::new(Kind::Unavailable, what).hint("nothing was changed; try again"))
    }
}

/// Runs again while the session is lost, some times. Returns whether it was done, rather than
/// outrun.
fn repeat_lost(mut run: impl FnMut() -> Result<Ran>) -> Result<bool> {
    let (mut lost, start) = (0, Instant::now());
    loop {
        match run()? {
            Ran::Done(done) => return done.map(|()| true),
            Ran::Outrun => return Ok(false),
            Ran::Lost(error) => {
                lost += 1;
                let may_return = lost <= LOST_MAX && start.elapsed() < LOST_PATIENCE;
                if error.kind() != Kind::Unavailable || !may_return {
                    return Err(error);
                }
            }
        }
    }
}

/// Returns a random pause, so that writers that met do not meet again.
fn pause(attempt: u32) -> Duration {
    let longest = PAUSE.as_micros() as u64 * (1 << attempt);
    Duration::from_micros(rand::rng().random_range(0..=longest))
}

impl<T: Table> Optimistic<T> {
    /// Runs the closure once.
    fn attempt(
        &self,
        mode: Mode,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<Ran> {
        let mut run = Run::new(self.0.session(mode)?);
        let done = body(&mut run);
        if let Some(error) = run.failure() {
            return Ok(Ran::Lost(error));
        }
        let holds = match &done {
            Ok(()) => run.apply(durability)?,
            Err(_) => run.check()?,
        };
        Ok(if holds { Ran::Done(done) } else { Ran::Outrun })
    }
}
