//! Names: parsed once at the edge into types that cannot hold a bad one.
//!
//! The rules are those of Weights & Biases, so that its names are ours too.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// The maximum length of a project, artifact, alias and type name in bytes.
pub(crate) const NAME_MAX_BYTES: usize = 128;
/// The maximum length of the name of a directory entry in bytes (Linux's NAME_MAX).
pub(crate) const ENTRY_NAME_MAX_BYTES: usize = 255;
/// The bytes of a bad name that an error quotes.
const QUOTED_BYTES: usize = 60;

/// A name that cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} is no {what}")]
pub struct NameError {
    what: &'static str,
    found: String,
    rule: &'static str,
}

impl NameError {
    /// Returns an error that quotes `found`, shortened. `rule` describes a good name.
    pub(crate) fn new(what: &'static str, found: &[u8], rule: &'static str) -> Self {
        let shown = &found[..found.len().min(QUOTED_BYTES)];
        let dots = if shown.len() < found.len() { "…" } else { "" };
        Self { what, found: format!("\"{}{dots}\"", shown.escape_ascii()), rule }
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        let hint = format!("{}: {}", error.what, error.rule);
        Error::new(Kind::BadName, error.to_string()).hint(hint)
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the text as it was parsed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if !text.is_empty() && text.len() <= NAME_MAX_BYTES && valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError::new($what, text.as_bytes(), $rule))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

text_name!(
    /// A namespace of artifacts.
    ProjectName,
    "project name",
    "1 to 128 bytes without / \\ # ? % : and control characters, not starting with a dot",
    |text| {
        !text.starts_with('.')
            && !text.chars().any(|c| c.is_control() || "/\\#?%:".contains(c))
    }
);

text_name!(
    /// A named, typed sequence of versions.
    ArtifactName,
    "artifact name",
    "1 to 128 of the characters A-Z a-z 0-9 _ . -, not \".\" or \"..\"",
    |text| {
        text != "." && text != ".."
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    }
);

text_name!(
    /// A movable name for one version; never of the form `v12`.
    Alias,
    "alias",
    "1 to 128 bytes without / : and control characters; v followed by digits names a version",
    |text| !text.chars().any(|c| c.is_control() || "/:".contains(c)) && !looks_like_a_version(text)
);

text_name!(
    /// A word by which versions and artifacts are found; any number of them may share it.
    Tag,
    "tag",
    "1 to 128 bytes without / : and control characters",
    |text| !text.chars().any(|c| c.is_control() || "/:".contains(c))
);

text_name!(
    /// The type of an artifact: `dataset`, `model`, …
    ArtifactType,
    "artifact type",
    "1 to 128 bytes without / : and control characters",
    |text| !text.chars().any(|c| c.is_control() || "/:".contains(c))
);

/// The maximum length of the id of a run or sweep in bytes.
const ID_MAX_BYTES: usize = 64;

fn is_id(text: &str) -> bool {
    text.len() <= ID_MAX_BYTES
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

text_name!(
    /// The id of a run, unique in a repository.
    RunId,
    "run id",
    "1 to 64 of the characters A-Z a-z 0-9 _ -",
    is_id
);

text_name!(
    /// The id of a sweep.
    SweepId,
    "sweep id",
    "1 to 64 of the characters A-Z a-z 0-9 _ -",
    is_id
);

text_name!(
    /// A name shared by runs, or by writers of one version, that belong together.
    GroupName,
    "group name",
    "1 to 128 bytes without / : and control characters",
    |text| !text.chars().any(|c| c.is_control() || "/:".contains(c))
);

text_name!(
    /// The name of a person or service with keys to a server.
    UserName,
    "user name",
    "1 to 64 of the characters A-Z a-z 0-9 _ . @ -, not starting with a dot or hyphen",
    |text| {
        text.len() <= ID_MAX_BYTES
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@-".contains(&b))
    }
);

text_name!(
    /// The name of a repository on a server.
    TeamName,
    "team name",
    "1 to 64 of the characters A-Z a-z 0-9 _ . -, not starting with a dot or hyphen",
    |text| {
        text.len() <= ID_MAX_BYTES
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    }
);

impl Alias {
    /// Returns the alias that every new version gets.
    pub(crate) fn latest() -> Self {
        Self("latest".to_owned())
    }
}

impl Default for ArtifactType {
    fn default() -> Self {
        Self("dataset".to_owned())
    }
}

fn looks_like_a_version(text: &str) -> bool {
    text.strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The number of a version within its artifact: `v0`, `v1`, …; it is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionNumber(pub u64);

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for VersionNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let number = text.strip_prefix('v').filter(|_| looks_like_a_version(text));
        let canonical = number.filter(|d| *d == "0" || !d.starts_with('0'));
        canonical
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| NameError::new("version", text.as_bytes(), "v followed by a number"))
    }
}

/// The name of one directory entry: 1 to 255 bytes, never `.`, `..`, and without `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// Returns the raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the name in the form of the system calls.
    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl TryFrom<&[u8]> for EntryName {
    type Error = NameError;

    fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
        let good = (1..=ENTRY_NAME_MAX_BYTES).contains(&bytes.len())
            && bytes != b"."
            && bytes != b".."
            && !bytes.iter().any(|b| matches!(b, b'/' | 0));
        if good {
            return Ok(Self(bytes.into()));
        }
        let rule = "1 to 255 bytes without / and NUL, not \".\" or \"..\"";
        Err(NameError::new("file name", bytes, rule))
    }
}

impl TryFrom<&OsStr> for EntryName {
    type Error = NameError;

    fn try_from(name: &OsStr) -> Result<Self, NameError> {
        name.as_bytes().try_into()
    }
}

impl TryFrom<Vec<u8>> for EntryName {
    type Error = NameError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, NameError> {
        bytes.as_slice().try_into()
    }
}

impl From<EntryName> for Vec<u8> {
    fn from(name: EntryName) -> Vec<u8> {
        name.0.into_vec()
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_alias_never_looks_like_a_version() {
        assert!("v3".parse::<Alias>().is_err());
        assert!("v3a".parse::<Alias>().is_ok());
        assert!("v".parse::<Alias>().is_ok());
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(129)] {
            assert!(bad.parse::<ArtifactName>().is_err(), "{bad:?}");
        }
        for bad in ["", ".hidden", "a/b", "a:b", "a\nb", "a%b"] {
            assert!(bad.parse::<ProjectName>().is_err(), "{bad:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert!(EntryName::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_version_number_has_one_spelling() {
        assert_eq!("v0".parse::<VersionNumber>().unwrap(), VersionNumber(0));
        assert!("v01".parse::<VersionNumber>().is_err());
        assert!("v99999999999999999999999".parse::<VersionNumber>().is_err());
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(text in ".{0,140}") {
            if let Ok(name) = text.parse::<ProjectName>() {
                prop_assert_eq!(name.to_string(), text.clone());
            }
            if let Ok(name) = text.parse::<Alias>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
