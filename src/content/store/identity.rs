//! The repository of a store: a small object at its top, written by `init` and compared before
//! anything is written or removed.
//!
//! ```text
//! artifactfs.json   {"format": 1, "repository": "<id of the repository>"}
//! ```
//! Two repositories in one store would each take the other's packs for garbage. A store of an older
//! release holds no id until the first repository that writes to it leaves its own there.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{LEFT, Place, REQUEST_TIME, Remote, Store};
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::object::PackId;

const IDENTITY_FILE: &str = "artifactfs.json";
const IDENTITY_FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Identity {
    format: u32,
    repository: String,
}

/// The repository that a store must belong to.
pub(super) struct Owner {
    id: String,
    /// True once the store was seen to hold this id.
    checked: AtomicBool,
}

impl Store {
    /// Returns the same store, which accepts writes only if it belongs to the repository `id`. A
    /// directory was checked when it was opened. A remote store is checked before the first change,
    /// so that reading never waits for it.
    #[must_use]
    pub(crate) fn belonging_to(mut self, id: &str) -> Self {
        self.owner = Some(Owner { id: id.to_owned(), checked: AtomicBool::new(false) });
        self
    }

    /// Returns the repository whose id the store holds; `None` if it holds none.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for an id that cannot be read, or the errors of the store.
    pub fn owner(&self) -> Result<Option<String>> {
        let text = match &self.place {
            Place::Local(local) => match fs::read(local.top().join(IDENTITY_FILE)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                text => text.at("read", &local.top().join(IDENTITY_FILE))?,
            },
            Place::Remote(Remote { client, .. }) => {
                let deadline = Instant::now() + REQUEST_TIME;
                match client.wait(client.get_whole(IDENTITY_FILE, deadline)) {
                    Err(e) if e.kind() == Kind::NotFound => return Ok(None),
                    text => text?.bytes.to_vec(),
                }
            }
        };
        let damaged = |e| {
            Error::new(Kind::Corrupt, format!("{IDENTITY_FILE} of the store is damaged"))
                .because(e)
                .hint("it says which repository the store belongs to: {\"format\": 1, \"repository\": ID}")
        };
        let identity: Identity = serde_json::from_slice(&text).map_err(damaged)?;
        Ok(Some(identity.repository))
    }

    /// Claims the store for the repository `id`, unless it holds that id already.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if it belongs to another repository, or the errors of the store.
    pub(crate) fn claim(&self, id: &str) -> Result<()> {
        match self.owner()? {
            Some(owner) if owner == id => return Ok(()),
            Some(owner) => return Err(foreign(&owner)),
            None => {}
        }
        let identity = Identity { format: IDENTITY_FORMAT, repository: id.to_owned() };
        let text = serde_json::to_vec(&identity).expect("an identity is plain values");
        match &self.place {
            Place::Local(local) => {
                local.make()?;
                write_once(local.top(), &text)?;
            }
            Place::Remote(Remote { client, .. }) => {
                client.wait(client.put_once(IDENTITY_FILE, text.into(), REQUEST_TIME))?;
            }
        }
        // Another repository may have claimed it at the same time: the id in the store counts.
        match self.owner()? {
            Some(owner) if owner != id => Err(foreign(&owner)),
            _ => Ok(()),
        }
    }

    /// Refuses to change a store of another repository.
    pub(super) fn ensure_ours(&self) -> Result<()> {
        let Some(owner) = &self.owner else { return Ok(()) };
        if !owner.checked.load(Ordering::Relaxed) {
            if let Place::Remote(Remote { client, .. }) = &self.place {
                client.refuse_read_only()?;
            }
            self.claim(&owner.id)?;
            owner.checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns a pack's length in bytes and its write time in milliseconds since 1970. If only its
    /// index or upload note is left, the length is 0 and the time is that file's.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if none of these files exists.
    pub(crate) fn age(&self, id: PackId) -> Result<(u64, u64)> {
        match self.age_of(id, "pack") {
            Err(e) if e.kind() == Kind::NotFound => {}
            age => return age,
        }
        for left in LEFT {
            match self.age_of(id, left) {
                Err(e) if e.kind() == Kind::NotFound => {}
                age => return age.map(|(_, modified)| (0, modified)),
            }
        }
        Err(Error::new(Kind::NotFound, format!("pack {id} has no file in the store")))
    }

    fn age_of(&self, id: PackId, extension: &str) -> Result<(u64, u64)> {
        match &self.place {
            Place::Local(local) => local.age(id, extension),
            Place::Remote(Remote { client, .. }) => {
                let key = super::pack_key(id, extension);
                client.wait(client.age(&key, Instant::now() + REQUEST_TIME))
            }
        }
    }
}

fn foreign(owner: &str) -> Error {
    Error::new(Kind::Conflict, format!("the store belongs to another repository ({owner})"))
        .hint("each repository needs a directory or prefix of its own: nothing was changed")
}

/// Writes the id, unless there is one.
fn write_once(top: &Path, text: &[u8]) -> Result<()> {
    let path = top.join(IDENTITY_FILE);
    let mut file = tempfile::NamedTempFile::new_in(top).at("write", &path)?;
    file.write_all(text).at("write", &path)?;
    file.as_file().sync_all().at("sync", &path)?;
    match file.persist_noclobber(&path) {
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        done => {
            done.map_err(|e| e.error).at("write", &path)?;
            fs::File::open(top).and_then(|dir| dir.sync_all()).at("sync", top)
        }
    }
}
