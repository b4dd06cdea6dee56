//! The store of a served repository. Its server grants requests for packs straight to the bucket,
//! by URLs that it signs; everything else goes through the server.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, Method, Request, StatusCode};
use lru::LruCache;
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use serde::{Deserialize, Serialize};

/// The number of packs whose grants are remembered.
const GRANTS: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is above 0");
/// The share of its life for which a grant is used, in percent: clocks and requests take time.
const USED_PERCENT: u32 = 80;
/// The time for which it is believed that the server grants nothing.
const NOTHING_FOR: Duration = Duration::from_secs(600);
/// The name of the store in errors of `object_store`.
const NAME: &str = "served";

/// A request to the server for grants.
#[derive(Debug, Serialize)]
struct Wanted<'a> {
    write: bool,
    keys: [&'a str; 1],
}

/// The grants of a server.
#[derive(Debug, Deserialize)]
struct Granted {
    /// One for each key; `None` if the bytes go through the server.
    grants: Vec<Option<Grant>>,
    /// The time for which they are accepted.
    seconds: u32,
}

/// A signed URL and the headers that belong to it.
#[derive(Debug, Clone, Deserialize)]
struct Grant {
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

/// The last reply about the grant of a pack, and the time until which it holds; `None`: no reply
/// has come yet.
type Known = Option<(Instant, Option<Grant>)>;

/// The store of a served repository.
pub(super) struct GrantedStore {
    /// The store through the server.
    through: Arc<dyn ObjectStore>,
    /// A client with the caller's key, for the server.
    asking: HttpClient,
    /// A client without it, for the bucket.
    plain: HttpClient,
    /// The URL that grants are requested from.
    url: String,
    /// Grants to read, by pack. The lock of one is held while it is requested.
    known: Mutex<LruCache<String, Arc<tokio::sync::Mutex<Known>>>>,
}

impl fmt::Debug for GrantedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

impl fmt::Display for GrantedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: NAME, source: error.into() }
}

impl GrantedStore {
    /// Returns the store whose server answers below `api`. The client `asking` sends the caller's
    /// key, and `plain` does not.
    pub(super) fn new(
        through: Arc<dyn ObjectStore>,
        api: &str,
        asking: HttpClient,
        plain: HttpClient,
    ) -> Self {
        let url = format!("{api}/store/grants");
        Self { through, asking, plain, url, known: Mutex::new(LruCache::new(GRANTS)) }
    }

