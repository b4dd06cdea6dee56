//! Objects in a cloud or on a web server: one attempt each, and the patience around it.
//!
//! A request that stops moving is given up and made again, so that a store that hung is read again
//! within seconds of its return; the caller's deadline bounds all attempts together.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect;
use super::url::StoreUrl;
use crate::error::{Error, Kind, Result};

/// How long an answer may take to begin.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(4);
/// In each such time ...
const PROGRESS_TIME: Duration = Duration::from_secs(3);
/// ... at least so many bytes must come, else the attempt is given up: 8 KiB/s.
const PROGRESS_BYTES: usize = 24 << 10;
/// Waits between attempts grow from here ...
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// ... to here: short, because readers wait for the store's return.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Attempts when the store says that the caller has no right: credentials may just be renewed.
const DENIED_ATTEMPTS: usize = 3;
/// What an upload may take beside its bytes.
const UPLOAD_TIME: Duration = Duration::from_secs(20);
/// The slowest upload that is waited for, in bytes each second.
const UPLOAD_BYTES_PER_SECOND: u64 = 256 << 10;
/// How long all attempts of one upload, listing or deletion may take together.
const WRITE_DEADLINE: Duration = Duration::from_secs(300);
/// The longest object that is read without being asked for in ranges: indexes of packs.
const WHOLE_BYTES_MAX: u64 = 256 << 20;
/// Threads that move bytes.
const WORKERS: usize = 2;
/// Parts of one upload under way.
const PARTS_AT_ONCE: usize = 4;
/// The shortest part of an upload in parts, and the longest upload in one (S3 wants 5 MiB).
pub const PART_BYTES: usize = 8 << 20;

/// The threads that move bytes; those who share them share a few.
pub struct Threads {
    runtime: Option<Runtime>,
    retries: AtomicU64,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// When the host gives none.
    pub fn start() -> Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the threads that move bytes", e))?;
        Ok(Arc::new(Self { runtime: Some(runtime), retries: AtomicU64::new(0) }))
    }

    /// What tasks run on.
    pub fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is there until the last user is gone").handle()
    }

    /// Waits for `task`; only for threads that are not these.
    pub fn wait<T>(&self, task: impl Future<Output = T>) -> T {
        self.handle().block_on(task)
    }

    /// Attempts that failed and were made again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A remote store.
pub struct Far {
    store: Arc<dyn ObjectStore>,
    name: String,
    writable: bool,
    threads: Arc<Threads>,
}

/// What came of a request that was made as often as its deadline allowed.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes; fewer than asked for at the object's end.
    pub bytes: Bytes,
    /// Length of the whole object.
    pub object_bytes: u64,
}

impl Far {
    /// The store at `url`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`Kind::Usage`] for options that make no sense.
    pub fn open(
        url: &StoreUrl,
        options: &[(String, String)],
        threads: Arc<Threads>,
    ) -> Result<Self> {
        let (store, writable) = connect::connect(url, options)?;
        Ok(Self { store, name: url.to_string(), writable, threads })
    }

    /// The threads it works with.
    pub fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    /// What tasks run on.
    pub fn handle(&self) -> &Handle {
        self.threads.handle()
    }

    /// Who answers.
    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Its URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for `task`; only for threads that are not the runtime's own.
    pub fn wait<T>(&self, task: impl Future<Output = T>) -> T {
        self.handle().block_on(task)
    }

    fn refuse_read_only(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(Error::new(Kind::ReadOnly, format!("{} can only be read", self.name))
            .hint("a web server takes no packs: put into s3://, gs://, az:// or file:"))
    }

    /// Bytes `range` of an object, or less at its end; tried again until `deadline`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such object, [`Kind::TimedOut`] and
    /// [`Kind::Unavailable`] when the store did not answer.
    pub async fn get(&self, key: &str, range: Range<u64>, deadline: Instant) -> Result<Fetched> {
        let attempt = || self.get_once(key, Some(range.clone()));
        let (bytes, object_bytes) = self.persist(key, deadline, attempt).await?;
        Ok(Fetched { bytes, object_bytes })
    }

