//! Threads for requests that may block, so that the threads that receive the kernel's requests
//! never wait for the network.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
};

use crate::mount::recent_timeouts::RecentTimeouts;

/// The most threads that may wait for listings and look-ups.
const METADATA_THREADS: usize = 32;
/// The most threads that may wait for content of files.
const DATA_THREADS: usize = 128;
/// The most threads that may wait for the local disk.
const DISK_THREADS: usize = 32;
/// The most tasks that wait for a thread; beyond that, the caller does the task itself.
const QUEUE: usize = 4_096;
/// The time that a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// The resource that a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Names and attributes.
    Metadata,
    /// The content of files.
    Data,
    /// The local disk, and no store.
    Disk,
}

type Task = Box<dyn FnOnce() + Send>;

/// Three thread pools. Metadata requests never wait for data, and requests to the local disk never
/// wait for a store.
#[derive(Clone)]
pub(crate) struct Workers {
    metadata: Arc<Pool>,
    data: Arc<Pool>,
    disk: Arc<Pool>,
    needed: bool,
    recent_timeouts: Arc<RecentTimeouts>,
}

/// Threads of one kind: made when needed, gone when idle.
struct Pool {
    name: &'static str,
    threads_max: usize,
    inner: Mutex<Inner>,
    more: Condvar,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Task>,
    threads: usize,
    idle: usize,
}

impl Pool {
    fn new(name: &'static str, threads_max: usize) -> Arc<Self> {
        Arc::new(Self { name, threads_max, inner: Mutex::default(), more: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues `task`; gives it back if there is no thread to do it.
    fn take(self: &Arc<Self>, task: Task) -> Result<(), Task> {
        let mut inner = self.lock();
        if inner.queue.len() >= QUEUE {
            return Err(task);
        }
        inner.queue.push_back(task);
        if inner.idle < inner.queue.len() && inner.threads < self.threads_max {
            let pool = Arc::clone(self);
            let made = Builder::new().name(self.name.to_owned()).spawn(move || pool.work());
            match made {
                Ok(_) => inner.threads += 1,
                Err(e) => {
                    tracing::warn!("cannot start a thread for {}: {e}", self.name);
                    // If the pool has other threads, the task waits for one of them.
                    if let (0, Some(task)) = (inner.threads, inner.queue.pop_back()) {
                        return Err(task);
                    }
                }
            }
        }
        self.more.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut inner = self.lock();
        loop {
            if let Some(task) = inner.queue.pop_front() {
                drop(inner);
                // If a task panics, its reply is dropped, which sends EIO.
                if catch_unwind(AssertUnwindSafe(task)).is_err() {
                    tracing::error!("a request of the kernel panicked");
                }
                inner = self.lock();
                continue;
            }
            inner.idle += 1;
            let (now, waited) =
                self.more.wait_timeout(inner, IDLE).unwrap_or_else(PoisonError::into_inner);
            inner = now;
            inner.idle -= 1;
            if waited.timed_out() && inner.queue.is_empty() {
                inner.threads -= 1;
                return;
            }
        }
    }
}

impl Workers {
    /// Creates pools without threads. `needed` if every request that touches a version may block,
    /// as with a remote store.
    pub(crate) fn new(needed: bool) -> Self {
        let metadata = Pool::new("metadata", METADATA_THREADS);
        let data = Pool::new("data", DATA_THREADS);
        let disk = Pool::new("disk", DISK_THREADS);
        Self { metadata, data, disk, needed, recent_timeouts: Arc::default() }
    }

    /// Returns whether every request that touches a version may block.
    pub(crate) fn are_needed(&self) -> bool {
        self.needed
    }

    /// Returns the reads that have timed out recently.
    pub(crate) fn recent_timeouts(&self) -> &RecentTimeouts {
        &self.recent_timeouts
    }

    /// Does `task` in a thread that may block, or in this one if no thread can take it.
    pub(crate) fn run(&self, waits: Waits, task: impl FnOnce() + Send + 'static) {
        let pool = match waits {
            Waits::Metadata => &self.metadata,
            Waits::Data => &self.data,
            Waits::Disk => &self.disk,
        };
        if let Err(task) = pool.take(Box::new(task)) {
            task();
        }
    }
}

/// A reply that can be an error.
pub(crate) trait Refuse: Send + 'static {
    /// Replies with the error.
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse!(ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite);

/// Does `work`, which replies, in a new thread; replies EAGAIN if that cannot be made.
pub(crate) fn on_own_thread<R: Refuse>(reply: R, work: impl FnOnce(R) + Send + 'static) {
    let kept = Arc::new(Mutex::new(Some(reply)));
    let own = Arc::clone(&kept);
    let take = |from: &Mutex<Option<R>>| from.lock().unwrap_or_else(PoisonError::into_inner).take();
    let spawned = Builder::new().name("apart".to_owned()).spawn(move || {
        if let Some(reply) = take(&own) {
            work(reply);
        }
    });
    if let Err(e) = spawned {
        tracing::error!("cannot start a thread for a request: {e}");
        if let Some(reply) = take(&kept) {
            reply.refuse(Errno::EAGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_task_that_panics_takes_no_thread_along() {
        let workers = Workers::new(false);
        for _ in 0..DATA_THREADS * 2 {
            workers.run(Waits::Data, || panic!("on purpose"));
        }
        let (done, all) = channel();
        for number in 0..DATA_THREADS * 2 {
            let done = done.clone();
            workers.run(Waits::Data, move || done.send(number).unwrap());
        }
        drop(done);
        let mut numbers: Vec<_> = all.iter().collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..DATA_THREADS * 2).collect::<Vec<_>>());
    }

    #[test]
    fn there_are_never_more_threads_than_allowed_and_nothing_is_left_undone() {
        let pool = Pool::new("few", 2);
        let (done, all) = channel();
        let (open, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for number in 0..6 {
            let (done, gate) = (done.clone(), Arc::clone(&gate));
            let task = Box::new(move || {
                let _closed = gate.lock().unwrap().recv();
                done.send(number).unwrap();
            });
            assert!(pool.take(task).is_ok());
        }
        assert_eq!(pool.lock().threads, 2);
        drop((open, done));
        assert_eq!(all.iter().count(), 6);
    }
}
