//! The address of a registry in PostgreSQL.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::error::{Error, IoContext, Kind, Result};

/// The longest time to connect to one host.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The time without an answer after which a connection is given up.
const TCP_DEADLINE: Duration = Duration::from_secs(30);
/// The default schema.
const SCHEMA: &str = "artifactfs";

/// The protection of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tls {
    /// None.
    Off,
    /// TLS; the server's certificate must be for its name, and signed by an authority of this file,
    /// or by one that the host trusts.
    VerifyFull(Option<PathBuf>),
}

/// The address of a registry in PostgreSQL:
/// `postgres://USER@HOST[:PORT][,HOST[:PORT]…]/DATABASE[?KEY=VALUE[&KEY=VALUE…]]`.
///
/// Keys are those of libpq (PostgreSQL's manual, "Connection URIs"), as far as they apply. `schema`
/// names the schema of the registry; without it that is `artifactfs`. Passwords are not part of it:
/// they come from `$PGPASSWORD`, or from the file `$PGPASSFILE` or `passfile`, or `~/.pgpass`.
#[derive(Clone)]
pub struct Address {
    text: String,
    pub(super) config: Config,
    pub(super) schema: String,
    pub(super) tls: Tls,
    passfile: Option<PathBuf>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.text)
    }
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(Kind::Usage, what)
}

impl FromStr for Address {
    type Err = Error;

    /// # Errors
    /// [`Kind::Usage`] if the text is no such address, or holds a password.
    fn from_str(text: &str) -> Result<Self> {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut schema, mut mode, mut root, mut passfile) = (SCHEMA.to_owned(), None, None, None);
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
            match key {
                "schema" => schema = value,
                "sslmode" => mode = Some(value),
                "sslrootcert" => root = Some(PathBuf::from(value)),
                "passfile" => passfile = Some(PathBuf::from(value)),
                "password" => return Err(has_password()),
                _ => others.push(pair),
            }
        }
        let rest = if others.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", others.join("&"))
        };
        // The text may hold a password, so it is not repeated.
        let config = Config::from_str(&rest);
        let mut config = config.map_err(|e| {
            refused("this is no address of a PostgreSQL database")
                .hint("write postgres://USER@HOST/DATABASE")
                .because(e)
        })?;
        if config.get_password().is_some() {
            return Err(has_password());
        }
        check_schema(&schema)?;
        if config.get_hosts().is_empty() {
            return Err(refused(format!("{text} names no host"))
                .hint("write postgres://USER@HOST/DATABASE"));
        }
        if config.get_dbname().is_none() {
            return Err(refused(format!("{text} names no database"))
                .hint("write postgres://USER@HOST/DATABASE"));
        }
        let tls = tls(&config, mode.as_deref(), root)?;
        config
            .ssl_mode(if tls == Tls::Off { SslMode::Disable } else { SslMode::Require })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_DEADLINE)
            .tcp_user_timeout(TCP_DEADLINE)
            .keepalives_idle(TCP_DEADLINE);
        if config.get_application_name().is_none() {
            config.application_name("artifactfs");
        }
        Ok(Self { text: text.to_owned(), config, schema, tls, passfile })
    }
}

fn has_password() -> Error {
    refused("the address of the registry holds a password, which others could read")
        .hint("leave it out, and put it into ~/.pgpass or the variable PGPASSWORD")
}

/// Refuses names that would have to be quoted.
fn check_schema(schema: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if begins && schema.len() <= 63 && schema.chars().all(fits) && !schema.starts_with("pg_") {
        return Ok(());
    }
    Err(refused(format!("\"{schema}\" cannot be the name of the registry's schema"))
        .hint("use at most 63 characters of a-z, 0-9 and _, a letter first"))
}

fn tls(config: &Config, mode: Option<&str>, root: Option<PathBuf>) -> Result<Tls> {
    match mode {
        Some("disable") => Ok(Tls::Off),
        Some("verify-full") => Ok(Tls::VerifyFull(root)),
        Some(other) => Err(refused(format!("sslmode={other} does not check who answers"))
            .hint("use sslmode=verify-full (with sslrootcert=FILE for an authority of your own), or sslmode=disable")),
        None if root.is_none() && config.get_hosts().iter().all(is_local) => Ok(Tls::Off),
        None => Ok(Tls::VerifyFull(root)),
    }
}

/// Returns whether connections to a host stay on this machine.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    }
}

