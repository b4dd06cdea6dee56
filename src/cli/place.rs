//! Places in a repository, as users write them: names, and a path within a version.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::name::EntryName;

/// A `project/artifact/path`; parts may be missing, and the path may have any bytes.
pub struct Place<'a> {
    pub project: &'a str,
    pub artifact: Option<&'a str>,
    pub path: Option<&'a [u8]>,
}

impl<'a> Place<'a> {
    pub fn of(text: &'a OsStr) -> Result<Self> {
        let mut rest = text.as_bytes();
        while let Some(shorter) = rest.strip_suffix(b"/") {
            rest = shorter;
        }
        let mut parts = rest.splitn(3, |byte| *byte == b'/');
        let mut name = || parts.next().map(std::str::from_utf8).transpose();
        let names = name().and_then(|project| Ok((project.unwrap_or(""), name()?)));
        let (project, artifact) = names.map_err(|_| {
            Error::new(Kind::Usage, format!("{text:?} begins with a name that is not UTF-8"))
        })?;
        Ok(Self { project, artifact, path: parts.next() })
    }
}

/// Parses a path within a version into its names.
pub fn path_within(text: &[u8]) -> Result<Vec<EntryName>> {
    let parts = text.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.map(|part| Ok(EntryName::try_from(part)?)).collect()
}