    /// A whole object; tried again until `deadline`. Not every server calls all of it a range.
    ///
    /// # Errors
    /// As [`Far::get`]; [`Kind::Unavailable`] for one longer than [`WHOLE_BYTES_MAX`].
    pub async fn get_whole(&self, key: &str, deadline: Instant) -> Result<Fetched> {
        let (bytes, object_bytes) =
            self.persist(key, deadline, || self.get_once(key, None)).await?;
        Ok(Fetched { bytes, object_bytes })
    }

    async fn get_once(&self, key: &str, range: Option<Range<u64>>) -> Result<(Bytes, u64)> {
        let length = range.as_ref().map_or(WHOLE_BYTES_MAX, |range| range.end - range.start);
        let length = usize::try_from(length).unwrap_or_default();
        let held = if range.is_some() { length } else { 0 };
        let range = range.map(GetRange::Bounded);
        let options = GetOptions { range, ..GetOptions::default() };
        let key = Key::from(key);
        let (answer, object) = self.ask(&key, options).await?;
        let bytes = collect(&self.name, answer, held, length).await?;
        Ok((bytes, object.size))
    }

    /// Makes one request for an object; what it is, and its bytes as they come.
    pub(super) async fn ask(
        &self,
        key: &Key,
        options: GetOptions,
    ) -> Result<(impl Stream<Item = Result<Bytes>> + Unpin, ObjectMeta)> {
        let answer = timeout(FIRST_BYTE, self.store.get_opts(key, options)).await;
        let answer = answer.map_err(|_| stalled(&self.name))?.map_err(|e| self.failed(e))?;
        let object = answer.meta.clone();
        Ok((answer.into_stream().map_err(|e| self.failed(e)), object))
    }

    /// Makes attempts, as [`persist`].
    async fn persist<T, F: Future<Output = Result<T>>>(
        &self,
        key: &str,
        deadline: Instant,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        persist(&self.threads, &self.name, key, deadline, attempt).await
    }

    fn stalled(&self) -> Error {
        stalled(&self.name)
    }

    fn too_late(&self, last: Option<Error>) -> Error {
        too_late(&self.name, last)
    }

    pub(super) fn failed(&self, error: object_store::Error) -> Error {
        use object_store::Error as Failure;
        let kind = match &error {
            Failure::NotFound { .. } => Kind::NotFound,
            Failure::PermissionDenied { .. } | Failure::Unauthenticated { .. } => Kind::Denied,
            Failure::NotSupported { .. } | Failure::NotImplemented { .. } => Kind::Unsupported,
            Failure::InvalidPath { .. } | Failure::UnknownConfigurationKey { .. } => Kind::Usage,
            Failure::AlreadyExists { .. } | Failure::Precondition { .. } => Kind::Conflict,
            _ if is_untrusted(&error) => Kind::Denied,
            _ => Kind::Unavailable,
        };
        let untrusted = is_untrusted(&error);
        let told = Error::new(kind, self.name.clone()).because(error);
        match kind {
            Kind::Denied if untrusted => told.hint(
                "its certificate is not trusted: name a file with that of its authority in SSL_CERT_FILE",
            ),
            Kind::Denied => told.hint("the credentials are missing, wrong, or have ended"),
            _ => told,
        }
    }

