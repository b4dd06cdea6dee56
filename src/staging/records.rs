//! Reads and writes the records of drafts.

use std::fs;
use std::io;

use super::base_xattr::TreeXattr;
use super::drafts::Drafts;
use super::record::{DraftRecord, RECORD_FORMAT};
use crate::error::{DraftHint, Error, Kind, Result};
use crate::files::replace_durably;
use crate::model::reference::ArtifactPath;

const RECORD: &str = "draft.json";

impl Drafts {
    /// Reads the record of a draft. Without a record, a draft has no lower tree.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a damaged record or a newer format, and if the record is missing
    /// though the draft has a lower tree. Any error of the upper file system.
    pub(crate) fn record(&self, key: &ArtifactPath) -> Result<DraftRecord> {
        let path = self.folder(key).join(RECORD);
        let unread = |what: String| {
            Error::new(
                Kind::Corrupt,
                format!("the record of draft {key} {what}: {}", path.display()),
            )
            .hint(DraftHint::RestoreRecord)
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return match TreeXattr::of(&self.tree_path(key)) {
                    Ok(Some(_)) => Err(unread("is missing".to_owned())),
                    Ok(None) | Err(rustix::io::Errno::NOENT) => Ok(DraftRecord::default()),
                    Err(e) => Err(Error::io(
                        format!("cannot read the base xattr of draft {key}"),
                        e.into(),
                    )),
                };
            }
            Err(e) => return Err(Error::io(format!("cannot read {}", path.display()), e)),
        };
        let record: DraftRecord =
            serde_json::from_slice(&text).map_err(|e| unread(format!("cannot be read ({e})")))?;
        if record.format > RECORD_FORMAT {
            let newer = format!(
                "has format {}, and this release reads formats up to {RECORD_FORMAT}",
                record.format
            );
            return Err(unread(newer));
        }
        Ok(record)
    }

    /// Writes the record of a draft, durably.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn set_record(&self, key: &ArtifactPath, record: &DraftRecord) -> Result<()> {
        let folder = self.folder(key);
        let record = DraftRecord { format: RECORD_FORMAT, ..record.clone() };
        let text = serde_json::to_vec(&record).expect("a record is plain text");
        replace_durably(&folder.join(RECORD), &text)
    }
}
