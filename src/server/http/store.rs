//! The packs of a repository: streamed out of its store in ranges, and taken into it.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use futures_util::stream::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::app::{App, Refusal, Served, audit, refuse, refuse_error};
use super::range::{Unsent, read_piece, send};
use super::rights::UserRights;
use crate::content::pack::{PACK_MAX_BYTES, decode_index, encode_index, pack_key};
use crate::content::store::SignedUrl;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Principal};
use crate::model::object::PackId;
use crate::registry::guard;

/// The pieces of a request that wait to be written.
const PIECES_WAITING: usize = 4;
/// The time in which the next bytes of a body must arrive.
const PROGRESS_TIME: Duration = Duration::from_secs(30);
/// The maximum length of an index: that of a pack of the smallest objects.
const INDEX_MAX_BYTES: usize = 64 << 20;

/// The maximum length of a request for grants, and the maximum number of its keys.
const GRANTS_MAX_BYTES: usize = 1 << 20;
const GRANTS_MAX: usize = 1_000;
/// The time for which a signed URL is accepted. A pack that is not granted any more can be read by
/// old grants for so long.
const GRANT_LIFE: Duration = Duration::from_secs(600);

/// The time after which credentials that could not sign are tried again.
const SIGN_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// An object of the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Pack,
    Index,
    /// A note of an upload in parts, which a server never has.
    Note,
}

/// Returns the object that a path names; `None` for anything but the three files of a pack.
fn part_of(shard: &str, name: &str) -> Option<(PackId, Part)> {
    let (id, extension) = name.rsplit_once('.')?;
    let id: PackId = id.parse().ok()?;
    let part = match extension {
        "pack" => Part::Pack,
        "idx" => Part::Index,
        "upload" => Part::Note,
        _ => return None,
    };
    (pack_key(id, extension) == format!("packs/{shard}/{name}")).then_some((id, part))
}

/// Handles a request for an object of the store.
pub(super) async fn object(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path((team, shard, name)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let (served, principal) = app.enter(&team, &headers, from).await?;
    let (id, part) = part_of(&shard, &name)
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "the store has no such object"))?;
    let need = match method {
        Method::GET | Method::HEAD => Need::Read,
        Method::PUT | Method::DELETE => Need::Write,
        _ => return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "the store takes no such request")),
    };
    let permit = app.admit()?;
    let caller = Caller { served: Arc::clone(&served), principal, from };
    caller.allow(vec![id], method.clone(), need).await?;
    let reply = match (method, part) {
        (Method::GET, Part::Pack) => return read_pack(served, id, &headers, permit).await,
        (Method::HEAD, Part::Pack) => length_of(served, id).await?,
        (Method::GET | Method::HEAD, Part::Index) => read_index(served, id).await?,
        (Method::GET | Method::HEAD, Part::Note) => {
            return Err(refuse(StatusCode::NOT_FOUND, "the store has no such object"));
        }
        (Method::PUT, Part::Pack) => write_pack(served, id, &headers, body).await?,
        (Method::PUT, Part::Index) => {
            let (bytes, _room) = app.body(&headers, body, INDEX_MAX_BYTES).await?;
            write_index(served, id, bytes).await?
        }
        (Method::DELETE, Part::Pack) => remove_pack(served, id).await?,
        // An index goes with its pack.
        (Method::DELETE, _) => empty(StatusCode::NO_CONTENT),
        _ => return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "the store takes no such request")),
    };
    drop(permit);
    Ok(reply)
}

/// The user who makes a request.
struct Caller {
    served: Arc<Served>,
    principal: Principal,
    from: SocketAddr,
}

impl Caller {
    /// Checks that the caller has a right in the projects of packs.
    ///
    /// # Errors
    /// 404 for a pack of a project that the caller may not read, 403 without the right to write.
    async fn allow(self, ids: Vec<PackId>, method: Method, need: Need) -> Result<(), Refusal> {
        let checked = spawn_blocking(move || {
            let Self { served, principal, from } = &self;
            let rights = UserRights::new(served, principal);
            let checked = ids.iter().try_for_each(|id| guard::check_pack(&rights, *id, need));
            if let Err(e) = &checked {
                let call = format!("store {method}");
                audit(&served.team.name, &principal.user, *from, &call, "", Some(e.kind()));
            }
            checked
        });
        match checked.await {
            Ok(checked) => checked.map_err(|e| refuse_error(&e)),
            Err(_) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the server ends")),
        }
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Runs work that may wait for a disk or a store.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(|e| refuse_error(&e)),
        Err(_) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the request could not be finished")),
    }
}

