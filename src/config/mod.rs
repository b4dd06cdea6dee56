//! The settings of a command: flags before environment before files before defaults.
//!
//! Every value keeps its origin, so that `config show` can name it. Invariant: this room alone
//! reads artifactfs's variables and files; others get a [`Config`].

mod credentials;
mod environment;
mod file;
mod size;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, RepositoryHint, Result};

pub use crate::model::run::RUN_VARIABLE;
pub use credentials::Credentials;
pub use environment::{Environment, Variable};
pub use size::parse_size;

/// The environment variable that names the repository.
pub const REPO_VARIABLE: &str = "ARTIFACTFS_REPO";
/// The environment variable that names the cache's directory.
pub(crate) const CACHE_DIR_VARIABLE: &str = "ARTIFACTFS_CACHE_DIR";
/// The environment variable with the size limit of the cache.
pub(crate) const CACHE_SIZE_VARIABLE: &str = "ARTIFACTFS_CACHE_SIZE";
/// The environment variable with the folders that local external files may be in.
pub(crate) const EXTERNAL_DIRS_VARIABLE: &str = "ARTIFACTFS_EXTERNAL_DIRS";
/// The environment variable that names the project of runs.
pub const PROJECT_VARIABLE: &str = "ARTIFACTFS_PROJECT";
/// The environment variable that a run sets for its command: the directory with the versions.
pub const ROOT_VARIABLE: &str = "ARTIFACTFS_ROOT";
/// The environment variable that names a file with the key to a server.
pub const KEY_FILE_VARIABLE: &str = "ARTIFACTFS_KEY_FILE";
/// The environment variable that names one file of settings in place of the usual ones.
pub(crate) const CONFIG_VARIABLE: &str = "ARTIFACTFS_CONFIG";

/// The origin of a setting, from the strongest to the weakest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This environment variable.
    Environment(&'static str),
    /// This file.
    File(PathBuf),
    /// The built-in default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Environment(name) => write!(f, "${name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting and its origin.
#[derive(Debug, Clone)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub origin: Origin,
}

impl<T> Setting<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }
}

/// The settings of a command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The repository's directory, or its URL on a server.
    pub repo: Option<PathBuf>,
    /// The cache's directory.
    pub cache_dir: Option<PathBuf>,
    /// The size limit of the cache, as written.
    pub cache_size: Option<String>,
}

/// All settings of a command.
#[derive(Debug, Clone)]
pub struct Config {
    /// The repository's directory, or its URL on a server.
    pub repo: Setting<PathBuf>,
    /// The cache's directory; `None` if there is no home to put one in.
    pub cache_dir: Setting<Option<PathBuf>>,
    /// The size limit of the cache in bytes; `None` for the built-in limit.
    pub cache_bytes: Setting<Option<u64>>,
    /// The folders that local external files may be in; `None` for all.
    pub external_dirs: Setting<Option<Vec<PathBuf>>>,
    /// The project of runs that name none.
    pub project: Setting<Option<String>>,
    /// The file with the key to a server; `None`: keys are in the credentials.
    pub key_file: Setting<Option<PathBuf>>,
    /// The file of credentials; `None` if there is no home to put one in.
    pub credentials: Option<PathBuf>,
    /// The folder of the directories for repositories on servers; `None` likewise.
    pub servers: Option<PathBuf>,
    /// The run of the command, which only the environment names.
    pub run: Setting<Option<String>>,
    /// The files that were read, the stronger first.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// Merges the sources of settings.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a file that cannot be parsed, a size that is none, a relative folder, and
    /// if no repository can be named. Any error of the disk but for a file that does not exist.
    pub fn load(flags: Flags, environment: &Environment) -> Result<Self> {
        let sources = Sources { environment, files: file::read_all(environment)? };
        let home = |variable: Variable, below: &str| {
            let named = environment.path(variable).filter(|path| path.is_absolute());
            named.or_else(|| Some(environment.path(Variable::Home)?.join(below)))
        };
        let repo = sources
            .path(flags.repo, REPO_VARIABLE, |file| file.repo.as_ref())
            .or_else(|| {
                let data = home(Variable::XdgDataHome, ".local/share")?;
                Some(Setting { value: data.join("artifactfs"), origin: Origin::Default })
            })
            .ok_or_else(|| {
                Error::new(Kind::Usage, "no repository is named, and $HOME is not set")
                    .hint(RepositoryHint::Locate)
            })?;
        let default_cache = || Some(home(Variable::XdgCacheHome, ".cache")?.join("artifactfs"));
        let cache_dir = sources
            .path(flags.cache_dir, CACHE_DIR_VARIABLE, |file| file.cache_dir.as_ref())
            .map(|found| found.map(Some));
        Ok(Self {
            repo,
            cache_dir: cache_dir.unwrap_or_else(|| by_default(default_cache())),
            cache_bytes: sources.cache_bytes(flags.cache_size.as_deref())?,
            external_dirs: sources.external_dirs()?,
            key_file: sources
                .path(None, KEY_FILE_VARIABLE, |_| None)
                .map_or_else(|| by_default(None), |found| found.map(Some)),
            credentials: home(Variable::XdgConfigHome, ".config")
                .map(|folder| folder.join("artifactfs/credentials.toml")),
            servers: home(Variable::XdgStateHome, ".local/state")
                .map(|folder| folder.join("artifactfs/servers")),
            project: sources.text(PROJECT_VARIABLE, |file| file.project.as_ref())?,
            run: sources.text(RUN_VARIABLE, |_| None)?,
            files: sources.files.into_iter().map(|(path, _)| path).collect(),
        })
    }
}

