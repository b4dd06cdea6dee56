//! Objects in a cloud or on a web server.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use object_store::list::PaginatedListOptions;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt, PutMode, PutOptions};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::answers;
use super::connect::{self, Connected};
use super::granted::needed_headers;
use super::persist::{collect, persist, stalled};
use crate::content::options::ServerAccess;
use crate::content::received::{Fetched, Seen, SignedUrl};
use crate::content::threads::Threads;
use crate::content::url::StoreUrl;
use crate::error::{Error, Kind, Result};

/// The time in which a response must begin.
pub(crate) const FIRST_BYTE: Duration = Duration::from_secs(4);
/// The time that an upload may take beside that of its bytes.
pub(crate) const UPLOAD_TIME: Duration = Duration::from_secs(20);
/// The slowest upload that is not given up, in bytes per second.
const UPLOAD_BYTES_PER_SECOND: u64 = 256 << 10;
/// The time that all attempts of one upload, listing or deletion may take together.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(300);
/// The time that one page of a listing may take.
const LIST_TIME: Duration = Duration::from_secs(60);
/// The longest object that is read without a range: indexes of packs.
const WHOLE_BYTES_MAX: u64 = 256 << 20;

/// A remote store.
pub(crate) struct Client {
    pub(crate) server: Connected,
    name: String,
    /// The text that all keys begin with, without a slash at its end.
    prefix: String,
    threads: Arc<Threads>,
}

impl Client {
    /// Returns a client of the store at `url`. It makes no request yet.
    ///
    /// # Errors
    /// [`Kind::Usage`] for options that make no sense.
    pub(crate) fn open(
        url: &StoreUrl,
        options: &[(String, String)],
        threads: Arc<Threads>,
    ) -> Result<Self> {
        let server = connect::connect(url, options)?;
        let prefix = match url {
            StoreUrl::Bucket { prefix, .. } => prefix.clone(),
            StoreUrl::Directory(_) | StoreUrl::Web(_) => String::new(),
        };
        Ok(Self { server, name: url.to_string(), prefix, threads })
    }

    /// Returns a client of the store of a served repository. It makes no request yet.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a key that no header can hold.
    pub(crate) fn served(server: &ServerAccess, threads: Arc<Threads>) -> Result<Self> {
        let name = server.url.to_string();
        Ok(Self { server: connect::served(server)?, name, prefix: String::new(), threads })
    }

    /// Returns the threads that make the requests.
    pub(crate) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    /// Returns the runtime that tasks run on.
    pub(crate) fn handle(&self) -> &Handle {
        self.threads.handle()
    }

    /// Returns the full key of an object of ours.
    pub(crate) fn key(&self, key: &str) -> Key {
        let below =
            if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        Key::parse(format!("{below}{key}")).expect("a URL's prefix was parsed, and so are our keys")
    }

    /// Returns the URL of the store.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Blocks until `task` ends. The runtime's own threads must not call it.
    pub(crate) fn wait<T>(&self, task: impl Future<Output = T>) -> T {
        self.handle().block_on(task)
    }

