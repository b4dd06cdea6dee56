//! Extended attributes of the directories of drafts and versions, to read and set their properties.

use super::service::DraftService;
use crate::error::{Error, Kind, Result};
use crate::model::name::{Alias, ArtifactType};
use crate::model::reference::{ArtifactPath, Reference};
use crate::model::version::Description;
use crate::registry::{AliasChange, Update};
use crate::staging::DraftRecord;

/// The prefix of these attributes.
const PREFIX: &str = "user.artifact.";
/// The attributes that can be set.
const SAID: &[&str] = &["aliases", "description", "metadata", "type"];
/// The attributes that can only be read.
const TOLD: &[&str] = &["created", "digest", "name", "size", "version"];

/// The root of a draft or of a version.
#[derive(Debug, Clone)]
pub(crate) enum DraftPlace {
    /// The root of a draft.
    Draft(ArtifactPath),
    /// The root of a version.
    Version(Reference),
}

/// Returns the part of a name behind the prefix, if it has that.
pub(crate) fn field(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok()?.strip_prefix(PREFIX)
}

fn unknown(field: &str) -> Error {
    Error::new(Kind::Usage, format!("there is no attribute {PREFIX}{field}"))
        .hint(format!("those that can be set: {}", SAID.join(", ")))
}

fn text(value: &[u8]) -> Result<&str> {
    // A newline at the end, as `echo` adds it, is not part of the value.
    std::str::from_utf8(value)
        .map(|text| text.trim_end_matches(['\n', '\0']))
        .map_err(|e| Error::new(Kind::Usage, "the value is not UTF-8").because(e))
}

fn aliases(value: &str) -> Result<Vec<Alias>> {
    let names = value.split([',', ' ', '\n']).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(Error::from)).collect()
}

fn joined(aliases: &[Alias]) -> String {
    aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl DraftService {
    /// Returns the value of `user.artifact.<field>`; `None` if it has none.
    pub(crate) fn attribute(&self, place: &DraftPlace, field: &str) -> Result<Option<String>> {
        match place {
            DraftPlace::Draft(draft) => {
                let DraftRecord { properties: said, base, .. } = self.drafts.record(draft)?;
                Ok(match field {
                    "type" => said.artifact_type.map(|kind| kind.to_string()),
                    "description" => said.description,
                    "metadata" => said.metadata.map(|metadata| metadata.to_string()),
                    "aliases" => (!said.aliases.is_empty()).then(|| joined(&said.aliases)),
                    "name" => Some(draft.to_string()),
                    "version" => base.map(|base| base.selector.to_string()),
                    _ => None,
                })
            }
            DraftPlace::Version(reference) => {
                let info = self.repository.registry.lookup(reference.clone())?;
                Ok(match field {
                    "type" => Some(info.artifact_type.to_string()),
                    "description" => Some(info.description),
                    "metadata" => Some(info.metadata.to_string()),
                    "aliases" => Some(joined(&info.aliases)),
                    "name" => Some(info.path.to_string()),
                    "version" => Some(info.number.to_string()),
                    "digest" => Some(info.root.to_string()),
                    "size" => Some(info.totals.size_bytes.to_string()),
                    "created" => Some(info.created.to_string()),
                    _ => None,
                })
            }
        }
    }

    /// Returns the names of all attributes that have a value, each ended by NUL.
    pub(crate) fn attributes(&self, place: &DraftPlace) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        for field in SAID.iter().chain(TOLD) {
            if self.attribute(place, field)?.is_some() {
                names.extend_from_slice(format!("{PREFIX}{field}\0").as_bytes());
            }
        }
        Ok(names)
    }

    /// Sets `user.artifact.<field>`; `None` resets it. An error is kept for `artifactfs status`,
    /// too.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an invalid value or name, [`Kind::Conflict`] while the draft is being
    /// committed.
    pub(crate) fn set_attribute(
        &self,
        place: &DraftPlace,
        field: &str,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let done = self.say(place, field, value);
        if let Err(e) = &done {
            let of = match place {
                DraftPlace::Draft(draft) => format!("draft {draft}"),
                DraftPlace::Version(reference) => reference.to_string(),
            };
            self.trouble(format!("{PREFIX}{field} of {of} was not set: {e}"));
        }
        done
    }

    fn say(&self, place: &DraftPlace, field: &str, value: Option<&[u8]>) -> Result<()> {
        if TOLD.contains(&field) {
            let what = format!("{PREFIX}{field} cannot be set");
            return Err(Error::new(Kind::Usage, what));
        }
        let value = value.map(text).transpose()?;
        match place {
            DraftPlace::Draft(draft) => self.say_of_draft(draft, field, value),
            DraftPlace::Version(reference) => self.say_of_version(reference, field, value),
        }
    }

    fn say_of_draft(&self, draft: &ArtifactPath, field: &str, value: Option<&str>) -> Result<()> {
        let _change = self.drafts.begin_change(draft)?;
        // One change at a time: each reads the record and writes it back.
        let _one = self.lock_pinned();
        let mut record = self.drafts.record(draft)?;
        let said = &mut record.properties;
        match field {
            "type" => said.artifact_type = value.map(str::parse::<ArtifactType>).transpose()?,
            "description" => {
                said.description = value.map(str::parse::<Description>).transpose()?.map(|d| d.0);
            }
            "metadata" => said.metadata = value.map(str::parse).transpose()?,
            "aliases" => said.aliases = value.map(aliases).transpose()?.unwrap_or_default(),
            other => return Err(unknown(other)),
        }
        self.drafts.set_record(draft, &record)
    }

    fn say_of_version(
        &self,
        reference: &Reference,
        field: &str,
        value: Option<&str>,
    ) -> Result<()> {
        let registry = &self.repository.registry;
        let value = value.unwrap_or_default();
        let update = match field {
            "description" => {
                let description: Description = value.parse()?;
                Update { description: Some(description.0), ..Update::default() }
            }
            "metadata" => {
                let text = if value.is_empty() { "{}" } else { value };
                Update { metadata: Some(text.parse()?), ..Update::default() }
            }
            "aliases" => {
                let change = AliasChange::Set(aliases(value)?);
                return registry.change_aliases(reference.clone(), change, false).map(drop);
            }
            "type" => {
                let kind = registry.lookup(reference.clone())?.artifact_type;
                if value.parse::<ArtifactType>()? == kind {
                    return Ok(());
                }
                let what = format!("the artifact has type {kind}, which cannot change");
                return Err(Error::new(Kind::Usage, what));
            }
            other => return Err(unknown(other)),
        };
        registry.update(reference.clone(), update).map(drop)
    }
}