fn by_default<T>(value: T) -> Setting<T> {
    Setting { value, origin: Origin::Default }
}

/// The environment and the files, the stronger first.
struct Sources<'a> {
    environment: &'a Environment,
    files: Vec<(PathBuf, file::Settings)>,
}

impl Sources<'_> {
    fn variable(&self, name: &'static str) -> Option<Setting<OsString>> {
        let value = self.environment.get(name)?;
        Some(Setting { value, origin: Origin::Environment(name) })
    }

    fn file<T: ToOwned + ?Sized>(
        &self,
        field: impl Fn(&file::Settings) -> Option<&T>,
    ) -> Option<Setting<T::Owned>> {
        self.files.iter().find_map(|(path, settings)| {
            let value = field(settings)?.to_owned();
            Some(Setting { value, origin: Origin::File(path.clone()) })
        })
    }

    fn path(
        &self,
        flag: Option<PathBuf>,
        variable: &'static str,
        field: impl Fn(&file::Settings) -> Option<&PathBuf>,
    ) -> Option<Setting<PathBuf>> {
        let flag = flag.map(|value| Setting { value, origin: Origin::Flag });
        let variable = || {
            let found = self.variable(variable)?;
            Some(Setting { value: PathBuf::from(found.value), origin: found.origin })
        };
        flag.or_else(variable).or_else(|| self.file(field))
    }

    fn text(
        &self,
        variable: &'static str,
        field: impl Fn(&file::Settings) -> Option<&String>,
    ) -> Result<Setting<Option<String>>> {
        if let Some(Setting { value, origin }) = self.variable(variable) {
            let value = value.into_string().map_err(|value| {
                Error::new(Kind::Usage, format!("{variable}: {} is not UTF-8", value.display()))
            })?;
            return Ok(Setting { value: Some(value), origin });
        }
        let found = self.file(field);
        Ok(found.map_or_else(|| by_default(None), |found| found.map(Some)))
    }

    fn cache_bytes(&self, flag: Option<&str>) -> Result<Setting<Option<u64>>> {
        let (text, origin) = match (flag, self.variable(CACHE_SIZE_VARIABLE)) {
            (Some(text), _) => (text.to_owned(), Origin::Flag),
            (None, Some(found)) => (found.value.to_string_lossy().into_owned(), found.origin),
            (None, None) => match self.file(|file| file.cache_size.as_ref()) {
                Some(found) => (found.value.0, found.origin),
                None => return Ok(by_default(None)),
            },
        };
        match parse_size(&text) {
            Ok(bytes) => Ok(Setting { value: Some(bytes), origin }),
            Err(_) => Err(Error::new(
                Kind::Usage,
                format!("the size of the cache is \"{text}\" ({origin}), which is not a size"),
            )
            .hint(size::HINT)),
        }
    }

    fn external_dirs(&self) -> Result<Setting<Option<Vec<PathBuf>>>> {
        let Some(Setting { value, origin }) = self.variable(EXTERNAL_DIRS_VARIABLE) else {
            let found = self.file(|file| file.external_dirs.as_ref());
            return Ok(found.map_or_else(|| by_default(None), |found| found.map(Some)));
        };
        let folders = std::env::split_paths(&value).filter(|folder| *folder != Path::new(""));
        let folders: Vec<_> = folders.collect();
        if let Some(folder) = folders.iter().find(|folder| !folder.is_absolute()) {
            let what =
                format!("{EXTERNAL_DIRS_VARIABLE}: {} is not an absolute path", folder.display());
            return Err(Error::new(Kind::Usage, what).hint("write DIR:DIR, each from / on"));
        }
        Ok(Setting { value: Some(folders), origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &'static [(&str, &str)]) -> Environment {
        Environment::of(move |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn load(flags: Flags, variables: &'static [(&str, &str)]) -> Result<Config> {
        Config::load(flags, &environment(variables))
    }

    /// No file of the machine may be read in a test.
    const NO_FILE: (&str, &str) = (CONFIG_VARIABLE, "/dev/null");

    #[test]
    fn a_flag_beats_the_environment_beats_the_default() {
        const VARIABLES: &[(&str, &str)] =
            &[NO_FILE, (REPO_VARIABLE, "/from/env"), ("HOME", "/home/x")];
        let flags = Flags { repo: Some("/from/flag".into()), ..Flags::default() };
        let flag = load(flags, VARIABLES).unwrap().repo;
        assert_eq!((flag.value, flag.origin), ("/from/flag".into(), Origin::Flag));
        let variable = load(Flags::default(), VARIABLES).unwrap().repo;
        assert_eq!(variable.value, PathBuf::from("/from/env"));
        assert_eq!(variable.origin, Origin::Environment(REPO_VARIABLE));
        let default = load(Flags::default(), &[NO_FILE, ("HOME", "/home/x")]).unwrap();
        assert_eq!(default.repo.value, PathBuf::from("/home/x/.local/share/artifactfs"));
        assert_eq!(default.repo.origin, Origin::Default);
        assert_eq!(default.cache_dir.value, Some("/home/x/.cache/artifactfs".into()));
        assert!(load(Flags::default(), &[NO_FILE]).is_err());
    }

    #[test]
    fn an_empty_variable_and_a_relative_directory_of_xdg_are_not_set() {
        const VARIABLES: &[(&str, &str)] = &[
            NO_FILE,
            (REPO_VARIABLE, ""),
            ("XDG_DATA_HOME", "relative"),
            ("XDG_CACHE_HOME", "/caches"),
            ("HOME", "/home/x"),
        ];
        let config = load(Flags::default(), VARIABLES).unwrap();
        assert_eq!(config.repo.value, PathBuf::from("/home/x/.local/share/artifactfs"));
        assert_eq!(config.cache_dir.value, Some("/caches/artifactfs".into()));
    }

    #[test]
    fn the_users_file_beats_the_machines_and_a_variable_beats_both() {
        let folder = tempfile::tempdir().unwrap();
        let (user, machine) = (folder.path().join("user"), folder.path().join("machine"));
        std::fs::write(&user, "cache-size = \"2GiB\"\n").unwrap();
        std::fs::write(&machine, "cache-size = 4096\nproject = \"vision\"\nrepo = \"/data\"\n")
            .unwrap();
        let read = |path: &PathBuf| (path.clone(), file::read(path).unwrap().unwrap());
        let variables = environment(&[(PROJECT_VARIABLE, "audio")]);
        let files = vec![read(&user), read(&machine)];
        let sources = Sources { environment: &variables, files };
        let size = sources.cache_bytes(None).unwrap();
        assert_eq!((size.value, size.origin), (Some(2 << 30), Origin::File(user)));
        let repo = sources.path(None, REPO_VARIABLE, |file| file.repo.as_ref()).unwrap();
        assert_eq!((repo.value, repo.origin), ("/data".into(), Origin::File(machine)));
        let project = sources.text(PROJECT_VARIABLE, |file| file.project.as_ref()).unwrap();
        assert_eq!(project.value.as_deref(), Some("audio"));
        assert_eq!(project.origin, Origin::Environment(PROJECT_VARIABLE));
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_with_its_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("artifactfs.toml");
        for (text, words) in [
            ("cache-dir = \"/c\"\ncache-sise = 5\n", "line 2"),
            ("repo = \"relative\"\n", "not an absolute path"),
            ("external-dirs = [\"/a\", \"b\"]\n", "not an absolute path"),
            ("repo = 5\n", "line 1"),
            ("repo\n", "line 1"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = file::read(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            let message = error.message();
            assert!(message.contains(words) && message.contains("artifactfs.toml"), "{message}");
        }
        assert!(file::read(&folder.path().join("none")).unwrap().is_none());
    }
}
