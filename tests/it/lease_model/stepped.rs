//! Registry calls that stop before each of their transactions, until the model steps them.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use artifactfs::error::{Error, Kind, Result};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::engine::{Durability, Engine, Transaction, View};

thread_local! {
    static GATE: RefCell<Option<(Sender<bool>, Receiver<()>)>> = const { RefCell::new(None) };
}

/// An engine whose writes wait, in threads that have a gate.
pub struct Gated(pub MemoryEngine);

impl Engine for Gated {
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()> {
        self.0.read(body)
    }

    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        let killed = GATE.with_borrow(|gate| {
            let Some((at, go)) = gate else { return false };
            at.send(false).unwrap();
            go.recv().is_err()
        });
        if killed {
            return Err(Error::new(Kind::Unavailable, "killed"));
        }
        self.0.write(durability, body)
    }
}

/// A call that stops before each of its transactions.
pub struct Stepped {
    go: Option<Sender<()>>,
    at: Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Stepped {
    /// Starts the call and runs it up to its first transaction.
    pub fn new(call: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        let ((at, seen), (go, gone)) = (channel(), channel());
        let thread = std::thread::spawn(move || {
            GATE.set(Some((at.clone(), gone)));
            if let Err(e) = call() {
                assert_eq!(e.message(), "killed");
            }
            let _ = at.send(true);
        });
        let mut stepped = Self { go: Some(go), at: seen, thread: Some(thread) };
        if stepped.at.recv().unwrap() {
            stepped.end();
        }
        stepped
    }

    /// Lets the call make one transaction. Returns whether it has ended.
    pub fn step(&mut self) -> bool {
        let Some(go) = &self.go else { return true };
        go.send(()).unwrap();
        let done = self.at.recv().unwrap();
        if done {
            self.end();
        }
        done
    }

    /// Ends the call. It counts as killed unless it has ended by itself.
    pub fn end(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
