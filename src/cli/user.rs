//! `user` and `key`: the users of a served repository, and their keys.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::{Context, parse};
use super::output::table;
use super::{connect, exit};
use artifactfs::daemon::connection::session;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::access::{KeyInfo, UserInfo};
use artifactfs::model::api_key::ApiKey;
use artifactfs::model::name::UserName;
use artifactfs::ops::access::{self, KeyRequest};

#[derive(Subcommand)]
pub enum UserVerb {
    /// Make a user, and print the user's first key
    Create {
        /// The name of the user
        name: String,
        /// The user's role: guest, reader, writer or admin
        #[arg(long, default_value = "writer")]
        role: String,
    },
    /// List the users
    Ls,
    /// Change the role of a user
    Role {
        /// The name of the user
        name: String,
        /// The role: guest, reader, writer or admin
        role: String,
    },
    /// Accept no key of a user any more
    Disable {
        /// The name of the user
        name: String,
    },
    /// Accept the keys of a user again
    Enable {
        /// The name of the user
        name: String,
    },
}

#[derive(Subcommand)]
pub enum KeyVerb {
    /// Make a key, and print it
    Create(NewKey),
    /// List keys
    Ls {
        /// The user [default: all whose keys you may see]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Revoke a key, on every server within a second
    Revoke {
        /// The id of the key, as `key ls` prints it
        id: String,
    },
}

#[derive(Args)]
pub struct NewKey {
    /// The user [default: you]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The most that the key allows: reader, writer or admin [default: the user's role]
    #[arg(long)]
    role: Option<String>,
    /// A project for which the key is accepted; may be repeated [default: all]
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
    /// The time after which the key is not accepted any more: 90d, 12h, …
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
    /// The purpose of the key
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
}

pub fn user(context: &Context, verb: UserVerb) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let changed = match verb {
        UserVerb::Create { name, role } => {
            let (name, role) = (parse(&name)?, parse(&role)?);
            let request = KeyRequest::default();
            let (user, key) = access::create_user(&repository, name, role, request)?;
            print_key(context, user_json(&user), &key);
            return Ok(exit::DONE);
        }
        UserVerb::Ls => access::users(&repository)?,
        UserVerb::Role { name, role } => {
            vec![access::change_user(&repository, parse(&name)?, Some(parse(&role)?), None)?]
        }
        UserVerb::Disable { name } => {
            vec![access::change_user(&repository, parse(&name)?, None, Some(true))?]
        }
        UserVerb::Enable { name } => {
            vec![access::change_user(&repository, parse(&name)?, None, Some(false))?]
        }
    };
    context.output.print(changed.iter().map(user_json).collect(), || {
        let row = |user: &UserInfo| {
            let state = if user.disabled { "disabled" } else { "" };
            vec![user.name.to_string(), user.role.to_string(), state.to_owned()]
        };
        table(&changed.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

pub fn key(context: &Context, verb: KeyVerb) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let listed = match verb {
        KeyVerb::Create(new) => {
            let user = match &new.user {
                Some(user) => parse(user)?,
                None => own_name(context)?,
            };
            let role = new.role.as_deref().map(parse).transpose()?;
            let projects = new.projects.iter().map(|name| parse(name)).collect::<Result<_>>()?;
            let request = KeyRequest { role, projects, note: new.note, life: new.expires };
            let (info, key) = access::create_key(&repository, user, request)?;
            print_key(context, key_json(&info), &key);
            return Ok(exit::DONE);
        }
        KeyVerb::Ls { user } => {
            let user = user.as_deref().map(parse).transpose()?;
            access::keys(&repository, user)?
        }
        KeyVerb::Revoke { id } => vec![access::revoke_key(&repository, parse(&id)?)?],
    };
    context.output.print(listed.iter().map(key_json).collect(), || {
        let row = |key: &KeyInfo| {
            let role = key.role.map(|role| role.to_string()).unwrap_or_default();
            let expires = key.expires.map(|at| format!("until {at}")).unwrap_or_default();
            let projects = key.projects.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (id, user) = (key.id.to_string(), key.user.to_string());
            vec![id, user, role, projects.join(" "), expires, key.note.clone()]
        };
        table(&listed.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

/// Returns the name of the user whose key the command has.
fn own_name(context: &Context) -> Result<UserName> {
    match connect::server_of(&context.config)? {
        Some(url) => Ok(session(&url, &context.access)?.principal.user),
        None => Err(Error::new(Kind::Usage, "whose key it is to be is not known here")
            .hint("say --user NAME")),
    }
}

/// Prints a key, alone on the last line.
pub fn print_key(context: &Context, mut document: Value, key: &ApiKey) {
    document["key"] = key.reveal().into();
    context.output.note("artifactfs: the key is shown this once; it is not kept");
    context.output.print(document, || vec![key.reveal().to_owned()]);
}

fn user_json(user: &UserInfo) -> Value {
    let UserInfo { name, role, disabled, created } = user;
    json!({ "name": name, "role": role, "disabled": disabled, "created": created.to_string() })
}

fn key_json(key: &KeyInfo) -> Value {
    let KeyInfo { id, user, role, note, created, expires, projects } = key;
    json!({
        "id": id.to_string(),
        "user": user,
        "role": role,
        "projects": projects,
        "note": note,
        "created": created.to_string(),
        "expires": expires.map(|at| at.to_string()),
    })
}
