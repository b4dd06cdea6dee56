//! The URLs of servers and of the repositories that they serve.

use std::fmt;
use std::str::FromStr;

use url::Url;

use super::name::TeamName;
use crate::error::{Error, Kind, Result};

/// The address of a server: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerUrl {
    origin: String,
    /// The host and, unless it is the usual one of the scheme, the port.
    host: String,
}

/// The address of a repository on a server: `https://HOST/TEAM`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TeamUrl {
    /// The server.
    pub server: ServerUrl,
    /// The team, which is the name of the repository.
    pub team: TeamName,
}

impl ServerUrl {
    /// Returns whether requests to it are not encrypted.
    pub fn is_plain(&self) -> bool {
        self.origin.starts_with("http:")
    }

    /// Returns the host and the port, as the name of a directory.
    pub fn directory(&self) -> String {
        self.host.replace([':', '[', ']'], "_")
    }
}

impl TeamUrl {
    /// Returns the URL below which the repository is served.
    pub fn api(&self) -> String {
        format!("{}/api/v1/{}", self.server, self.team)
    }
}

/// Returns whether a text names a server rather than a directory.
pub fn is_server(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Splits a URL into the address of its server and its path. It does not repeat a secret in the
/// text.
fn split(text: &str) -> Result<(ServerUrl, String)> {
    let wrong = |what: &str| {
        Error::new(Kind::Usage, format!("the URL of the server {what}"))
            .hint("write https://HOST/TEAM")
    };
    let url = Url::parse(text).map_err(|e| wrong("cannot be read").because(e))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("does not begin with https:// or http://"));
    }
    let more = url.query().is_some() || url.fragment().is_some();
    if more || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds credentials, a query or a fragment, which it must not"));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| wrong("names no host"))?;
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let origin = format!("{}://{host}", url.scheme());
    Ok((ServerUrl { origin, host }, url.path().trim_matches('/').to_owned()))
}

impl FromStr for ServerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (server, path) = split(text)?;
        if path.is_empty() {
            return Ok(server);
        }
        let what = format!("\"{server}/{path}\" names more than a server");
        Err(Error::new(Kind::Usage, what).hint(format!("write {server}")))
    }
}

impl FromStr for TeamUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (server, path) = split(text)?;
        if path.is_empty() {
            let what = format!("\"{server}\" names no team");
            return Err(Error::new(Kind::Usage, what).hint(format!("write {server}/TEAM")));
        }
        Ok(Self { server, team: path.parse()? })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

impl fmt::Display for TeamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.team)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_is_below_its_server() {
        let url: TeamUrl = "https://files.example:8443/vision/".parse().unwrap();
        assert_eq!(url.to_string(), "https://files.example:8443/vision");
        assert_eq!(url.api(), "https://files.example:8443/api/v1/vision");
        assert_eq!(url.server.directory(), "files.example_8443");
        assert_eq!(url.server, "https://files.example:8443".parse().unwrap());
        let usual: TeamUrl = "HTTPS://Files.example:443/vision".parse().unwrap();
        assert_eq!(usual.to_string(), "https://files.example/vision");
    }

    #[test]
    fn a_url_with_more_than_a_place_is_refused_without_its_secret() {
        for text in [
            "https://key:af-hunter2@host/team",
            "https://af-hunter2@host/team",
            "https://host/team?key=af-hunter2",
            "https://host/team#af-hunter2",
            "ftp://host/af-hunter2",
            "https://host/team/more/af-hunter2 x",
        ] {
            let error = text.parse::<TeamUrl>().unwrap_err();
            let shown = format!("{error}{:?}", error.hints());
            assert!(!shown.contains("hunter2") || text.contains("more"), "{shown}");
        }
        for text in ["https://host", "https://", "host/team", "https://host/a/b", "https://host/.x"]
        {
            assert!(text.parse::<TeamUrl>().is_err(), "{text}");
        }
    }
}
