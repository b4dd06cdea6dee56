//! `init`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::context::{Context, parse};
use super::exit;
use artifactfs::content::store::StoreUrl;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::name::TeamName;
use artifactfs::model::server_url::is_server;
use artifactfs::ops::repository::Layout;
use artifactfs::ops::shared::{self, Address};

#[derive(Args)]
pub struct Init {
    /// The directory [default: --repo, or the default repository]
    directory: Option<PathBuf>,
    /// The store for content [default: file:store, below the repository]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// A registry that several hosts share: postgres://USER@HOST/DATABASE. Without --store, this
    /// directory joins a repository that is there
    #[arg(long = "registry", value_name = "URL")]
    shared: Option<String>,
    /// The name under which servers serve it [default: that of the directory]
    #[arg(long, value_name = "TEAM")]
    name: Option<String>,
    /// An option for the store, such as endpoint=URL or region=NAME; never a secret
    #[arg(long = "store-option", value_name = "KEY=VALUE")]
    store_options: Vec<String>,
}

pub fn init(context: &Context, verb: Init) -> Result<u8> {
    let directory = verb.directory.unwrap_or_else(|| context.config.repo.value.clone());
    if directory.to_str().is_some_and(is_server) {
        let what = format!("{} is a repository on a server", directory.display());
        return Err(Error::new(Kind::Usage, what).hint("name the directory of a new one"));
    }
    let layout = Layout::new(&directory)?;
    let store = verb.store.as_deref().map(parse::<StoreUrl>).transpose()?;
    let options = store_options(&verb.store_options)?;
    let address = verb.shared.as_deref().map(parse::<Address>).transpose()?;
    let team = verb.name.as_deref().map(parse::<TeamName>).transpose()?;
    let host = &context.access.host;
    let settings = match (&address, &store) {
        (None, _) => layout.init(store.as_ref(), options, team, host)?,
        (Some(address), Some(store)) => shared::init(&layout, address, store, options, team, host)?,
        (Some(_), None) if team.is_some() => {
            let what = "the repository has its name already, which its registry keeps";
            return Err(Error::new(Kind::Usage, what).hint("join it without --name"));
        }
        (Some(address), None) => shared::join(&layout, address, host)?,
    };
    let root = layout.root.display().to_string();
    let document = json!({
        "repository": root,
        "id": settings.id,
        "format": settings.format,
        "store": settings.store,
        "store_options": settings.store_options,
        "registry": settings.registry,
        "chunker": settings.chunker,
    });
    context.output.print(document, || vec![root]);
    Ok(exit::DONE)
}

/// Parses options of a store, `KEY=VALUE`; of equal keys the last one stands.
pub fn store_options(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| {
            Error::new(Kind::Usage, format!("\"{text}\" is not an option")).hint("write KEY=VALUE")
        })?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}
