//! The calls of our own clients, guarded one by one.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, Response, StatusCode};
use tokio::task::spawn_blocking;

use super::app::{App, Refusal, Served, audit, key_of, refuse};
use super::counters::CallName;
use super::rights::UserRights;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Level, Need, Principal};
use crate::ops::garbage::{Reclaim, free};
use crate::ops::gc::{Collected, collect_deferred};
use crate::ops::served::{Guarded, settings_for_clients};
use crate::protocol::served::{Cleaned, JanitorCall, REPOSITORY_HEADER, Session, Whoami};
use crate::protocol::{Service, decode_call, decode_request, encode_value};
use crate::registry::{AccessCall, Call, LeasesCall, NamesCall, Transport, guard};
use crate::server::reply::{answer, not_here, respond, wait_for_change};

/// The maximum length of a request: a batch of new objects is far shorter.
const REQUEST_MAX_BYTES: usize = 64 << 20;

/// A request of a user to a repository.
struct Asked {
    app: Arc<App>,
    served: Arc<Served>,
    principal: Principal,
    from: SocketAddr,
}

/// Handles a call to a repository.
pub(super) async fn rpc(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path(team): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let (served, principal) = app.enter(&team, &headers, from).await?;
    // The room is held until the reply is made.
    let (body, _room) = app.body(&headers, body, REQUEST_MAX_BYTES).await?;
    let other = headers.get(REPOSITORY_HEADER).map(|id| id.as_bytes());
    if other.is_some_and(|id| id != served.team.repository.settings.id.as_bytes()) {
        return Ok(respond(&Err(moved(&served)), None));
    }
    Asked { app, served, principal, from }.serve(&body).await
}

/// Returns whether a call ends a lease. The objects that only the lease kept are then dead.
fn ends_lease(call: &Call) -> bool {
    use LeasesCall::{EndLease, Leave, Release};
    matches!(call, Call::Leases(Release { .. } | Leave { .. } | EndLease { .. }))
}

/// Returns whether a call changes the visibility or members of a project.
fn changes_access(call: &Call) -> bool {
    use AccessCall::{SetMember, SetVisibility};
    matches!(call, Call::Access(SetVisibility { .. } | SetMember { .. }))
}

/// Builds the error of a client whose directory belongs to another repository.
fn moved(served: &Served) -> Error {
    let what = format!("team {} has another repository now", served.team.name);
    Error::new(Kind::Conflict, what).hint(
        "nothing was changed: move the client's directory for it away, and its drafts with it",
    )
}

impl Asked {
    async fn serve(self, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let (service, call) = match decode_request(body) {
            Ok((service, call)) => (service, body.slice_ref(call)),
            Err(e) => return Ok(respond(&Err(e), None)),
        };
        match service {
            Service::Registry => match decode_call(&call) {
                Ok(call) => self.registry(call).await,
                Err(e) => Ok(respond(&Err(e), None)),
            },
            Service::Janitor => match decode_call(&call) {
                Ok(call) => self.janitor(call).await,
                Err(e) => Ok(respond(&Err(e), None)),
            },
            Service::Session => Ok(respond(&encode_value(&self.session()), None)),
            Service::Drafts | Service::Stats => Ok(respond(&Err(not_here()), None)),
        }
    }