    /// Writes a whole object.
    ///
    /// # Errors
    /// When the store did not take it in time; it may be there in part of its attempts, whole.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.refuse_read_only()?;
        let path = Key::from(key);
        let limit = UPLOAD_TIME + upload_time(body.len());
        let attempt = || async {
            let put = self.store.put(&path, body.clone().into());
            let put = timeout(limit, put).await.map_err(|_| self.stalled())?;
            put.map(drop).map_err(|e| self.failed(e))
        };
        let deadline = Instant::now() + WRITE_DEADLINE;
        self.persist(key, deadline, attempt).await
    }

    /// Begins an object that is written in parts.
    ///
    /// # Errors
    /// As [`Far::put`].
    pub async fn begin(self: &Arc<Self>, key: &str) -> Result<Parts> {
        self.refuse_read_only()?;
        let path = Key::from(key);
        let deadline = Instant::now() + WRITE_DEADLINE;
        let attempt = || async {
            let begun = timeout(UPLOAD_TIME, self.store.put_multipart(&path)).await;
            begun.map_err(|_| self.stalled())?.map_err(|e| self.failed(e))
        };
        let upload = self.persist(key, deadline, attempt).await?;
        Ok(Parts {
            far: Arc::clone(self),
            key: key.to_owned(),
            upload,
            sent: 0,
            under_way: Vec::new(),
        })
    }

    /// Length of an object; `None` when it is not there.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn length(&self, key: &str, deadline: Instant) -> Result<Option<u64>> {
        let path = Key::from(key);
        let attempt = || async {
            let head = timeout(FIRST_BYTE, self.store.head(&path)).await;
            head.map_err(|_| self.stalled())?.map_err(|e| self.failed(e))
        };
        match self.persist(key, deadline, attempt).await {
            Ok(ObjectMeta { size, .. }) => Ok(Some(size)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes an object; one that is gone counts as removed.
    ///
    /// # Errors
    /// When it may still be there.
    pub async fn remove(&self, key: &str) -> Result<()> {
        self.refuse_read_only()?;
        let path = Key::from(key);
        let attempt = || async {
            let gone = timeout(UPLOAD_TIME, self.store.delete(&path)).await;
            gone.map_err(|_| self.stalled())?.map_err(|e| self.failed(e))
        };
        match self.persist(key, Instant::now() + WRITE_DEADLINE, attempt).await {
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Calls `each` with key and length of every object below `prefix`.
    ///
    /// # Errors
    /// When the listing breaks off; [`Kind::Unsupported`] where nothing can be listed.
    pub async fn list(&self, prefix: &str, each: &mut dyn FnMut(&str, u64)) -> Result<()> {
        let prefix = Key::from(prefix);
        let mut listing = self.store.list(Some(&prefix)).map_err(|e| self.failed(e));
        let deadline = Instant::now() + WRITE_DEADLINE;
        loop {
            let next = timeout_at(deadline, listing.try_next()).await;
            match next.map_err(|_| self.too_late(None))?? {
                Some(object) => each(object.location.as_ref(), object.size),
                None => return Ok(()),
            }
        }
    }
}

/// Makes attempts until one succeeds, `deadline` is over, or trying again is of no use.
pub(super) async fn persist<T, F: Future<Output = Result<T>>>(
    threads: &Threads,
    name: &str,
    key: &str,
    deadline: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut waits = ExponentialBuilder::default()
        .with_min_delay(BACKOFF_MIN)
        .with_max_delay(BACKOFF_MAX)
        .without_max_times()
        .with_jitter()
        .build();
    let mut failures = 0;
    loop {
        let error = match timeout_at(deadline, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => return Err(too_late(name, None)),
        };
        failures += 1;
        let hopeless = match error.kind() {
            Kind::NotFound | Kind::ReadOnly | Kind::Usage | Kind::Unsupported | Kind::Corrupt => {
                true
            }
            Kind::Denied => failures as usize >= DENIED_ATTEMPTS,
            _ => false,
        };
        if hopeless {
            return Err(error);
        }
        tracing::debug!(%key, failures, "a request is made again: {error}");
        let wait = waits.next().unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX);
        if Instant::now() + wait >= deadline {
            return Err(too_late(name, Some(error)));
        }
        tokio::time::sleep(wait).await;
        threads.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bytes of `body`, `length` at most, unless they come too slowly.
pub(super) async fn collect(
    name: &str,
    mut body: impl Stream<Item = Result<Bytes>> + Unpin,
    held: usize,
    length: usize,
) -> Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(held);
    let (mut since, mut counted) = (Instant::now(), 0);
    loop {
        let part = timeout(PROGRESS_TIME, body.next()).await.map_err(|_| stalled(name))?;
        let Some(part) = part else {
            return Ok(bytes.freeze());
        };
        let part = part?;
        if bytes.len() + part.len() > length {
            let what = format!("{name} sends more than it was asked for");
            return Err(Error::new(Kind::Unavailable, what));
        }
        bytes.extend_from_slice(&part);
        counted += part.len();
        if since.elapsed() > PROGRESS_TIME {
            if counted < PROGRESS_BYTES && bytes.len() < length {
                return Err(stalled(name));
            }
            (since, counted) = (Instant::now(), 0);
        }
    }
}

pub(super) fn stalled(name: &str) -> Error {
    Error::new(Kind::TimedOut, format!("{name} does not answer"))
}

fn too_late(name: &str, last: Option<Error>) -> Error {
    let error = match last {
        Some(last) => {
            let kind = if last.kind() == Kind::Denied { Kind::Denied } else { Kind::TimedOut };
            Error::new(kind, format!("no answer from {name} in time")).because(last)
        }
        None => Error::new(Kind::TimedOut, format!("no answer from {name} in time")),
    };
    error.hint("try again when the store can be reached")
}

fn upload_time(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64 / UPLOAD_BYTES_PER_SECOND)
}

/// An object that is being written in parts.
pub struct Parts {
    far: Arc<Far>,
    key: String,
    upload: Box<dyn MultipartUpload>,
    sent: usize,
    under_way: Vec<tokio::task::JoinHandle<object_store::Result<()>>>,
}

impl Parts {
    /// Sends the next part; waits while [`PARTS_AT_ONCE`] are under way.
    ///
    /// # Errors
    /// When an earlier part failed: the object cannot be finished.
    pub async fn send(&mut self, part: Bytes) -> Result<()> {
        let limit = UPLOAD_TIME + upload_time(part.len());
        let sending = self.upload.put_part(part.into());
        self.sent += 1;
        let slow = self.far.stalled();
        let task = async move {
            match timeout(limit, sending).await {
                Ok(done) => done,
                Err(_) => Err(object_store::Error::Generic { store: "store", source: slow.into() }),
            }
        };
        self.under_way.push(self.far.handle().spawn(task));
        while self.under_way.len() > PARTS_AT_ONCE {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<()> {
        let oldest = self.under_way.remove(0).await;
        match oldest {
            Ok(sent) => sent.map_err(|e| self.far.failed(e)),
            Err(e) => Err(Error::new(Kind::Unavailable, "an upload broke off").because(e)),
        }
    }

    /// Makes the object visible.
    ///
    /// # Errors
    /// When a part failed or the store refuses; nothing is visible then.
    pub async fn finish(mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            if let Err(e) = self.settle_oldest().await {
                self.abort().await;
                return Err(e);
            }
        }
        let completed = timeout(WRITE_DEADLINE, self.upload.complete()).await;
        match completed.map_err(|_| self.far.stalled()) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => {
                let told = self.far.failed(e);
                self.abort().await;
                Err(told)
            }
            Err(e) => Err(e),
        }
    }

    /// Gives the parts up.
    pub async fn abort(&mut self) {
        for task in self.under_way.drain(..) {
            task.abort();
        }
        if let Ok(Err(e)) = timeout(UPLOAD_TIME, self.upload.abort()).await {
            tracing::warn!(key = %self.key, parts = self.sent, "parts may be left in the store: {e}");
        }
    }
}

/// Whether the other side could not prove who it is.
pub(super) fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // What an I/O error holds is not among its sources.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
