//! `login`, `logout` and `whoami`.

use std::io::{IsTerminal, Read, Write};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::context::{Context, parse};
use super::output::table;
use super::{access, connect, exit};
use artifactfs::client;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::api_key::ApiKey;
use artifactfs::model::name::TeamName;
use artifactfs::model::server_url::{ServerUrl, TeamUrl};
use artifactfs::protocol::served::Whoami;

/// The maximum length of what is read as a key, in bytes.
const KEY_MAX_BYTES: u64 = 4_096;

#[derive(Args)]
pub struct Login {
    /// The server, or a repository on it: https://HOST or https://HOST/TEAM
    url: String,
}

#[derive(Args)]
pub struct Logout {
    /// The server or repository, as it was given to `login`
    url: String,
}

#[derive(Args)]
pub struct WhoamiVerb {
    /// The server or repository [default: that of --repo]
    url: Option<String>,
}

/// A server or a repository on it.
enum Place {
    Server(ServerUrl),
    Team(TeamUrl),
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        match parse(text) {
            Ok(server) => Ok(Self::Server(server)),
            Err(_) => parse(text).map(Self::Team),
        }
    }

    fn server(&self) -> &ServerUrl {
        match self {
            Self::Server(server) => server,
            Self::Team(team) => &team.server,
        }
    }

    /// Returns the name under which the key is kept.
    fn name(&self) -> String {
        match self {
            Self::Server(server) => server.to_string(),
            Self::Team(team) => team.to_string(),
        }
    }

    /// Refuses a key that does not open the repository.
    fn refuse_closed(&self, found: &Whoami) -> Result<()> {
        match self {
            Self::Team(url) if !found.teams.iter().any(|(team, _)| *team == url.team) => {
                Err(Error::new(Kind::Denied, format!("{url} does not accept the key")))
            }
            _ => Ok(()),
        }
    }
}

pub fn login(context: &Context, verb: &Login) -> Result<u8> {
    let place = Place::parse(&verb.url)?;
    if place.server().is_plain() {
        let server = place.server();
        context.output.note(&format!(
            "artifactfs: {server} is not encrypted: the key can be read on the way"
        ));
    }
    let key = read_key()?;
    let found = client::whoami(place.server(), &key)?;
    place.refuse_closed(&found)?;
    access::credentials(&context.config).set(&place.name(), &key)?;
    print_whoami(context, &place, &found);
    Ok(exit::DONE)
}

pub fn logout(context: &Context, verb: &Logout) -> Result<u8> {
    let place = Place::parse(&verb.url)?;
    let name = place.name();
    if !access::credentials(&context.config).remove(&name)? {
        let known = access::credentials(&context.config).names()?.join(", ");
        let error = Error::new(Kind::NotFound, format!("there is no key for {name}"));
        return Err(if known.is_empty() {
            error
        } else {
            error.hint(format!("there are keys for {known}"))
        });
    }
    context.output.print(json!({ "server": name }), || vec![name.clone()]);
    Ok(exit::DONE)
}

pub fn whoami(context: &Context, verb: &WhoamiVerb) -> Result<u8> {
    let place = match &verb.url {
        Some(url) => Place::parse(url)?,
        None => Place::Team(connect::server_of(&context.config)?.ok_or_else(|| {
            Error::new(Kind::Usage, "no server is named")
                .hint("say which: artifactfs whoami https://HOST")
        })?),
    };
    let key = access::credentials(&context.config).find(&place.name(), place.server())?;
    let found = client::whoami(place.server(), &key)?;
    place.refuse_closed(&found)?;
    print_whoami(context, &place, &found);
    Ok(exit::DONE)
}

fn print_whoami(context: &Context, place: &Place, found: &Whoami) {
    let Whoami { user, teams, release } = found;
    let server = place.server();
    let url = |team: &TeamName| format!("{server}/{team}");
    let document = json!({
        "server": server.to_string(),
        "user": user,
        "release": release,
        "repositories": teams.iter().map(|(team, role)| json!({ "url": url(team), "role": role })).collect::<Vec<_>>(),
    });
    context.output.print(document, || {
        let row = |(team, role): &_| vec![user.to_string(), url(team), format!("{role}")];
        table(&teams.iter().map(row).collect::<Vec<_>>())
    });
}

/// Reads a key: the text on standard input, or, at a terminal, a line that is not shown.
fn read_key() -> Result<ApiKey> {
    let stdin = std::io::stdin();
    let unread = |e| Error::io("cannot read the key", e);
    let mut text = String::new();
    if stdin.is_terminal() {
        // A prompt that cannot be shown is no reason not to read.
        let _ = write!(std::io::stderr(), "key: ");
        let shown = tcgetattr(&stdin).map_err(|e| unread(e.into()))?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| unread(e.into()))?;
        let read = stdin.read_line(&mut text);
        tcsetattr(&stdin, OptionalActions::Now, &shown).map_err(|e| unread(e.into()))?;
        let _ = writeln!(std::io::stderr());
        read.map_err(unread)?;
    } else {
        stdin.lock().take(KEY_MAX_BYTES).read_to_string(&mut text).map_err(unread)?;
    }
    text.trim().parse()
}
