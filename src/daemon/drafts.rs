//! The access to a repository's drafts: through the daemon that has them open, or by opening them
//! here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::daemons;
use crate::client::{Client, DraftsClient};
use crate::error::{Error, Kind, Result};
use crate::mount::find_other_mounts;
use crate::ops::drafts::{DraftAnswer, DraftCall, DraftHandler, DraftService};
use crate::ops::repository::{Layout, Repository};
use crate::server::{Server, Services};

/// The longest time that a command waits for another command that has the drafts open.
const DRAFTS_DEADLINE: Duration = Duration::from_secs(30);
/// The longest time that a call that changes nothing is repeated.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// The pause between two attempts.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// Returns the drafts: through the daemon that has them open, or opened by this process.
///
/// # Errors
/// [`Kind::Conflict`] if another command has them open for too long, and errors of the host.
pub fn drafts(repository: Arc<Repository>) -> Result<Box<dyn DraftHandler>> {
    if let Ok(client) = Client::connect(&repository.layout.staging_socket()) {
        return Ok(Box::new(DraftsClient(client)));
    }
    let opened = match open_drafts(&repository) {
        // A daemon has just opened them.
        Err(e) if e.kind() == Kind::Conflict => {
            let client = Client::connect(&repository.layout.staging_socket());
            return Ok(Box::new(DraftsClient(client.map_err(|_| e)?)));
        }
        opened => opened?,
    };
    Ok(Box::new(opened))
}

/// Makes a call that changes nothing. The call is repeated if the daemon that had the drafts open
/// gave them up after it was reached.
///
/// # Errors
/// As [`drafts`], and the errors of the call.
pub fn read_drafts(
    repository: &Arc<Repository>,
    call: impl Fn() -> DraftCall,
) -> Result<DraftAnswer> {
    let deadline = Instant::now() + READ_DEADLINE;
    loop {
        match drafts(Arc::clone(repository))?.call(call()) {
            Err(e) if e.kind() == Kind::Unavailable && Instant::now() < deadline => {
                tracing::debug!("connecting to the drafts again: {e}");
                std::thread::sleep(RETRY_EVERY);
            }
            answer => return answer,
        }
    }
}

/// Opens the drafts. Waits while another command has them open.
///
/// # Errors
/// [`Kind::Conflict`] if a daemon has them open, or a command that takes too long.
fn open_drafts(repository: &Arc<Repository>) -> Result<DraftService> {
    let deadline = Instant::now() + DRAFTS_DEADLINE;
    loop {
        match DraftService::open(repository) {
            Err(e) if e.kind() == Kind::Conflict && Instant::now() < deadline => {
                if Client::connect(&repository.layout.staging_socket()).is_ok() {
                    return Err(e);
                }
                std::thread::sleep(RETRY_EVERY);
            }
            opened => return opened,
        }
    }
}

/// The drafts, open in this process, and their server.
pub(super) struct ServedDrafts {
    pub(crate) service: Arc<DraftService>,
    _server: Server,
}

/// Opens the drafts and serves them on the staging socket.
pub(super) fn serve_drafts(repository: &Arc<Repository>) -> Result<ServedDrafts> {
    let opened = open_drafts(repository).map_err(|e| held_by(&repository.layout, e))?;
    let drafts = Arc::new(opened);
    drafts.start_prehashing();
    let service: Arc<dyn DraftHandler> = Arc::<DraftService>::clone(&drafts);
    let services = Services { drafts: Some(service), ..Services::default() };
    let server = Server::start(&repository.layout.staging_socket(), services)?;
    Ok(ServedDrafts { service: drafts, _server: server })
}

/// Adds the holder of the drafts to a conflict, if it is a daemon that was unmounted. Such a daemon
/// runs while its mount is used elsewhere or it commits a draft.
fn held_by(layout: &Layout, error: Error) -> Error {
    let left = daemons(layout).unwrap_or_default().into_iter().find_map(|daemon| {
        if daemon.commits {
            let what = "which commits a draft and then ends".to_owned();
            return Some((daemon.pid, what));
        }
        let device = daemon.staging_device.filter(|_| daemon.left)?;
        let places = find_other_mounts(&[device], &[]);
        let places: Vec<_> = places.iter().map(ToString::to_string).collect();
        let what = format!("whose staging mount is still used: {}", places.join(", "));
        (!places.is_empty()).then_some((daemon.pid, what))
    });
    let Some((pid, what)) = left.filter(|_| error.kind() == Kind::Conflict) else {
        return error;
    };
    let what = format!("{}: process {pid}, {what}", error.message());
    Error::new(Kind::Conflict, what)
        .hint(format!("wait for it or unmount it there, or end the daemon for good: kill {pid}"))
}