/// Returns the length of a pack: the registry knows it, unless the pack is being written.
fn pack_length(served: &Served, id: PackId) -> Result<u64> {
    let repository = &served.team.repository;
    match repository.registry.pack(id)? {
        Some(pack) if pack.length_bytes > 0 => Ok(pack.length_bytes),
        _ => repository.store.pack_length(id),
    }
}

async fn length_of(served: Arc<Served>, id: PackId) -> Result<Response<Body>, Refusal> {
    let length = blocking(move || pack_length(&served, id)).await?;
    let mut response = empty(StatusCode::OK);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// Sends a range of a pack.
async fn read_pack(
    served: Arc<Served>,
    id: PackId,
    headers: &HeaderMap,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Body>, Refusal> {
    let asked = Arc::clone(&served);
    let length = blocking(move || pack_length(&asked, id)).await?;
    let read = move |range: Range<u64>| {
        let served = Arc::clone(&served);
        read_piece(move || {
            let length = (range.end - range.start) as usize;
            served.team.repository.store.read_raw(id, range.start, length)
        })
    };
    send(headers, length, permit, read).await.map_err(|unsent| match unsent {
        Unsent::Range => refuse(StatusCode::RANGE_NOT_SATISFIABLE, "the pack is shorter"),
        Unsent::Failed(e) => refuse_error(&e),
    })
}

async fn read_index(served: Arc<Served>, id: PackId) -> Result<Response<Body>, Refusal> {
    let read = move || served.team.repository.store.read_index(id);
    let entries = blocking(read).await?;
    Ok(Response::new(Body::from(encode_index(id, &entries))))
}

/// A pack that is being received; no other request may receive it meanwhile.
struct Receiving {
    served: Arc<Served>,
    id: PackId,
}

impl Receiving {
    fn begin(served: &Arc<Served>, id: PackId) -> Result<Self, Refusal> {
        let mut receiving = served.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        match receiving.insert(id) {
            true => Ok(Self { served: Arc::clone(served), id }),
            false => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the pack is being received")),
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let mut receiving = self.served.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        receiving.remove(&self.id);
    }
}

/// Refuses to change a pack that was not announced under a lease, or that has registered objects.
fn refuse_unannounced(served: &Served, id: PackId) -> Result<()> {
    match served.team.repository.registry.pack(id)? {
        Some(pack) if pack.leased && pack.live_objects == 0 => Ok(()),
        _ => Err(Error::new(Kind::Denied, format!("pack {id} is not one that is being written"))),
    }
}

/// Takes the body of a pack, piece by piece, into the store.
async fn write_pack(
    served: Arc<Served>,
    id: PackId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length: u64 = match length {
        Some(length) if length <= PACK_MAX_BYTES => length,
        Some(_) => return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the pack is too long")),
        None => return Err(refuse(StatusCode::LENGTH_REQUIRED, "the length is missing")),
    };
    let receiving = Receiving::begin(&served, id)?;
    let (pieces, mut arrived) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let writing = spawn_blocking(move || {
        let served = &receiving.served;
        refuse_unannounced(served, id)?;
        let store = &served.team.repository.store;
        let mut writer = match store.create(id) {
            // An earlier attempt stored it, and its reply was lost.
            Err(e) if e.kind() == Kind::Conflict => {
                store.remove(id)?;
                store.create(id)?
            }
            writer => writer?,
        };
        while let Some(piece) = arrived.blocking_recv() {
            writer.append(&piece)?;
        }
        if writer.length() != length {
            return Err(Error::new(Kind::Unavailable, format!("pack {id} arrived in part")));
        }
        writer.finish()
    });
    let mut stream = body.into_data_stream();
    while let Ok(Some(Ok(piece))) = timeout(PROGRESS_TIME, stream.next()).await {
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    drop(pieces);
    match writing.await {
        Ok(Ok(_)) => Ok(empty(StatusCode::CREATED)),
        Ok(Err(e)) => Err(refuse_error(&e)),
        Err(_) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the pack could not be stored")),
    }
}

async fn write_index(
    served: Arc<Served>,
    id: PackId,
    bytes: Bytes,
) -> Result<Response<Body>, Refusal> {
    let receiving = Receiving::begin(&served, id)?;
    blocking(move || {
        let served = &receiving.served;
        refuse_unannounced(served, id)?;
        served.team.repository.store.write_index(id, &decode_index(id, &bytes)?)
    })
    .await?;
    Ok(empty(StatusCode::CREATED))
}

/// Removes a pack that has no registered objects.
async fn remove_pack(served: Arc<Served>, id: PackId) -> Result<Response<Body>, Refusal> {
    let receiving = Receiving::begin(&served, id)?;
    blocking(move || {
        let repository = &receiving.served.team.repository;
        match repository.registry.pack(id)? {
            Some(pack) if pack.live_objects > 0 => {
                Err(Error::new(Kind::Denied, format!("pack {id} holds objects")))
            }
            _ => repository.store.remove(id),
        }
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// A request for grants.
#[derive(Deserialize)]
pub(super) struct Wanted {
    /// True to write the packs, false to read them.
    write: bool,
    /// The keys of the packs.
    keys: Vec<String>,
}

/// Grants requests for packs straight to the bucket, if it signs URLs and the server lets it.
pub(super) async fn grants(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path(team): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let (served, principal) = app.enter(&team, &headers, from).await?;
    let (body, _room) = app.body(&headers, body, GRANTS_MAX_BYTES).await?;
    let wanted = serde_json::from_slice::<Wanted>(&body).ok();
    let wanted = wanted.filter(|wanted| wanted.keys.len() <= GRANTS_MAX);
    let Some(Wanted { write, keys }) = wanted else {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "write {\"write\": false, \"keys\": [\"packs/…\"]}",
        ));
    };
    let (method, need) = match write {
        true => (Method::PUT, Need::Write),
        false => (Method::GET, Need::Read),
    };
    let ids: Option<Vec<PackId>> = keys.iter().map(|key| pack_of(key)).collect();
    let ids = ids.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "the store has no such object"))?;
    let permit = app.admit()?;
    let caller = Caller { served: Arc::clone(&served), principal, from };
    caller.allow(ids.clone(), method, need).await?;
    let signs = !app.proxy_bytes;
    let grants = blocking(move || {
        let signed =
            ids.into_iter().map(|id| if signs { sign(&served, id, write) } else { Ok(None) });
        signed.collect::<Result<Vec<_>>>()
    })
    .await?;
    drop(permit);
    let text = json!({ "grants": grants, "seconds": GRANT_LIFE.as_secs() }).to_string();
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Returns the pack that a key names.
fn pack_of(key: &str) -> Option<PackId> {
    let (shard, name) = key.strip_prefix("packs/")?.split_once('/')?;
    part_of(shard, name).filter(|(_, part)| *part == Part::Pack).map(|(id, _)| id)
}

/// Signs a URL for a pack. Only a pack that is being written may be written; credentials that
/// cannot sign let the bytes go through the server.
fn sign(served: &Served, id: PackId, write: bool) -> Result<Option<SignedUrl>> {
    if write {
        refuse_unannounced(served, id)?;
    }
    let failed = || served.signing_failed.lock().unwrap_or_else(PoisonError::into_inner);
    if failed().is_some_and(|at| at.elapsed() < SIGN_AGAIN_AFTER) {
        return Ok(None);
    }
    served.team.repository.store.sign(id, write, GRANT_LIFE).or_else(|e| {
        tracing::warn!("the bytes of packs go through this server: {e}");
        *failed() = Some(Instant::now());
        Ok(None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_a_pack_have_a_path() {
        let id = PackId([0xab; 16]);
        let key = pack_key(id, "pack");
        let (shard, name) = key.strip_prefix("packs/").unwrap().split_once('/').unwrap();
        assert!(part_of(shard, name) == Some((id, Part::Pack)));
        for (shard, name) in [("..", name), ("00", name), (shard, "x.pack"), (shard, "repository")]
        {
            assert!(part_of(shard, name).is_none());
        }
    }
}