    fn session(&self) -> Session {
        Session {
            team: self.served.team.name.clone(),
            principal: self.principal.clone(),
            settings: settings_for_clients(&self.served.team.repository),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Writes a line of the audit log, if something that a person knows by name was changed or the
    /// call was refused.
    fn note<T>(&self, call: &str, changed: Option<&str>, about: &str, done: &Result<T>) {
        let failed = done.as_ref().err().map(Error::kind);
        if changed.is_some() || failed == Some(Kind::Denied) {
            let Self { served, principal, from, .. } = self;
            let what = changed.unwrap_or(about);
            audit(&served.team.name, &principal.user, *from, call, what, failed);
        }
    }

    async fn registry(self, call: Call) -> Result<Response<Body>, Refusal> {
        let (name, changed) = (call.name(), guard::changed(&call));
        if let Call::Names(NamesCall::ChangesAfter { after, wait_milliseconds }) = call {
            return Ok(respond(&self.changes(after, wait_milliseconds).await, None));
        }
        let permit = self.app.admit()?;
        let reply = answer(move || {
            let (ends, changes_access) = (ends_lease(&call), changes_access(&call));
            let about = guard::about(&call);
            let rights = UserRights::new(&self.served, &self.principal);
            let repository = &self.served.team.repository;
            let done = Guarded { repository, rights: &rights }.call(call);
            if ends {
                (self.served.team.nudge)();
            }
            if changes_access {
                self.served.access_cache.forget_access();
            }
            self.note(name, changed.as_deref(), &about, &done);
            drop(permit);
            (done, None)
        });
        let mut reply = reply.await;
        reply.extensions_mut().insert(CallName(name));
        Ok(reply)
    }

    /// Waits for a change, and returns the encoded changes. What clients that ask for the same get
    /// is read once.
    async fn changes(self, after: u64, wait_milliseconds: u64) -> Result<Vec<u8>> {
        let (changed, mut ending) = (self.served.team.changed.clone(), self.app.ending());
        tokio::select! {
            () = wait_for_change(changed.clone(), after, wait_milliseconds) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
        let ended = |_| Error::new(Kind::Unavailable, "the server ends");
        let key = (after, changed.borrow().last);
        let found = {
            let mut known = self.served.changes.lock().await;
            match known.get(&key) {
                Some(found) => Arc::clone(found),
                None => {
                    let served = Arc::clone(&self.served);
                    let read = move || served.team.repository.registry.changes(after, 0);
                    let found = Arc::new(spawn_blocking(read).await.map_err(ended)??);
                    known.put(key, Arc::clone(&found));
                    found
                }
            }
        };
        let narrowed = move || {
            let rights = UserRights::new(&self.served, &self.principal);
            encode_value(&guard::changes(&rights, &found)?)
        };
        spawn_blocking(narrowed).await.map_err(ended)?
    }

    async fn janitor(self, call: JanitorCall) -> Result<Response<Body>, Refusal> {
        let (name, allowed) = match call {
            // A user who may delete in one project may also have the bytes freed.
            JanitorCall::Free { .. } => ("free", Level::of(self.principal.limit) >= Level::Write),
            JanitorCall::Collect { .. } => ("collect", self.principal.may(Need::Admin)),
        };
        if !allowed {
            let denied = Err(guard::denied(&self.principal));
            self.note(name, None, "", &denied);
            return Ok(respond(&denied, None));
        }
        let permit = self.app.admit()?;
        Ok(answer(move || {
            let done = self.clean(call);
            self.note(name, Some(""), "", &done);
            drop(permit);
            (done.and_then(|cleaned| encode_value(&cleaned)), None)
        })
        .await)
    }

    fn clean(&self, call: JanitorCall) -> Result<Cleaned> {
        let repository = &self.served.team.repository;
        match call {
            JanitorCall::Free { later } => {
                let when = if later { Reclaim::Later } else { Reclaim::Now };
                Ok(Cleaned { freed_bytes: free(repository, when)?, ..Cleaned::default() })
            }
            JanitorCall::Collect { garbage_percent, unfinished } => {
                let collected = collect_deferred(repository, garbage_percent, unfinished)?;
                let Collected { packs, freed_bytes, left_bytes } = collected;
                Ok(Cleaned { packs, freed_bytes, left_bytes })
            }
        }
    }
}

/// Lists the teams that a key opens, with the role in each.
pub(super) async fn whoami(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, &'static str); 1], String), Refusal> {
    let digest = key_of(&headers)?.digest();
    let (mut teams, mut user) = (Vec::new(), None);
    for served in app.teams() {
        if let Some(principal) = served.authenticate(digest).await? {
            teams.push((served.team.name.clone(), principal.narrowed()));
            user = Some(principal.user);
        }
    }
    let user = user.ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "the key is not accepted"))?;
    let found = Whoami { user, teams, release: env!("CARGO_PKG_VERSION").to_owned() };
    let text = serde_json::to_string(&found).expect("names are plain values");
    Ok(([(CONTENT_TYPE, "application/json")], text))
}