impl Address {
    /// Returns the password for the server, if there is one.
    ///
    /// # Errors
    /// [`Kind::Denied`] for a password file that others may read, as with libpq.
    pub(super) fn password(&self) -> Result<Option<Vec<u8>>> {
        if let Some(password) = variable("PGPASSWORD") {
            return Ok(Some(password.into_encoded_bytes()));
        }
        let named = self.passfile.clone().or_else(|| variable("PGPASSFILE").map(PathBuf::from));
        let home = || Some(PathBuf::from(variable("HOME")?).join(".pgpass"));
        let Some(path) = named.or_else(home) else { return Ok(None) };
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.at("read", &path)?,
        };
        use std::os::unix::fs::PermissionsExt;
        if std::fs::metadata(&path).at("read", &path)?.permissions().mode() & 0o077 != 0 {
            let what = format!("others may read the passwords in {}", path.display());
            return Err(
                Error::new(Kind::Denied, what).hint(format!("chmod 600 {}", path.display()))
            );
        }
        Ok(self.password_in(&text))
    }

    /// Finds the password in a password file (PostgreSQL's manual, "The Password File").
    fn password_in(&self, text: &str) -> Option<Vec<u8>> {
        let ports = self.config.get_ports();
        let host = self.config.get_hosts().first()?;
        let host = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(_) => "localhost".to_owned(),
        };
        let port = ports.first().copied().unwrap_or(5432).to_string();
        let wanted =
            [&host, &port, self.config.get_dbname()?, self.config.get_user().unwrap_or_default()];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let fields = fields(line);
            let fits = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
            if fields.len() == 5 && fields.iter().zip(&wanted.map(|w| w as &str)).all(fits) {
                return Some(fields[4].clone().into_bytes());
            }
        }
        None
    }
}

/// Returns the value of a variable of libpq (PostgreSQL's manual, "Environment Variables").
#[expect(clippy::disallowed_methods, reason = "a secret is no setting: it is not kept or shown")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Splits a line at its colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut characters) = (vec![String::new()], line.chars());
    while let Some(c) = characters.next() {
        match c {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut().expect("it has one").extend(characters.next()),
            c => fields.last_mut().expect("it has one").push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let error = text.parse::<Address>().unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{text}");
        error.message()
    }

    #[test]
    fn passwords_are_refused_and_never_repeated() {
        for text in [
            "postgres://u:geheim@h/d",
            "postgres://u@h/d?password=geheim",
            "postgres://u:geheim@h:x/d",
        ] {
            assert!(!refusal(text).contains("geheim"), "{text}");
        }
    }

    #[test]
    fn connections_that_leave_the_machine_are_checked() {
        let tls = |text: &str| text.parse::<Address>().unwrap().tls;
        assert_eq!(tls("postgres://u@127.0.0.1/d"), Tls::Off);
        assert_eq!(tls("postgres://u@db.example/d"), Tls::VerifyFull(None));
        assert_eq!(tls("postgres://u@localhost,db.example/d"), Tls::VerifyFull(None));
        assert_eq!(tls("postgres://u@db.example/d?sslmode=disable"), Tls::Off);
        let own = Tls::VerifyFull(Some("/ca.pem".into()));
        assert_eq!(tls("postgres://u@localhost/d?sslrootcert=/ca.pem"), own);
        assert!(refusal("postgres://u@db.example/d?sslmode=require").contains("require"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "postgres://u@h",
            "postgres:///d",
            "mysql://u@h/d",
            "postgres://u@h/d?schema=A-b",
            "postgres://u@h/d?schema=pg_x",
            "",
        ] {
            refusal(text);
        }
        let address: Address = "postgres://u@h:6432/d?schema=team_1".parse().unwrap();
        assert_eq!((address.schema.as_str(), address.config.get_ports()), ("team_1", &[6432][..]));
    }

    #[test]
    fn the_password_file_is_read_as_libpq_reads_it() {
        let address: Address = "postgres://u@h:6432/d".parse().unwrap();
        let found = |text: &str| address.password_in(text).map(|p| String::from_utf8(p).unwrap());
        assert_eq!(
            found("# h:6432:d:u:no\nother:*:*:*:no\nh:*:d:u:a:b\\:c\\\\d"),
            Some("a:b:c\\d".to_owned())
        );
        assert_eq!(found("*:*:*:*:all"), Some("all".to_owned()));
        assert_eq!(found("h:5432:d:u:no\nh:6432:d"), None);
    }
}
