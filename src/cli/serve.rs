//! `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, parse};
use super::user::print_key;
use super::{connect, exit};
use artifactfs::daemon::{HttpOptions, ServeRequest, Serving, TlsFiles, process};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::access::Role;
use artifactfs::model::server_url::is_server;
use artifactfs::ops::access::{self, KeyRequest};
use artifactfs::ops::repository::Layout;
use artifactfs::ops::served;

#[derive(Args)]
pub struct Serve {
    /// The address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8790")]
    listen: SocketAddr,
    /// The file with the certificate and those of its authorities, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The file with the certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Allow plain HTTP on an address that others reach: keys can be read on the way
    #[arg(long, conflicts_with = "tls_cert")]
    insecure_http: bool,
    /// Pass all bytes through the server: clients cannot reach the bucket
    #[arg(long)]
    proxy_bytes: bool,
    /// Serve `GET /metrics` on this address and port, without a key
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Log each request
    #[arg(long)]
    access_log: bool,
    /// The time in seconds that requests under way get when the server ends
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    #[command(subcommand)]
    verb: Option<ServeVerb>,
}

impl Serve {
    /// Returns whether the command is a server.
    pub fn serves(&self) -> bool {
        self.verb.is_none()
    }
}

#[derive(Subcommand)]
enum ServeVerb {
    /// Make the first user of a repository, an admin, and print the key
    Init {
        /// The name of the user
        #[arg(long, value_name = "NAME")]
        admin: String,
    },
}

pub fn serve(context: &Context, repos: &[PathBuf], verb: Serve) -> Result<u8> {
    if let Some(ServeVerb::Init { admin }) = &verb.verb {
        return init(context, admin);
    }
    process::raise_descriptors();
    let named = match repos {
        [] => vec![connect::layout_of(context)?],
        _ => repos.iter().map(|repo| own_layout(repo)).collect::<Result<_>>()?,
    };
    let tls = verb.tls_cert.zip(verb.tls_key);
    let http = HttpOptions {
        listen: verb.listen,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        insecure_http: verb.insecure_http,
        access_log: verb.access_log,
        metrics: verb.metrics_listen,
        proxy_bytes: verb.proxy_bytes,
    };
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    let request = ServeRequest {
        http,
        drain: Duration::from_secs(verb.drain),
        store: context.access.clone(),
    };
    let serving = Serving::start(&named, &request)?;
    let server = format!("{scheme}://{}", serving.address());
    let urls: Vec<_> = serving.teams().map(|team| format!("{server}/{team}")).collect();
    context.output.print(json!({ "listen": server, "repositories": urls }), || urls.clone());
    serving.serve()?;
    Ok(exit::DONE)
}

/// Returns the layout of a repository in a directory of this machine.
fn own_layout(repo: &std::path::Path) -> Result<Layout> {
    if repo.to_str().is_some_and(is_server) {
        let what = format!("{} is on a server already", repo.display());
        return Err(Error::new(Kind::Usage, what).hint("name the directory of a repository"));
    }
    let layout = Layout::new(repo)?;
    layout.settings()?;
    Ok(layout)
}

fn init(context: &Context, admin: &str) -> Result<u8> {
    let name = parse(admin)?;
    if connect::server_of(&context.config)?.is_some() {
        let what = "the first user is made on the server itself";
        return Err(Error::new(Kind::Usage, what).hint("name the directory of the repository"));
    }
    let repository = connect::open_repository(context)?;
    served::team_of(&repository.layout)?;
    if !access::users(&repository)?.is_empty() {
        let what = "the repository has users already";
        return Err(Error::new(Kind::Conflict, what).hint(
            "`artifactfs user create` makes another, and `artifactfs key create` another key",
        ));
    }
    if !served::make_zoned(&repository)? {
        context.output.note(
            "artifactfs: the repository had versions or drafts before it had users, so all users see all projects",
        );
    }
    let request = KeyRequest { note: "made by serve init".to_owned(), ..KeyRequest::default() };
    let (user, key) = access::create_user(&repository, name, Role::Admin, request)?;
    print_key(context, json!({ "user": user.name, "role": user.role }), &key);
    Ok(exit::DONE)
}
