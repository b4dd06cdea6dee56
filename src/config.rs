//! Where settings come from: flags before environment before default, each with its origin.

use std::path::PathBuf;

use crate::error::{Error, Kind, RepositoryHint, Result};

/// The environment variable that names the repository.
pub const REPO_VARIABLE: &str = "ARTIFACTFS_REPO";
/// The environment variable that says where bytes of remote stores are kept.
pub const CACHE_DIR_VARIABLE: &str = "ARTIFACTFS_CACHE_DIR";
/// The environment variable that says how many.
pub const CACHE_SIZE_VARIABLE: &str = "ARTIFACTFS_CACHE_SIZE";
/// The environment variable that says which folders external files of this machine may be in.
pub const EXTERNAL_DIRS_VARIABLE: &str = "ARTIFACTFS_EXTERNAL_DIRS";
/// The environment variable that names the project of runs.
pub const PROJECT_VARIABLE: &str = "ARTIFACTFS_PROJECT";
/// The environment variable that says where a run sees versions.
pub const ROOT_VARIABLE: &str = "ARTIFACTFS_ROOT";

/// Who said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// Nobody: it is what artifactfs does by itself.
    Default,
}

/// A setting and its origin.
#[derive(Debug, Clone)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Who said so.
    pub origin: Origin,
}

/// The directory of the repository: `--repo`, `$ARTIFACTFS_REPO`, `$XDG_DATA_HOME/artifactfs`,
/// `~/.local/share/artifactfs`.
///
/// # Errors
/// [`Kind::Usage`] when none of these is there.
pub fn repository(
    flag: Option<PathBuf>,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> Result<Setting<PathBuf>> {
    if let Some(value) = flag {
        return Ok(Setting { value, origin: Origin::Flag });
    }
    if let Some(value) = variable(REPO_VARIABLE) {
        return Ok(Setting { value, origin: Origin::Environment });
    }
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(variable("HOME")?.join(".local/share")));
    let value = data.map(|data| data.join("artifactfs")).ok_or_else(|| {
        Error::new(Kind::Usage, "no repository is named, and $HOME is not set")
            .hint(RepositoryHint::Locate)
    })?;
    Ok(Setting { value, origin: Origin::Default })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_beats_the_environment_beats_the_default() {
        let environment = |name: &str| match name {
            REPO_VARIABLE => Some(PathBuf::from("/from/env")),
            "HOME" => Some(PathBuf::from("/home/x")),
            _ => None,
        };
        let flag = repository(Some("/from/flag".into()), environment).unwrap();
        assert_eq!((flag.value, flag.origin), ("/from/flag".into(), Origin::Flag));
        let variable = repository(None, environment).unwrap();
        assert_eq!((variable.value, variable.origin), ("/from/env".into(), Origin::Environment));
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/x"));
        let default = repository(None, home).unwrap();
        assert_eq!(default.value, PathBuf::from("/home/x/.local/share/artifactfs"));
        assert_eq!(default.origin, Origin::Default);
        assert!(repository(None, |_| None).is_err());
    }
}
