//! External files in clouds and on web servers: their metadata, and their bytes, never other bytes.
//!
//! Each request names the file that it wants (version, tag). Each response is compared with what
//! was recorded, since not every server heeds the request.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::stream::iter;
use futures_util::{StreamExt, TryStreamExt, pin_mut};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta};
use reqwest::header::{CONTENT_LENGTH, IF_MATCH, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::time::Instant;

use super::changed::changed;
use super::frame;
use crate::content::cache::BLOCK_BYTES;
use crate::content::received::{Fetched, Seen};
use crate::content::remote::Client;
use crate::content::remote::client::WRITE_DEADLINE;
use crate::content::remote::persist::{collect, persist};
use crate::content::remote::web::{self, part_of_body, request, seen_by, send};
use crate::content::threads::Threads;
use crate::content::url::StoreUrl;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::external::{External, ExternalUrl, Scheme};
use crate::model::object::{PACK_ID_BYTES, PackId};

/// The number of buckets with a client at a time.
const BUCKETS: usize = 64;
/// The number of objects of a listing whose versions are requested at a time.
const LOOKS_AT_ONCE: usize = 32;
/// The context from which the pack that stands for an external file gets its id.
const PACK_CONTEXT: &str = "artifactfs 2026-11 external";

/// The servers of external files to which this process has clients.
pub(crate) struct Origins {
    threads: Arc<Threads>,
    buckets: Mutex<HashMap<(Scheme, String), Arc<Client>>>,
    web: OnceLock<reqwest::Client>,
}

/// An external file that is read like a pack.
pub(crate) struct Origin {
    threads: Arc<Threads>,
    digest: Digest,
    external: Arc<External>,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Cloud(Arc<Client>, Key),
    Web(reqwest::Client),
}

impl Origins {
    /// Starts the threads that make the requests. No client is made before it is needed.
    ///
    /// # Errors
    /// If the system cannot start them.
    pub(crate) fn start() -> Result<Self> {
        Ok(Self::on(Threads::start()?))
    }

    /// Returns a value whose requests are made by the threads of a store's client.
    pub(crate) fn beside(client: &Client) -> Self {
        Self::on(Arc::clone(client.threads()))
    }

    fn on(threads: Arc<Threads>) -> Self {
        Self { threads, buckets: Mutex::default(), web: OnceLock::new() }
    }

    /// Returns the threads that make the requests.
    pub(crate) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    /// Returns the origin of the file that `external`, an object named `digest`, describes.
    ///
    /// # Errors
    /// If no client of its server can be made.
    pub(crate) fn origin(&self, digest: Digest, external: &Arc<External>) -> Result<Origin> {
        let place = self.resolve(&external.url)?;
        Ok(Origin {
            threads: Arc::clone(&self.threads),
            digest,
            external: Arc::clone(external),
            place,
        })
    }

    fn resolve(&self, url: &ExternalUrl) -> Result<Place> {
        match url.bucket_and_key() {
            Some((bucket, key)) => {
                let key = Key::parse(key).map_err(|e| {
                    Error::new(Kind::Usage, format!("the path of {url} is not a valid key"))
                        .because(e)
                })?;
                Ok(Place::Cloud(self.bucket(url.scheme(), bucket)?, key))
            }
            None if url.scheme() == Scheme::Web => Ok(Place::Web(self.web()?)),
            None => Err(Error::new(Kind::Unsupported, format!("{url} is not on a server"))),
        }
    }

    fn bucket(&self, scheme: Scheme, bucket: &str) -> Result<Arc<Client>> {
        let name = match scheme {
            Scheme::S3 => "s3",
            Scheme::Google => "gs",
            Scheme::Azure => "az",
            Scheme::File | Scheme::Web => {
                return Err(Error::new(Kind::Unsupported, "only clouds have buckets"));
            }
        };
        let key = (scheme, bucket.to_owned());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = buckets.get(&key) {
            return Ok(Arc::clone(client));
        }
        let url: StoreUrl = format!("{name}://{bucket}").parse()?;
        let client = Arc::new(Client::open(&url, &[], Arc::clone(&self.threads))?);
        if buckets.len() >= BUCKETS {
            buckets.clear();
        }
        buckets.insert(key, Arc::clone(&client));
        Ok(client)
    }

    fn web(&self) -> Result<reqwest::Client> {
        if let Some(client) = self.web.get() {
            return Ok(client.clone());
        }
        // Another provider may have been chosen already; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = web::client()?;
        Ok(self.web.get_or_init(|| client).clone())
    }

    /// Returns the metadata of the file at `url`; `None` if there is none.
    ///
    /// # Errors
    /// If its server does not return them.
    pub(crate) fn look(&self, url: &ExternalUrl, deadline: Instant) -> Result<Option<Seen>> {
        let place = self.resolve(url)?;
        // A file that is sent compressed has another length and other bytes each time.
        let attempt = || async {
            let seen = place.look_once(url, "").await?;
            if seen.encoding.is_empty() {
                Ok(seen)
            } else {
                Err(web::compressed(url, &seen.encoding))
            }
        };
        let looked = self.threads.wait(persist(
            &self.threads,
            url.as_str(),
            url.as_str(),
            deadline,
            attempt,
        ));
        match looked {
            Ok(seen) => Ok(Some(seen)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Calls `each` with every object below `url` in a cloud: its key below that, as it is, and its
    /// metadata. In a bucket that keeps versions, that of each object is requested.
    ///
    /// # Errors
    /// If the listing fails for good, and the errors of `each`.
    pub(crate) fn list(
        &self,
        url: &ExternalUrl,
        each: &mut dyn FnMut(&str, Seen) -> Result<()>,
    ) -> Result<()> {
        let Some((bucket, key)) = url.bucket_and_key() else {
            return Err(Error::new(Kind::Unsupported, format!("{url} cannot be listed"))
                .hint("a web server lists nothing: give the URL of each file"));
        };
        let client = self.bucket(url.scheme(), bucket)?;
        let key = key.trim_end_matches('/');
        let prefix = if key.is_empty() { String::new() } else { format!("{key}/") };
        self.threads.wait(list(&client, &prefix, each))
    }
}

async fn list(
    client: &Client,
    prefix: &str,
    each: &mut dyn FnMut(&str, Seen) -> Result<()>,
) -> Result<()> {
    // Not every key can be requested: some cannot be paths.
    let is_plain = |key: &str, object: &ObjectMeta| object.location.as_ref() == key;
    let (mut versioned, mut token) = (None, None);
    loop {
        let page = client.page(prefix, token).await?;
        // The first object shows whether versions are kept.
        let first = page.objects.iter().find(|(key, object)| is_plain(key, object));
        if let (None, Some((_, object))) = (versioned, first) {
            let looked = head(client, object).await?;
            versioned = looked.map(|object| !Seen::from(object).version.is_empty());
        }
        let looks = versioned == Some(true);
        let looked = iter(page.objects).map(|(key, object)| async move {
            let asks = looks && object.version.is_none() && is_plain(&key, &object);
            let object = if asks { head(client, &object).await? } else { Some(object) };
            Ok::<_, Error>((key, object))
        });
        let looked = looked.buffered(LOOKS_AT_ONCE);
        pin_mut!(looked);
        while let Some((key, object)) = looked.try_next().await? {
            let below = key.strip_prefix(prefix).unwrap_or(&key);
            // The prefix itself may be an object of no bytes, made by a tool that shows folders.
            if let Some(object) = object.filter(|_| !below.is_empty()) {
                each(below, Seen::from(object))?;
            }
        }
        token = page.next;
        if token.is_none() {
            return Ok(());
        }
    }
}

/// Requests the metadata of a listed object; `None` if it was removed meanwhile.
async fn head(client: &Client, object: &ObjectMeta) -> Result<Option<ObjectMeta>> {
    let key = &object.location;
    let attempt = || async {
        let options = GetOptions { head: true, ..GetOptions::default() };
        Ok(client.ask(key, options).await?.1)
    };
    match client.persist(key.as_ref(), Instant::now() + WRITE_DEADLINE, attempt).await {
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

impl Origin {
    /// Returns the id of the pack that stands for the file.
    pub(crate) fn pack(&self) -> PackId {
        let hash = blake3::derive_key(PACK_CONTEXT, self.digest.as_bytes());
        let mut id = [0; PACK_ID_BYTES];
        id.copy_from_slice(&hash[..PACK_ID_BYTES]);
        PackId(id)
    }

    /// Returns the length of that pack.
    pub(crate) fn pack_bytes(&self) -> u64 {
        frame::pack_bytes(self.external.size_bytes)
    }

    /// Fetches bytes `place` of that pack. The request is repeated until `deadline`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the file is not what was recorded, which is not repeated;
    /// [`Kind::TimedOut`] and [`Kind::Unavailable`] if its server does not respond.
    pub(crate) async fn fetch(&self, place: Range<u64>, deadline: Instant) -> Result<Fetched> {
        let (size, url) = (self.external.size_bytes, self.external.url.as_str());
        let wanted = frame::source_of(&place, size);
        let attempt = || self.fetch_once(wanted.clone());
        let fetched = persist(&self.threads, url, url, deadline, attempt).await;
        let bytes = fetched.map_err(|e| self.reader_error(e))?;
        let first = place.start / BLOCK_BYTES;
        let bytes = Bytes::from(frame::frame(&self.digest, first, &bytes));
        Ok(Fetched { bytes, object_bytes: self.pack_bytes() })
    }

    /// Checks that the file is still what was recorded, by the metadata of its server.
    ///
    /// # Errors
    /// As [`Origin::fetch`].
    pub(crate) async fn look(&self, deadline: Instant) -> Result<()> {
        let url = &self.external.url;
        let attempt = || async {
            let seen = self.place.look_once(url, &self.external.version).await;
            self.compare(&seen.map_err(|e| self.gone(e))?)
        };
        let looked = persist(&self.threads, url.as_str(), url.as_str(), deadline, attempt).await;
        looked.map_err(|e| self.reader_error(e))
    }

    /// Maps an error to the kind a reader sees. A reader sees a file that cannot be read now, never
    /// one that it may not read.
    fn reader_error(&self, error: Error) -> Error {
        let url = &self.external.url;
        match error.kind() {
            Kind::Corrupt => error,
            Kind::Denied => Error::new(Kind::Unavailable, format!("{url} may not be read"))
                .because(error)
                .hint("the credentials are missing, wrong, or have ended"),
            Kind::Usage | Kind::Conflict => {
                Error::new(Kind::Unavailable, format!("cannot read {url}")).because(error)
            }
            kind => Error::new(kind, format!("cannot read {url}")).because(error),
        }
    }

    /// Maps the error of a file that does not exist any more: it has changed.
    fn gone(&self, error: Error) -> Error {
        match error.kind() {
            Kind::NotFound => changed(&self.external.url, "it is not there any more"),
            Kind::Conflict => {
                changed(&self.external.url, &format!("its tag is no longer {}", self.external.etag))
            }
            _ => error,
        }
    }

    async fn fetch_once(&self, wanted: Range<u64>) -> Result<Bytes> {
        let length = (wanted.end - wanted.start) as usize;
        let name = self.external.url.as_str();
        let fetched: Result<Bytes> = async {
            match &self.place {
                Place::Cloud(client, key) => {
                    let (body, object) = client.ask(key, self.options(&wanted)).await?;
                    self.compare(&Seen::from(object))?;
                    collect(name, body, length, length).await
                }
                Place::Web(client) => {
                    let answer = self.ask_web(client, &wanted).await?;
                    let partial = answer.status() == StatusCode::PARTIAL_CONTENT;
                    let skip = if partial { 0 } else { wanted.start };
                    let body = part_of_body(answer, skip, length as u64, name.to_owned());
                    pin_mut!(body);
                    collect(name, body, length, length).await
                }
            }
        }
        .await;
        match fetched {
            Ok(bytes) if bytes.len() == length => Ok(bytes),
            Ok(_) => Err(Error::new(Kind::Unavailable, format!("{name} ended early"))),
            // A server may refuse a file that is shorter now in many ways: its metadata decide.
            Err(e) if may_be_shorter(e.kind()) => {
                let seen = self.place.look_once(&self.external.url, &self.external.version).await;
                match seen.map_err(|e| self.gone(e)) {
                    Ok(seen) => self.compare(&seen).and(Err(e)),
                    Err(other) if other.kind() == Kind::Corrupt => Err(other),
                    Err(_) => Err(e),
                }
            }
            Err(e) => Err(self.gone(e)),
        }
    }

    fn options(&self, wanted: &Range<u64>) -> GetOptions {
        let External { etag, version, size_bytes, .. } = &*self.external;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // Not every server accepts a range of all of it.
        let range = (*wanted != (0..*size_bytes)).then(|| GetRange::Bounded(wanted.clone()));
        // Weak tags never match here.
        let if_match = some(etag).filter(|etag| !etag.starts_with("W/"));
        GetOptions { range, if_match, version: some(version), ..GetOptions::default() }
    }

    async fn ask_web(&self, client: &reqwest::Client, wanted: &Range<u64>) -> Result<Response> {
        let External { url, etag, .. } = &*self.external;
        let range = format!("bytes={}-{}", wanted.start, wanted.end - 1);
        let mut asked = request(client, Method::GET, url).header(RANGE, range);
        if !etag.is_empty() && !etag.starts_with("W/") {
            asked = asked.header(IF_MATCH, etag);
        }
        let answer = send(asked, url).await?;
        let seen = seen_by(url, answer.status(), answer.headers(), answer.content_length())?;
        self.compare(&seen)?;
        web::refuse_other_part(url, &answer, wanted)?;
        Ok(answer)
    }

    /// Checks that the metadata of a server are those that were recorded.
    fn compare(&self, seen: &Seen) -> Result<()> {
        let External { url, size_bytes, etag, version, modified, .. } = &*self.external;
        let differs = |what: &str, recorded: &str, found: &str| {
            let found = if found.is_empty() { "none" } else { found };
            Err(changed(url, &format!("{what} {recorded} was recorded, and {found} is found")))
        };
        let strong = |etag: &str| etag.trim_start_matches("W/").to_owned();
        if *size_bytes != seen.size_bytes {
            return differs("size", &size_bytes.to_string(), &seen.size_bytes.to_string());
        }
        if !etag.is_empty() && strong(etag) != strong(&seen.etag) {
            return differs("tag", etag, &seen.etag);
        }
        if !version.is_empty() && !seen.version.is_empty() && *version != seen.version {
            return differs("version", version, &seen.version);
        }
        if etag.is_empty() && !modified.is_empty() && *modified != seen.modified {
            return differs("time of change", modified, &seen.modified);
        }
        Ok(())
    }
}

fn may_be_shorter(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable | Kind::Usage | Kind::Unsupported)
}

impl Place {
    /// Requests the metadata of a file once; those of `version`, if that is not empty.
    async fn look_once(&self, url: &ExternalUrl, version: &str) -> Result<Seen> {
        match self {
            Self::Cloud(client, key) => {
                let version = (!version.is_empty()).then(|| version.to_owned());
                let options = GetOptions { head: true, version, ..GetOptions::default() };
                Ok(client.ask(key, options).await?.1.into())
            }
            Self::Web(client) => {
                let answer = send(request(client, Method::HEAD, url), url).await?;
                let length = answer.headers().get(CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                if answer.status().is_success() && length.is_some() {
                    return seen_by(url, answer.status(), answer.headers(), length);
                }
                // Some servers send files and do not support HEAD.
                let asked = request(client, Method::GET, url).header(RANGE, "bytes=0-0");
                let answer = send(asked, url).await?;
                // An empty file has no first byte.
                if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                    let answer = send(request(client, Method::GET, url), url).await?;
                    let length = answer.content_length();
                    return seen_by(url, answer.status(), answer.headers(), length);
                }
                seen_by(url, answer.status(), answer.headers(), answer.content_length())
            }
        }
    }
}
