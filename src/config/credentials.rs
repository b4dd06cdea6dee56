//! The file of credentials: the keys of this user to servers.
//!
//! ```text
//! ["https://files.example"]      a server, or a repository on it
//! key = "af-…"
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{AccessHint, Error, IoContext, Kind, Result};
use crate::model::api_key::ApiKey;
use crate::model::server_url::ServerUrl;

/// The permissions of group and others. The file must give them none.
const OTHERS: u32 = 0o077;
/// The longest file with a key that is read, in bytes.
const KEY_FILE_MAX_BYTES: u64 = 4_096;

/// The sources of this user's keys.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The file with the one key to use.
    pub key_file: Option<PathBuf>,
    /// The file of credentials.
    pub file: Option<PathBuf>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Servers(BTreeMap<String, Entry>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
}

impl Credentials {
    /// Returns the key for a repository or server by its name: its own, else that of the server.
    ///
    /// # Errors
    /// [`Kind::Denied`] if there is none, or if others may read it; [`Kind::Usage`] for a file that
    /// cannot be parsed.
    pub fn find(&self, name: &str, server: &ServerUrl) -> Result<ApiKey> {
        if let Some(path) = &self.key_file {
            return read_key(path);
        }
        let servers = self.file.as_deref().map(read).transpose()?.unwrap_or_default();
        let of_server = server.to_string();
        match [name, &of_server].into_iter().find_map(|name| servers.0.get(name)) {
            Some(entry) => entry.key.parse(),
            None => Err(Error::new(Kind::Denied, format!("there is no key for {name}"))
                .hint(AccessHint::SignIn(of_server.clone()))),
        }
    }

    /// Records the key for a server or a repository, in place of an earlier one.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is no home to put the file in; errors of the disk.
    pub fn set(&self, name: &str, key: &ApiKey) -> Result<()> {
        self.change(|servers| {
            let key = key.reveal().to_owned();
            servers.0.insert(name.to_owned(), Entry { key });
        })
    }

    /// Removes the key for a server or a repository. Returns whether there was one.
    ///
    /// # Errors
    /// As [`Credentials::set`].
    pub fn remove(&self, name: &str) -> Result<bool> {
        let mut removed = false;
        self.change(|servers| removed = servers.0.remove(name).is_some())?;
        Ok(removed)
    }

    /// Returns the servers and repositories for which there are keys.
    ///
    /// # Errors
    /// As [`Credentials::find`].
    pub fn names(&self) -> Result<Vec<String>> {
        let servers = self.file.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(servers.0.into_keys().collect())
    }

    fn change(&self, change: impl FnOnce(&mut Servers)) -> Result<()> {
        let path = self.file.as_deref().ok_or_else(|| {
            Error::new(Kind::Usage, "there is no place for credentials: $HOME is not set")
                .hint("set it, or name a file with the key in ARTIFACTFS_KEY_FILE")
        })?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).at("create", folder)?;
        let mut servers = read(path)?;
        change(&mut servers);
        let text = toml::to_string(&servers).expect("keys are plain text");
        // A temporary file is its owner's alone (tempfile), and so is the file that it becomes.
        let mut file = tempfile::NamedTempFile::new_in(folder).at("write", path)?;
        file.write_all(text.as_bytes()).at("write", path)?;
        file.as_file().sync_all().at("sync", path)?;
        file.persist(path).map_err(|e| e.error).at("write", path)?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Servers> {
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Servers::default()),
        text => text.at("read", path)?,
    };
    refuse_others(path)?;
    // The error of the parser would quote a line of the file.
    toml::from_str(&text).map_err(|_| {
        Error::new(Kind::Usage, format!("{} is not a file of credentials", path.display()))
            .hint("remove it, and sign in again")
    })
}

/// Reads a file with one key. Others may be able to read it: secrets that a cluster mounts are.
fn read_key(path: &Path) -> Result<ApiKey> {
    let length = fs::metadata(path).at("read", path)?.len();
    if length > KEY_FILE_MAX_BYTES {
        return Err(Error::new(Kind::Usage, format!("{} is too long for a key", path.display())));
    }
    fs::read_to_string(path).at("read", path)?.trim().parse()
}

fn refuse_others(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).at("read", path)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let what = format!("others may read {} (mode {:o})", path.display(), mode & 0o777);
    Err(Error::new(Kind::Denied, what).hint(format!("chmod 600 {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host::Host;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_key_of_a_repository_precedes_that_of_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config/artifactfs/credentials.toml");
        let credentials = Credentials { key_file: None, file: Some(path.clone()) };
        let server: ServerUrl = "https://files.example".parse().unwrap();
        let find =
            |credentials: &Credentials| credentials.find("https://files.example/vision", &server);
        assert_eq!(find(&credentials).unwrap_err().kind(), Kind::Denied);
        let keys = [(); 2].map(|()| ApiKey::new(&Host::system()));
        credentials.set("https://files.example", &keys[0]).unwrap();
        assert_eq!(find(&credentials).unwrap(), keys[0]);
        credentials.set("https://files.example/vision", &keys[1]).unwrap();
        assert_eq!(find(&credentials).unwrap(), keys[1]);
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(credentials.remove("https://files.example/vision").unwrap());
        assert!(!credentials.remove("https://files.example/vision").unwrap());
        assert_eq!(find(&credentials).unwrap(), keys[0]);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_no_error_shows_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        let credentials = Credentials { key_file: None, file: Some(path.clone()) };
        let server: ServerUrl = "https://files.example".parse().unwrap();
        let find =
            |credentials: &Credentials| credentials.find("https://files.example/vision", &server);
        credentials.set("https://files.example", &ApiKey::new(&Host::system())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(find(&credentials).unwrap_err().kind(), Kind::Denied);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "[x]\nkey = \"af-hunter2\"\n key").unwrap();
        assert!(!find(&credentials).unwrap_err().to_string().contains("hunter2"));
        let one = Credentials { key_file: Some(path), file: None };
        assert!(!find(&one).unwrap_err().to_string().contains("hunter2"));
    }
}
