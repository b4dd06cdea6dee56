//! References: `project/artifact:alias`, `project/artifact:v3`, `project/artifact`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::{Alias, ArtifactName, NameError, ProjectName, VersionNumber};

const RULE: &str = "project/artifact, project/artifact:alias or project/artifact:v3";

/// An artifact within its project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArtifactPath {
    /// The project.
    pub project: ProjectName,
    /// The artifact.
    pub artifact: ArtifactName,
}

impl FromStr for ArtifactPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (project, artifact) = text
            .split_once('/')
            .ok_or_else(|| NameError::new("artifact path", text.as_bytes(), "project/artifact"))?;
        Ok(Self { project: project.parse()?, artifact: artifact.parse()? })
    }
}

impl fmt::Display for ArtifactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.artifact)
    }
}

/// The choice of a version of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Selector {
    /// The version an alias stands for when it is looked up.
    Alias(Alias),
    /// A version by its number.
    Version(VersionNumber),
}

impl FromStr for Selector {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self::Version).or_else(|_| text.parse().map(Self::Alias))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias(alias) => alias.fmt(f),
            Self::Version(number) => number.fmt(f),
        }
    }
}

/// One version of one artifact. Without a selector it means `latest`; `@` may stand for `:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The artifact.
    pub path: ArtifactPath,
    /// The choice of its version.
    pub selector: Selector,
}

/// Splits `mnist:best`, `mnist@best` or `mnist` into the artifact and, if given, the selector.
///
/// # Errors
/// If either part is not a valid name.
pub(crate) fn parse_artifact_name(
    text: &str,
) -> Result<(ArtifactName, Option<Selector>), NameError> {
    match text.split_once([':', '@']) {
        Some((artifact, selector)) => Ok((artifact.parse()?, Some(selector.parse()?))),
        None => Ok((text.parse()?, None)),
    }
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (project, rest) = text
            .split_once('/')
            .ok_or_else(|| NameError::new("reference", text.as_bytes(), RULE))?;
        let (artifact, selector) = parse_artifact_name(rest)?;
        Ok(Self {
            path: ArtifactPath { project: project.parse()?, artifact },
            selector: selector.unwrap_or_else(|| Selector::Alias(Alias::latest())),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.selector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_reference() {
        let best: Reference = "p/mnist:best".parse().unwrap();
        assert_eq!(best, "p/mnist@best".parse().unwrap());
        assert_eq!(best.to_string(), "p/mnist:best");
        assert_eq!("p/mnist".parse::<Reference>().unwrap().to_string(), "p/mnist:latest");
        let third: Reference = "p/mnist:v3".parse().unwrap();
        assert_eq!(third.selector, Selector::Version(VersionNumber(3)));
        for bad in ["mnist", "p/", "/m", "p/m:", "p/m:a:b", "p/a/b", "p/m:v3/x", "../m", "-"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