    /// Returns the grant to read or write a pack; `None` if its bytes go through the server.
    async fn grant(&self, key: &str, write: bool) -> Result<Option<Grant>> {
        // An index is small, and the server keeps it in step with its pack.
        if !key.ends_with(".pack") {
            return Ok(None);
        }
        if write {
            return Ok(self.request(key, true).await?.0);
        }
        let known = self.known(key);
        let mut known = known.lock().await;
        if let Some((_, grant)) = known.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return Ok(grant.clone());
        }
        let (grant, seconds) = self.request(key, false).await?;
        let life = match &grant {
            Some(_) => Duration::from_secs(seconds.into()) * USED_PERCENT / 100,
            None => NOTHING_FOR,
        };
        *known = Some((Instant::now() + life, grant.clone()));
        Ok(grant)
    }

    /// Returns the slot that holds the last reply about the grant of a pack.
    fn known(&self, key: &str) -> Arc<tokio::sync::Mutex<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.get_or_insert(key.to_owned(), Arc::default))
    }

    /// Requests a grant. Returns it with the seconds for which it is accepted.
    async fn request(&self, key: &str, write: bool) -> Result<(Option<Grant>, u32)> {
        let wanted = serde_json::to_vec(&Wanted { write, keys: [key] }).map_err(failed)?;
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(HttpRequestBody::from(wanted))
            .map_err(failed)?;
        let reply = self.asking.execute(request).await.map_err(failed)?;
        if !reply.status().is_success() {
            return Err(failed(format!("grants: {}", reply.status())));
        }
        let reply = reply.into_body().bytes().await.map_err(failed)?;
        let Granted { grants, seconds } = serde_json::from_slice(&reply).map_err(failed)?;
        Ok((grants.into_iter().next().flatten(), seconds))
    }

    async fn get(
        &self,
        location: &Path,
        grant: &Grant,
        range: Option<GetRange>,
    ) -> Result<GetResult> {
        let mut request = Request::get(&grant.url);
        if let Some(range) = &range {
            request = request.header(RANGE, range.to_string());
        }
        let request =
            with_headers(request, grant).body(HttpRequestBody::empty()).map_err(failed)?;
        let reply = self.plain.execute(request).await.map_err(failed)?;
        if !reply.status().is_success() {
            // The grant may have ended before its time. The next attempt requests another.
            *self.known(location.as_ref()).lock().await = None;
            return Err(failed(format!("{} of a granted request", reply.status())));
        }
        let (range, size) = part_of(reply.status(), reply.headers())
            .ok_or_else(|| failed("Got invalid range of a granted request"))?;
        let body = reply.into_body().bytes_stream().map(|part| part.map_err(failed));
        Ok(GetResult {
            payload: GetResultPayload::Stream(body.boxed()),
            meta: ObjectMeta {
                location: location.clone(),
                last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                size,
                e_tag: None,
                version: None,
            },
            range,
            attributes: Attributes::default(),
            extensions: http::Extensions::default(),
        })
    }

    async fn put(&self, grant: &Grant, payload: PutPayload) -> Result<PutResult> {
        let request = Request::put(&grant.url).header(CONTENT_LENGTH, payload.content_length());
        let request =
            with_headers(request, grant).body(HttpRequestBody::from(payload)).map_err(failed)?;
        let reply = self.plain.execute(request).await.map_err(failed)?;
        match reply.status().is_success() {
            true => Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: http::Extensions::default(),
            }),
            false => Err(failed(format!("{} of a granted request", reply.status()))),
        }
    }
}

fn with_headers(request: http::request::Builder, grant: &Grant) -> http::request::Builder {
    grant.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// Returns the part of an object that a reply holds, and the length of the whole.
fn part_of(status: StatusCode, headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    if status != StatusCode::PARTIAL_CONTENT {
        let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        return Some((0..length, length));
    }
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, size) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?, size.parse().ok()?))
}

#[async_trait]
impl ObjectStore for GrantedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        match self.grant(location.as_ref(), true).await? {
            Some(grant) => self.put(&grant, payload).await,
            None => self.through.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.through.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let grant = match options.head {
            true => None,
            false => self.grant(location.as_ref(), false).await?,
        };
        match grant {
            Some(grant) => self.get(location, &grant, options.range).await,
            None => self.through.get_opts(location, options).await,
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.through.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.through.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.through.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.through.copy_opts(from, to, options).await
    }
}

/// Returns the headers that a signed URL of this cloud needs.
pub(super) fn needed_headers(method: &Method, azure: bool) -> Vec<(String, String)> {
    // learn.microsoft.com, "Put Blob".
    let needed = azure && *method == Method::PUT;
    needed.then(|| ("x-ms-blob-type".to_owned(), "BlockBlob".to_owned())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_which_part_it_holds() {
        let headers = |pairs: &[(http::HeaderName, &str)]| {
            HeaderMap::from_iter(pairs.iter().map(|(k, v)| (k.clone(), v.parse().unwrap())))
        };
        let whole = headers(&[(CONTENT_LENGTH, "12")]);
        assert_eq!(part_of(StatusCode::OK, &whole), Some((0..12, 12)));
        let part = headers(&[(CONTENT_LENGTH, "4"), (CONTENT_RANGE, "bytes 2-5/12")]);
        assert_eq!(part_of(StatusCode::PARTIAL_CONTENT, &part), Some((2..6, 12)));
        for text in ["bytes */12", "bytes 2-5/*", "2-5/12", "bytes 2-18446744073709551615/12"] {
            let odd = headers(&[(CONTENT_RANGE, text)]);
            assert_eq!(part_of(StatusCode::PARTIAL_CONTENT, &odd), None, "{text}");
        }
    }
}