    /// Returns whether objects can be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.server.writable
    }

    /// Returns whether objects can be written in parts.
    pub(crate) fn takes_parts(&self) -> bool {
        self.server.parts.is_some()
    }

    /// Returns a URL by which anybody may make one kind of request for an object until `life` is
    /// over, and the headers that such a request needs; `None` if the store signs none.
    ///
    /// # Errors
    /// If the store's credentials cannot sign.
    pub(crate) async fn sign(
        &self,
        key: &str,
        write: bool,
        life: Duration,
    ) -> Result<Option<SignedUrl>> {
        let Some(signer) = &self.server.signer else { return Ok(None) };
        let method = if write { http::Method::PUT } else { http::Method::GET };
        let path = self.key(key);
        let signed = signer.signed_url(method.clone(), &path, life);
        let signed = timeout(UPLOAD_TIME, signed).await.map_err(|_| self.stalled())?;
        let url = signed.map_err(|e| self.failed(e))?.to_string();
        Ok(Some(SignedUrl { url, headers: needed_headers(&method, self.name.starts_with("az:")) }))
    }

    pub(crate) fn refuse_read_only(&self) -> Result<()> {
        if self.is_writable() {
            return Ok(());
        }
        Err(Error::new(Kind::ReadOnly, format!("{} can only be read", self.name))
            .hint("a web server takes no packs: put into s3://, gs://, az:// or file:"))
    }

    /// Reads bytes `range` of an object, or fewer at its end. The request is repeated until
    /// `deadline`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such object, [`Kind::TimedOut`] and [`Kind::Unavailable`]
    /// if the store did not respond.
    pub(crate) async fn get(
        &self,
        key: &str,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Fetched> {
        let attempt = || self.get_once(key, Some(range.clone()));
        let (bytes, object_bytes) = self.persist(key, deadline, attempt).await?;
        Ok(Fetched { bytes, object_bytes })
    }

    /// Reads a whole object without a range, since not every server accepts a range of all of it.
    /// The request is repeated until `deadline`.
    ///
    /// # Errors
    /// As [`Client::get`]; [`Kind::Unavailable`] for one longer than [`WHOLE_BYTES_MAX`].
    pub(crate) async fn get_whole(&self, key: &str, deadline: Instant) -> Result<Fetched> {
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
        let key = self.key(key);
        let (answer, object) = self.ask(&key, options).await?;
        let bytes = collect(&self.name, answer, held, length).await?;
        Ok((bytes, object.size))
    }

    /// Makes one request for an object. Returns its bytes as they arrive, and its metadata.
    pub(crate) async fn ask(
        &self,
        key: &Key,
        options: GetOptions,
    ) -> Result<(impl Stream<Item = Result<Bytes>> + Unpin, ObjectMeta)> {
        let answer = timeout(FIRST_BYTE, self.server.store.get_opts(key, options)).await;
        let answer = answer.map_err(|_| stalled(&self.name))?.map_err(|e| self.failed(e))?;
        let object = answer.meta.clone();
        Ok((answer.into_stream().map_err(|e| self.failed(e)), object))
    }

    /// Makes attempts, as [`persist`].
    pub(crate) async fn persist<T, F: Future<Output = Result<T>>>(
        &self,
        key: &str,
        deadline: Instant,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        persist(&self.threads, &self.name, key, deadline, attempt).await
    }

    pub(crate) fn stalled(&self) -> Error {
        stalled(&self.name)
    }

    pub(crate) fn failed(&self, error: object_store::Error) -> Error {
        answers::to_error(&self.name, error)
    }

    /// Checks that the store can be reached and read, by a request for an object that need not
    /// exist.
    ///
    /// # Errors
    /// The error of the store, and [`Kind::TimedOut`] if it does not respond until `deadline`.
    pub(crate) async fn probe(&self, key: &str, deadline: Instant) -> Result<()> {
        match self.get_whole(key, deadline).await {
            Err(e) if e.kind() != Kind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Writes a whole object.
    ///
    /// # Errors
    /// If the store did not take it in time. An earlier attempt may have stored it, whole.
    pub(crate) async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.refuse_read_only()?;
        let path = self.key(key);
        let limit = UPLOAD_TIME + upload_time(body.len());
        let attempt = || async {
            let put = self.server.store.put(&path, body.clone().into());
            let put = timeout(limit, put).await.map_err(|_| self.stalled())?;
            put.map(drop).map_err(|e| self.failed(e))
        };
        let deadline = Instant::now() + WRITE_DEADLINE;
        self.persist(key, deadline, attempt).await
    }

    /// Writes an object that nobody may replace, unless there is one. A store without conditional
    /// writes, or that does not reply within `limit`, gets a plain write.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub(crate) async fn put_once(&self, key: &str, body: Bytes, limit: Duration) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = self.key(key);
        let put = self.server.store.put_opts(&path, body.clone().into(), options);
        match timeout(limit, put).await {
            Ok(Ok(_) | Err(object_store::Error::AlreadyExists { .. })) => Ok(()),
            _ => self.put(key, body).await,
        }
    }

    /// Returns the length of an object, and its write time in milliseconds since 1970.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn age(&self, key: &str, deadline: Instant) -> Result<(u64, u64)> {
        let path = self.key(key);
        let object = self.persist(path.as_ref(), deadline, || self.head(&path)).await?;
        let modified = u64::try_from(object.last_modified.timestamp_millis());
        Ok((object.size, modified.unwrap_or_default()))
    }

    /// Returns the length of an object; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Client::get`], except that a missing object is no error.
    pub(crate) async fn length(&self, key: &str, deadline: Instant) -> Result<Option<u64>> {
        let path = self.key(key);
        match self.persist(key, deadline, || self.ask_length(&path)).await {
            Ok(size) => Ok(Some(size)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Requests the length of an object once.
    pub(crate) async fn ask_length(&self, path: &Key) -> Result<u64> {
        Ok(self.head(path).await?.size)
    }

    async fn head(&self, path: &Key) -> Result<ObjectMeta> {
        let head = timeout(FIRST_BYTE, self.server.store.head(path)).await;
        head.map_err(|_| self.stalled())?.map_err(|e| self.failed(e))
    }

    /// Removes an object; one that is gone counts as removed.
    ///
    /// # Errors
    /// If it may still exist.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        self.refuse_read_only()?;
        let path = self.key(key);
        let attempt = || async {
            let gone = timeout(UPLOAD_TIME, self.server.store.delete(&path)).await;
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
    /// If the listing fails for good; [`Kind::Unsupported`] if the store cannot list.
    pub(crate) async fn list(&self, prefix: &str, each: &mut dyn FnMut(&str, u64)) -> Result<()> {
        let prefix = self.key(prefix);
        if self.server.pages.is_none() {
            let attempt = || async {
                let listing = self.server.store.list(Some(&prefix));
                listing.try_collect::<Vec<_>>().await.map_err(|e| self.failed(e))
            };
            let deadline = Instant::now() + WRITE_DEADLINE;
            let objects = self.persist(prefix.as_ref(), deadline, attempt).await?;
            objects.iter().for_each(|object| each(object.location.as_ref(), object.size));
            return Ok(());
        }
        let prefix = format!("{prefix}/");
        let mut token = None;
        loop {
            let page = self.page(&prefix, token).await?;
            page.objects.iter().for_each(|(key, object)| each(key, object.size));
            token = page.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns a page of the objects whose keys begin with `prefix`, which is taken as it is.
    ///
    /// # Errors
    /// As [`Client::list`].
    pub(crate) async fn page(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let Some(pages) = &self.server.pages else {
            return Err(Error::new(Kind::Unsupported, format!("{} cannot be listed", self.name)));
        };
        let attempt = || async {
            let page_token = token.clone();
            let options = PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
            let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
            let listed = timeout(LIST_TIME, pages.list_paginated(prefix, options)).await;
            listed.map_err(|_| self.stalled())?.map_err(|e| self.failed(e))
        };
        let listed = self.persist(prefix, Instant::now() + WRITE_DEADLINE, attempt).await?;
        let objects = listed.result.objects.into_iter();
        let objects = objects.map(|object| (answers::key_of(&object.location), object)).collect();
        Ok(Page { objects, next: listed.page_token })
    }
}

impl From<ObjectMeta> for Seen {
    fn from(object: ObjectMeta) -> Self {
        let (etag, version) =
            (object.e_tag.unwrap_or_default(), object.version.unwrap_or_default());
        // A bucket that once kept no versions names those of that time "null".
        let version = if version == "null" { String::new() } else { version };
        // Azure's listings leave out the quotes that its headers have and its requests need (RFC
        // 9110, 8.8.3).
        let bare = !etag.is_empty() && !etag.ends_with('"');
        let etag = if bare { format!("\"{etag}\"") } else { etag };
        Self { size_bytes: object.size, etag, version, ..Self::default() }
    }
}

/// A page of a listing.
pub(crate) struct Page {
    /// The objects, each with its key as it is in the store, which its path may not be.
    pub(crate) objects: Vec<(String, ObjectMeta)>,
    /// The token that requests the next page; `None` for the last page.
    pub(crate) next: Option<String>,
}

pub(crate) fn upload_time(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64 / UPLOAD_BYTES_PER_SECOND)
}
