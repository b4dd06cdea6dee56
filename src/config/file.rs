//! The files of settings: `artifactfs.toml` of the user and of the machine.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::CONFIG_VARIABLE;
use super::environment::{Environment, Variable};
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::server_url::is_server;

/// The machine's file.
const MACHINE: &str = "/etc/artifactfs/artifactfs.toml";
/// The user's file, below the directory of configurations.
const USER: &str = "artifactfs/artifactfs.toml";

/// The settings of one file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// The repository's directory, or its URL on a server.
    pub(crate) repo: Option<PathBuf>,
    /// The cache's directory.
    pub(crate) cache_dir: Option<PathBuf>,
    /// The size limit of the cache.
    pub(crate) cache_size: Option<Size>,
    /// The folders that local external files may be in.
    pub(crate) external_dirs: Option<Vec<PathBuf>>,
    /// The project of runs that name none.
    pub(crate) project: Option<String>,
}

/// A size as a text (`"10GiB"`) or as a number of bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Written")]
pub(super) struct Size(pub String);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl From<Written> for Size {
    fn from(written: Written) -> Self {
        match written {
            Written::Number(bytes) => Self(bytes.to_string()),
            Written::Text(text) => Self(text),
        }
    }
}

/// Reads the files that exist, the stronger first: the user's, then the machine's. If
/// `$ARTIFACTFS_CONFIG` names a file, only that one is read, and it must exist.
///
/// # Errors
/// As [`read`]; [`Kind::NotFound`] if the named file does not exist.
pub(super) fn read_all(environment: &Environment) -> Result<Vec<(PathBuf, Settings)>> {
    if let Some(path) = environment.get(CONFIG_VARIABLE).map(PathBuf::from) {
        let settings = read(&path)?.ok_or_else(|| {
            let what = format!("{CONFIG_VARIABLE} names {}, which does not exist", path.display());
            Error::new(Kind::NotFound, what)
        })?;
        return Ok(vec![(path, settings)]);
    }
    let named = environment.path(Variable::XdgConfigHome).filter(|path| path.is_absolute());
    let user = named.or_else(|| Some(environment.path(Variable::Home)?.join(".config")));
    let paths = user.map(|folder| folder.join(USER)).into_iter().chain([PathBuf::from(MACHINE)]);
    let found = paths.map(|path| Ok(read(&path)?.map(|settings| (path, settings))));
    found.filter_map(Result::transpose).collect()
}

/// Reads one file; `None` if it does not exist, or is in a folder that is closed to this user.
///
/// # Errors
/// [`Kind::Usage`] for a file that is not TOML, an unknown key, a value of another type and a
/// relative path; any error of the disk.
pub(super) fn read(path: &Path) -> Result<Option<Settings>> {
    // Behind a folder that is closed to this user, as $HOME may be that of another, nothing is set.
    let closed = || fs::metadata(path).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
    let text = match fs::read_to_string(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied && closed() => return Ok(None),
        text => text.at("read", path)?,
    };
    let settings: Settings = toml::from_str(&text).map_err(|e| {
        let what = format!("{} is not a file of settings: {e}", path.display());
        Error::new(Kind::Usage, what.trim_end())
            .hint("the manual lists the settings under CONFIGURATION")
    })?;
    let folders = settings.external_dirs.iter().flatten();
    let repo = settings.repo.iter().filter(|repo| !repo.to_str().is_some_and(is_server));
    let mut paths = repo.chain(&settings.cache_dir).chain(folders);
    match paths.find(|path| !path.is_absolute()) {
        Some(relative) => {
            let what =
                format!("{}: {} is not an absolute path", path.display(), relative.display());
            Err(Error::new(Kind::Usage, what).hint("write the path from / on"))
        }
        None => Ok(Some(settings)),
    }
}
