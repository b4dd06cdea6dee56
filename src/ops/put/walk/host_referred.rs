//! The external files of references, merged into the walk of a source or walked alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::event::{Event, FileMeta, Work};
use super::host::Scan;
use super::referred::Stand;
use crate::error::{Error, IoContext, Kind, PutHint, Result};
use crate::model::external::{External, Scheme};
use crate::model::name::EntryName;
use crate::ops::put::file::SETTLED;
use crate::ops::put::reference::display_key;
use crate::ops::put::stamp::Stamp;

fn twice(path: &Path) -> Error {
    let what = format!("{} is named twice", path.display());
    Error::new(Kind::Conflict, what).hint(PutHint::NameReference)
}

impl Scan<'_> {
    /// Walks the external files below directory `relative` before `bound`, or to the end.
    pub(super) fn referred_before(
        &mut self,
        relative: &Path,
        bound: Option<&EntryName>,
    ) -> Result<()> {
        loop {
            let Some(referred) = &self.referred else { return Ok(()) };
            let Some(name) = referred.next_name(relative)? else { return Ok(()) };
            if bound.is_some_and(|bound| name >= *bound) {
                return Ok(());
            }
            self.referred_entry(name, relative)?;
        }
    }

    /// Walks the external files at or below `path`. They are refused if the host's entry there was
    /// walked (`walked`).
    pub(super) fn referred_after(
        &mut self,
        path: &Path,
        name: EntryName,
        walked: bool,
    ) -> Result<()> {
        let Some(referred) = &self.referred else { return Ok(()) };
        match referred.stand(path) {
            Stand::Elsewhere => Ok(()),
            Stand::At | Stand::Below if walked => Err(twice(path)),
            Stand::At | Stand::Below => {
                self.referred_entry(name, path.parent().unwrap_or(Path::new("")))
            }
        }
    }

    fn referred_entry(&mut self, name: EntryName, relative: &Path) -> Result<()> {
        let path = relative.join(name.as_os_str());
        let Some(referred) = &mut self.referred else { return Ok(()) };
        if referred.stand(&path) == Stand::Below {
            self.feed.push(Event::Enter(name), 0)?;
            self.referred_before(&path, None)?;
            return self.feed.push(Event::Leave, 0);
        }
        let Some(record) = referred.sorted.take()? else { return Ok(()) };
        let external = External::decode(&record.body).ok_or_else(|| {
            Error::new(
                Kind::Corrupt,
                format!(
                    "the record of external file {} cannot be decoded",
                    display_key(&record.key)
                ),
            )
        })?;
        match referred.stand(&path) {
            Stand::Elsewhere => {}
            // Some tools make an empty object for each folder.
            Stand::Below if external.size_bytes == 0 && external.url.scheme() != Scheme::File => {
                return Ok(());
            }
            // A bucket may hold any key, and the user of the put did not choose this name.
            Stand::Below
                if external.url.last_part() == name.as_bytes() && external.url.path().is_none() =>
            {
                let url = &external.url;
                let text = format!(
                    "{url} is an object, and others lie below it: left out; name the reference to record it \
                     under another name"
                );
                return self.feed.push(Event::Warning(text), 0);
            }
            Stand::At | Stand::Below => return Err(twice(&path)),
        }
        self.referred_file(name, record.key, external)
    }

    fn referred_file(
        &mut self,
        name: EntryName,
        key: Vec<u8>,
        mut external: External,
    ) -> Result<()> {
        let Some(referred) = &mut self.referred else { return Ok(()) };
        let Some(path) = external.url.path() else {
            let size_bytes = external.size_bytes;
            let (path, stamp) = (PathBuf::new(), Stamp::default());
            let file = plain(name, key, path, stamp, size_bytes);
            return self.feed.push(Work::Refer(file, external), 0);
        };
        let meta = fs::metadata(&path).at("read", &path)?;
        if !meta.is_file() {
            let what = format!("{} is no longer a file", path.display());
            return Err(Error::new(Kind::Conflict, what).hint("put again"));
        }
        referred.mounts.refuse_ours(&path, &meta)?;
        let (stamp, size_bytes) = (Stamp::of(&meta), meta.len());
        let executable = meta.mode() & 0o111 != 0;
        let hashed = referred.checksum;
        let known = self.old.find(&key, &stamp).filter(|known| hashed && known.is_external());
        let path = if hashed { path } else { PathBuf::new() };
        external.size_bytes = size_bytes;
        let file = FileMeta { executable, ..plain(name, key, path, stamp, size_bytes) };
        match known {
            Some(content) => self.feed.push(Event::Known(file, content), 0),
            None => {
                self.feed.push(Work::Refer(file, external), if hashed { size_bytes } else { 0 })
            }
        }
    }
}

/// Returns the metadata of a file whose bytes are not stored.
fn plain(name: EntryName, key: Vec<u8>, path: PathBuf, stamp: Stamp, size_bytes: u64) -> FileMeta {
    let (executable, share, linked, settles_in) = (false, false, false, Some(SETTLED));
    FileMeta { name, key, path, executable, stamp, size_bytes, share, linked, settles_in }
}
