//! The facts about projects, artifacts and versions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::metadata::Metadata;
use super::name::{Alias, ArtifactType, NameError, ProjectName, Tag, VersionNumber};
use super::properties::Ttl;
use super::reference::{ArtifactPath, Reference, Selector};
use super::time::Timestamp;
use crate::error::{Error, Kind};

/// The maximum length of a description in bytes.
pub const DESCRIPTION_MAX_BYTES: usize = 1 << 16;

/// The name of the file in the root of every mounted version that shows what the registry holds of
/// it.
pub(crate) const DESCRIPTION_FILE: &str = ".artifact.json";

/// The content of a version, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The regular files.
    pub files: u64,
    /// The directories without the root.
    pub directories: u64,
    /// The symlinks.
    pub symlinks: u64,
    /// The sum of the files' sizes.
    pub size_bytes: u64,
    /// The number of those files that are external.
    pub external: u64,
}

/// A version and everything that the registry holds of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The artifact.
    pub path: ArtifactPath,
    /// The type of the artifact.
    pub artifact_type: ArtifactType,
    /// The number.
    pub number: VersionNumber,
    /// The root tree.
    pub root: Digest,
    /// The size of the content.
    pub totals: Totals,
    /// The time of the commit.
    pub created: Timestamp,
    /// The time that everything in it has where it is mounted, in seconds since 1970. It is later
    /// than that of the version before.
    pub time_seconds: u64,
    /// The aliases that it has now, sorted.
    pub aliases: Vec<Alias>,
    /// The text that people wrote about it.
    pub description: String,
    /// The data that programs wrote about it.
    pub metadata: Metadata,
    /// The tags, sorted.
    pub tags: Vec<Tag>,
    /// The time to live.
    pub ttl: Ttl,
    /// The time at which it expires; `None` for never, also if an alias protects it.
    pub expires: Option<Timestamp>,
    /// The protected ones among its aliases.
    pub protected: Vec<Alias>,
}

impl VersionInfo {
    /// Returns its reference by number.
    pub fn reference(&self) -> Reference {
        Reference { path: self.path.clone(), selector: Selector::Version(self.number) }
    }
}

/// A project in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectInfo {
    /// The name.
    pub name: ProjectName,
    /// The number of artifacts in it.
    pub artifacts: u64,
}

/// An artifact in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactInfo {
    /// The project and the name.
    pub path: ArtifactPath,
    /// The type of the artifact.
    pub artifact_type: ArtifactType,
    /// The number of versions that exist now.
    pub versions: u64,
    /// The highest version of these.
    pub newest: Option<VersionNumber>,
    /// The time of that version's commit.
    pub newest_created: Option<Timestamp>,
    /// The text that people wrote about it.
    pub description: String,
    /// The tags, sorted.
    pub tags: Vec<Tag>,
    /// The time to live, in milliseconds, of versions without one of their own; `None` for ever.
    pub ttl_milliseconds: Option<u64>,
    /// The protected aliases, sorted, whether they stand for a version or not.
    pub protected: Vec<Alias>,
}

/// A change in the registry that a mount must notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A change of the versions, aliases or properties of this artifact.
    Artifact(ArtifactPath),
    /// A change of the set of runs that go on.
    Runs,
}

/// Refuses a description that is too long, wherever it comes from.
///
/// # Errors
/// [`Kind::Usage`] if it is longer than [`DESCRIPTION_MAX_BYTES`].
pub(crate) fn check_description(text: &str) -> Result<(), Error> {
    match text.parse::<Description>() {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::new(Kind::Usage, e.to_string())),
    }
}

/// A description, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description(pub String);

impl FromStr for Description {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > DESCRIPTION_MAX_BYTES {
            return Err(NameError::new("description", text.as_bytes(), "at most 65536 bytes"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The result of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The artifact.
    pub path: ArtifactPath,
    /// The version that has the content.
    pub number: VersionNumber,
    /// True if the version is new; otherwise the newest version had this content already.
    pub new: bool,
}

/// The result of adding a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedPart {
    /// The place of the part in its group.
    pub sequence: u64,
    /// The generation that it is in.
    pub generation: u64,
    /// The version that the generation before became, if the part begins a new one.
    pub begins_after: Option<VersionNumber>,
}
