//! REST, for people and programs: names, versions, runs and files, to be read. The documents are
//! those of the command line's `--json`; `openapi.json` describes them.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use super::app::{App, Refusal, Served, refuse};
use super::range::{Unsent, read_piece, send};
use super::rights::UserRights;
use crate::content::directory::{each_entry, resolve};
use crate::error::{Error, Kind, Result};
use crate::model::name::{ArtifactName, EntryName, ProjectName, RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::tree::{Content, Target};
use crate::ops::documents;
use crate::ops::served::Guarded;
use crate::registry::Detail;
use crate::registry::prelude::*;
use crate::server::status;

/// The number of items of a page if none is requested, and the maximum.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;
/// The description of this interface.
const OPENAPI: &str = include_str!("openapi.json");

type Reply = Result<Response<Body>, Refusal>;
type Parts<const N: usize> = Path<[String; N]>;

/// A part of a listing.
#[derive(Deserialize)]
struct Part {
    after: Option<String>,
    limit: Option<u32>,
    path: Option<String>,
}

impl Part {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }

    /// Parses where the page begins.
    fn after<T: std::str::FromStr>(&self) -> Result<Option<T>>
    where
        Error: From<T::Err>,
    {
        Ok(self.after.as_deref().map(str::parse).transpose()?)
    }
}

/// Returns the routes below a team.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/projects", get(projects))
        .route("/projects/{project}/artifacts", get(artifacts))
        .route("/projects/{project}/runs", get(runs))
        .route("/runs/{run}", get(run))
        .route("/artifacts/{project}/{artifact}", get(artifact))
        .route("/artifacts/{project}/{artifact}/versions", get(versions))
        .route("/versions/{project}/{artifact}/{version}", get(version))
        .route("/versions/{project}/{artifact}/{version}/tree", get(tree))
        .route("/versions/{project}/{artifact}/{version}/files/{*path}", get(file))
}

/// Returns the description of the interface.
pub(super) async fn openapi() -> ([(axum::http::HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

fn document(status: StatusCode, document: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn failure(error: &Error) -> Response<Body> {
    let status = StatusCode::from_u16(status::of(error.kind()));
    let error = json!({ "error": { "kind": error.kind(), "message": error.message() } });
    document(status.expect("the table holds statuses"), &error)
}

/// A page of a listing as JSON; `next` is the value of `after` for the next page.
fn page(items: Vec<Value>, more: bool, name: &str) -> Value {
    let next = items.last().filter(|_| more).map(|item| item[name].clone());
    json!({ "items": items, "next": next })
}

/// The parts of a request that every handler needs.
type Common = (State<Arc<App>>, ConnectInfo<SocketAddr>, HeaderMap);

/// Checks the key, and replies with the document that `read` makes. `read` sees the registry as the
/// user may.
async fn reply(
    (State(app), ConnectInfo(from), headers): Common,
    team: &str,
    read: impl FnOnce(&Guarded<'_>) -> Result<Value> + Send + 'static,
) -> Reply {
    let (served, principal) = app.enter(team, &headers, from).await?;
    let permit = app.admit()?;
    let done = spawn_blocking(move || {
        let rights = UserRights::new(&served, &principal);
        let done = read(&Guarded { repository: &served.team.repository, rights: &rights });
        drop(permit);
        done
    });
    match done.await {
        Ok(Ok(found)) => Ok(document(StatusCode::OK, &found)),
        Ok(Err(e)) => Ok(failure(&e)),
        Err(_) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the request could not be finished")),
    }
}

fn artifact_path(project: &str, artifact: &str) -> Result<ArtifactPath> {
    Ok(ArtifactPath { project: project.parse()?, artifact: artifact.parse()? })
}

fn reference(project: &str, artifact: &str, version: &str) -> Result<Reference> {
    Ok(Reference { path: artifact_path(project, artifact)?, selector: version.parse()? })
}

/// Parses the path of a file or directory within a version.
fn path_of(text: &str) -> Result<Vec<EntryName>> {
    let parts = text.split('/').filter(|part| !part.is_empty());
    parts.map(|part| Ok(EntryName::try_from(part.as_bytes())?)).collect()
}

async fn projects(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team]): Parts<1>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, |guarded| {
        let all = guarded.projects()?;
        Ok(page(all.iter().map(documents::project).collect(), false, "project"))
    })
    .await
}

async fn artifacts(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, project]): Parts<2>,
    Query(part): Query<Part>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, move |guarded| {
        let project: ProjectName = project.parse()?;
        let after = part.after::<ArtifactPath>()?.map(|path| path.artifact);
        let after: Option<ArtifactName> = after;
        let found = guarded.artifacts(project, after, part.limit())?;
        Ok(page(found.items.iter().map(documents::artifact).collect(), found.more, "artifact"))
    })
    .await
}

async fn artifact(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, project, artifact]): Parts<3>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, move |guarded| {
        let found = guarded.artifact(artifact_path(&project, &artifact)?)?;
        Ok(documents::artifact(&found))
    })
    .await
}

