//! Repositories on servers: the settings that a server hands out, and the directory that a client
//! has for each, with its drafts and what its daemons need.

use std::collections::BTreeMap;

use super::repository::{Layout, Repository, SHARED_FORMAT, Settings, ZONED_FORMAT};
use super::shared::refuse_moved;
use crate::content::codec::CODEC_RAW;
use crate::content::pack::PACK_MAX_BYTES;
use crate::content::reader::stored_children;
use crate::error::{AccessHint, Error, Kind, Result};
use crate::model::host::Host;
use crate::model::name::{ProjectName, TeamName};
use crate::model::object::{Extent, Located, NewObject, PackId, Presence};
use crate::model::object_kind::ObjectKind;
use crate::model::server_url::TeamUrl;
use crate::protocol::encode_value;
use crate::protocol::served::Session;
use crate::registry::guard::{self, Rights};
use crate::registry::{Begun, Call, LeasesCall, ObjectsCall, Transport, dispatch};

/// Returns the name under which a repository is served: that of its directory, unless it was made
/// with another.
///
/// # Errors
/// [`Kind::BadName`] if the directory's name is not one of a team.
pub fn team_of(layout: &Layout) -> Result<TeamName> {
    if let Some(team) = layout.settings()?.team {
        return Ok(team);
    }
    let name = layout.root.file_name().unwrap_or_default().to_string_lossy();
    name.parse::<TeamName>().map_err(|e| Error::from(e).and_hint(AccessHint::NameTeam))
}

/// Returns the settings that clients need, as JSON: not where the store is.
pub fn settings_for_clients(repository: &Repository) -> String {
    let settings = Settings {
        format: SHARED_FORMAT,
        store: String::new(),
        store_options: BTreeMap::new(),
        registry: None,
        directory: None,
        ..repository.settings.clone()
    };
    serde_json::to_string(&settings).expect("settings are plain values")
}

/// Makes each project of a repository with its registry inside a zone, if it is empty and has no
/// drafts yet. Returns whether each project is a zone.
///
/// # Errors
/// The errors of the registry, and of writing the settings.
pub fn make_zoned(repository: &Repository) -> Result<bool> {
    let registry = &repository.registry;
    if registry.is_zoned()? || repository.is_shared() || !registry.projects()?.is_empty() {
        return registry.is_zoned();
    }
    // Older releases must refuse it before the first zone is there.
    let settings = Settings { format: ZONED_FORMAT, ..repository.settings.clone() };
    repository.layout.write_settings(&settings)?;
    let zoned = registry.make_zoned()?;
    if !zoned {
        // A draft or a put was begun meanwhile or before.
        repository.layout.write_settings(&repository.settings)?;
    }
    Ok(zoned)
}

/// Makes this host's directory for the repository at `url`, whose server replied with `session`.
///
/// # Errors
/// [`Kind::Unsupported`] if the server is of another release, [`Kind::Conflict`] if the directory
/// is a repository, and errors of the host.
pub fn join(layout: &Layout, url: &TeamUrl, session: &Session, host: &Host) -> Result<()> {
    layout.refuse_existing()?;
    let unread = |e| {
        Error::new(Kind::Unsupported, format!("the settings of {url} cannot be read")).because(e)
    };
    let settings: Settings = serde_json::from_str(&session.settings).map_err(unread)?;
    let own = Settings {
        registry: Some(url.to_string()),
        store: url.to_string(),
        directory: Some(format!("{:032x}", host.random())),
        ..settings
    };
    layout.make_root()?;
    layout.write_settings(&own)
}

/// The registry of a served repository, as a user may see and change it. Each call is checked.
pub struct Guarded<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The rights of the user.
    pub rights: &'a (dyn Rights + Send + Sync),
}

impl Transport for Guarded<'_> {
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        let registry = &*self.repository.registry;
        guard::answer(self.rights, registry, call, |call| answer_call(self.repository, call))
    }
}

