//! What is told of projects, artifacts and versions.

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

/// The longest description in bytes.
pub const DESCRIPTION_MAX_BYTES: usize = 1 << 16;

/// The name in the root of every version under which a mount shows what the registry says of it.
pub const DESCRIPTION_FILE: &str = ".artifact.json";

/// The content of a version, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories, the root not counted.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// The sum of the files' sizes.
    pub size_bytes: u64,
    /// Files of these that live elsewhere.
    pub external: u64,
}

/// A version and everything the registry says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The artifact.
    pub path: ArtifactPath,
    /// Its type.
    pub artifact_type: ArtifactType,
    /// The number.
    pub number: VersionNumber,
    /// The root tree.
    pub root: Digest,
    /// How much there is in it.
    pub totals: Totals,
    /// When it was committed.
    pub created: Timestamp,
    /// The time that everything in it bears where it is mounted, in seconds since 1970; later than
    /// that of the version before it.
    pub time_seconds: u64,
    /// The aliases it has now, sorted.
    pub aliases: Vec<Alias>,
    /// What people wrote about it.
    pub description: String,
    /// What programs wrote about it.
    pub metadata: Metadata,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
    /// How long it lives.
    pub ttl: Ttl,
    /// When its time is over; `None`: never, also because an alias protects it.
    pub expires: Option<Timestamp>,
    /// Those of its aliases that are protected.
    pub protected: Vec<Alias>,
}

impl VersionInfo {
    /// Its reference by number.
    pub fn reference(&self) -> Reference {
        Reference { path: self.path.clone(), selector: Selector::Version(self.number) }
    }
}

/// A project in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectInfo {
    /// Its name.
    pub name: ProjectName,
    /// Artifacts in it.
    pub artifacts: u64,
}

/// An artifact in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactInfo {
    /// Where it is.
    pub path: ArtifactPath,
    /// What it is.
    pub artifact_type: ArtifactType,
    /// Versions that exist now.
    pub versions: u64,
    /// The highest of them.
    pub newest: Option<VersionNumber>,
    /// When that was committed.
    pub newest_created: Option<Timestamp>,
    /// What people wrote about it.
    pub description: String,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
    /// How long versions live that do not say otherwise, in milliseconds; `None`: for ever.
    pub ttl_milliseconds: Option<u64>,
    /// Its protected aliases, sorted, whether they stand for a version or not.
    pub protected: Vec<Alias>,
}

/// Something that names moved: what a mount has to forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Versions, aliases or properties of this artifact.
    Artifact(ArtifactPath),
    /// Which runs go on.
    Runs,
}

/// Refuses a description that is too long, wherever it comes from.
///
/// # Errors
/// [`Kind::Usage`].
pub fn check_description(text: &str) -> Result<(), Error> {
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

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The artifact.
    pub path: ArtifactPath,
    /// The version that has the content.
    pub number: VersionNumber,
    /// Whether it is new; otherwise the newest version had this content already.
    pub new: bool,
}

/// What adding a part did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedPart {
    /// Its place.
    pub sequence: u64,
    /// The generation it is in.
    pub generation: u64,
    /// It begins this generation: the one before became this version.
    pub begins_after: Option<VersionNumber>,
}