async fn versions(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, project, artifact]): Parts<3>,
    Query(part): Query<Part>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, move |guarded| {
        let (path, after) = (artifact_path(&project, &artifact)?, part.after::<VersionNumber>()?);
        let found = guarded.versions(path, after, part.limit(), Detail::Full)?;
        Ok(page(found.items.iter().map(documents::version).collect(), found.more, "version"))
    })
    .await
}

async fn version(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, project, artifact, version]): Parts<4>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, move |guarded| {
        let found = guarded.lookup(reference(&project, &artifact, &version)?)?;
        Ok(documents::version(&found))
    })
    .await
}

async fn runs(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, project]): Parts<2>,
    Query(part): Query<Part>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, move |guarded| {
        let project: ProjectName = project.parse()?;
        let after = part.after::<RunId>()?.map(|id| guarded.run(id)).transpose()?;
        let after = after.map(|run| (run.created, run.start.id));
        let found = guarded.runs(project, after, part.limit())?;
        Ok(page(found.items.iter().map(documents::run).collect(), found.more, "id"))
    })
    .await
}

async fn run(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, id]): Parts<2>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, move |guarded| {
        Ok(documents::run(&guarded.run(id.parse()?)?))
    })
    .await
}

/// Returns the target of a path in a version.
fn target(guarded: &Guarded<'_>, reference: Reference, path: &[EntryName]) -> Result<Target> {
    let info = guarded.lookup(reference)?;
    if path.is_empty() {
        return Ok(Target::Directory(info.root));
    }
    let entry = resolve(&guarded.repository.reader, info.root, path)?;
    entry
        .map(|entry| entry.target)
        .ok_or_else(|| Error::new(Kind::NotFound, format!("{} has no such path", info.reference())))
}

async fn tree(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, project, artifact, version]): Parts<4>,
    Query(part): Query<Part>,
    headers: HeaderMap,
) -> Reply {
    reply((app, from, headers), &team, move |guarded| {
        let reference = reference(&project, &artifact, &version)?;
        let path = path_of(part.path.as_deref().unwrap_or_default())?;
        let Target::Directory(root) = target(guarded, reference, &path)? else {
            return Err(Error::new(Kind::Usage, "the path is that of a file, not of a directory"));
        };
        let after = part.after.as_deref().unwrap_or_default().as_bytes();
        let (limit, mut items, mut more) = (part.limit() as usize, Vec::new(), false);
        let full = || Error::new(Kind::WouldBlock, "the page is full");
        let listed = each_entry(&guarded.repository.reader, root, &mut |entry| {
            if entry.name.as_bytes() <= after && !after.is_empty() {
                return Ok(());
            }
            if items.len() == limit {
                more = true;
                return Err(full());
            }
            items.push(documents::entry(entry, None));
            Ok(())
        });
        match listed {
            Err(e) if !more => Err(e),
            _ => Ok(page(items, more, "name")),
        }
    })
    .await
}

async fn file(
    app: State<Arc<App>>,
    from: ConnectInfo<SocketAddr>,
    Path([team, project, artifact, version, path]): Parts<5>,
    headers: HeaderMap,
) -> Reply {
    let State(app) = app;
    let ConnectInfo(from) = from;
    let (served, principal) = app.enter(&team, &headers, from).await?;
    let permit = app.admit()?;
    let asked = Arc::clone(&served);
    let found = spawn_blocking(move || {
        let rights = UserRights::new(&asked, &principal);
        let guarded = Guarded { repository: &asked.team.repository, rights: &rights };
        let (reference, path) = (reference(&project, &artifact, &version)?, path_of(&path)?);
        match target(&guarded, reference, &path)? {
            Target::File { content: Content::External { .. }, .. } => {
                let what = "the file is elsewhere: its version records only a reference to it";
                Err(Error::new(Kind::Unsupported, what))
            }
            Target::File { content, .. } => Ok(content),
            _ => Err(Error::new(Kind::Usage, "the path is not that of a file")),
        }
    });
    match found.await {
        Ok(Ok(content)) => send_file(served, content, &headers, permit).await,
        Ok(Err(e)) => Ok(failure(&e)),
        Err(_) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the request could not be finished")),
    }
}

fn not_modified() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// Sends a range of a file.
async fn send_file(
    served: Arc<Served>,
    content: Content,
    headers: &HeaderMap,
    permit: OwnedSemaphorePermit,
) -> Reply {
    let tag = content.digest().map_or_else(|| "empty".to_owned(), |digest| digest.to_string());
    let tag: HeaderValue = format!("\"{tag}\"").parse().expect("a digest is a header");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| *known == tag);
    let read = move |range: Range<u64>| {
        let served = Arc::clone(&served);
        read_piece(move || {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            served.team.repository.reader.read_at(&content, range.start, &mut bytes)?;
            Ok(Bytes::from(bytes))
        })
    };
    let sent = match known {
        true => Ok(not_modified()),
        false => send(headers, content.size_bytes(), permit, read).await,
    };
    match sent {
        Ok(mut response) => {
            response.headers_mut().insert(ETAG, tag);
            Ok(response)
        }
        Err(Unsent::Failed(e)) => Ok(failure(&e)),
        Err(Unsent::Range) => Err(refuse(StatusCode::RANGE_NOT_SATISFIABLE, "the file is shorter")),
    }
}