/// Makes a call of a client, whose right to it was checked, and returns its encoded reply.
///
/// # Errors
/// The errors of the call.
fn answer_call(repository: &Repository, call: Call) -> Result<Vec<u8>> {
    let call = match call {
        Call::Leases(LeasesCall::Begin { purpose, holder, project }) => {
            return encode_value(&begin_lease(repository, purpose, holder, project)?);
        }
        Call::Objects(ObjectsCall::AddObjects { lease, pack, length_bytes, mut objects }) => {
            check_objects(repository, pack, length_bytes, &mut objects)?;
            ObjectsCall::AddObjects { lease, pack, length_bytes, objects }.into()
        }
        call => call,
    };
    dispatch(&*repository.registry, call)
}

/// Begins a lease of a client in the repository of a server. Refuses if the repository has moved to
/// another store since the server opened it.
///
/// # Errors
/// [`Kind::Conflict`] then, and the errors of the registry.
fn begin_lease(
    repository: &Repository,
    purpose: String,
    holder: String,
    project: Option<ProjectName>,
) -> Result<Begun> {
    let begun = repository.registry.begin(purpose, holder, project)?;
    match refuse_moved(repository) {
        Ok(()) => Ok(begun),
        Err(e) => repository.registry.release(begun.lease).and(Err(e)),
    }
}

/// The longest body of an object in bytes: no chunker cuts longer chunks, and nodes are far shorter.
const OBJECT_MAX_BYTES: u32 = 1 << 24;

/// Checks objects that a client wants to register: each is within its pack and no longer than one
/// can be. Nodes are read from the store and verified. Their children are those that the node
/// names, whatever the client says. So no client can make reference counts wrong. Chunks are
/// verified by their readers.
///
/// # Errors
/// [`Kind::Corrupt`] for objects that are not what the client says, and the errors of the store.
fn check_objects(
    repository: &Repository,
    pack: PackId,
    length_bytes: u64,
    objects: &mut [NewObject],
) -> Result<()> {
    let wrong = |object: &NewObject| {
        let what = format!("object {} is not what the client says", object.digest);
        Error::new(Kind::Corrupt, what).hint("put again with this release")
    };
    for object in &mut *objects {
        let end = object.offset.checked_add(u64::from(object.stored_bytes));
        let raw = object.codec == CODEC_RAW && object.stored_bytes != object.body_bytes;
        if raw || object.body_bytes > OBJECT_MAX_BYTES || end.is_none_or(|end| end > length_bytes) {
            return Err(wrong(object));
        }
        object.children.clear();
    }
    let nodes = || objects.iter().filter(|object| object.kind != ObjectKind::Chunk);
    let end = |object: &NewObject| object.offset + u64::from(object.stored_bytes);
    let (Some(start), Some(end)) = (nodes().map(|node| node.offset).min(), nodes().map(end).max())
    else {
        return Ok(());
    };
    if end - start > PACK_MAX_BYTES {
        let what = format!("pack {pack} is longer than a pack of nodes can be");
        return Err(Error::new(Kind::Corrupt, what).hint("put again with this release"));
    }
    // Nodes lie together, so one request reads them all.
    let bytes = repository.store.read_raw(pack, start, (end - start) as usize)?;
    for node in objects.iter_mut().filter(|object| object.kind != ObjectKind::Chunk) {
        let at = (node.offset - start) as usize;
        let stored = bytes[at..at + node.stored_bytes as usize].to_vec();
        let extent = Extent { pack, offset: node.offset, stored_bytes: node.stored_bytes };
        let located = Located {
            kind: node.kind,
            codec: node.codec,
            body_bytes: node.body_bytes,
            extent,
            refs: 0,
            presence: Presence::Present,
        };
        node.children =
            stored_children(node.digest, &located, stored).map_err(|e| wrong(node).because(e))?;
    }
    Ok(())
}
