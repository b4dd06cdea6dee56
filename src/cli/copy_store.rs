//! `copy-store`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::context::{Context, parse};
use super::init::store_options;
use super::output::{Bar, bytes};
use super::{connect, exit};
use artifactfs::content::options::StoreOptions;
use artifactfs::content::store::{Store, StoreUrl, refuse_secrets};
use artifactfs::daemon::daemons;
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::counted::counted;
use artifactfs::ops::copy_store::{copy, move_to, packs_of};
use artifactfs::ops::repository::{Repository, Settings};

#[derive(Args)]
pub struct CopyStore {
    /// The store to copy
    from: String,
    /// The store to copy to
    to: String,
    /// An option for FROM, unless it is the repository's own store; may be given several times
    #[arg(long = "from-option", value_name = "KEY=VALUE")]
    from_options: Vec<String>,
    /// An option for TO; may be given several times
    #[arg(long = "store-option", value_name = "KEY=VALUE")]
    store_options: Vec<String>,
    /// Make TO the store of the repository afterwards
    #[arg(long = "use")]
    uses: bool,
}

fn open(
    repository: &Repository,
    url: &StoreUrl,
    options: &BTreeMap<String, String>,
) -> Result<Store> {
    let options: Vec<_> = options.clone().into_iter().collect();
    Store::open(url, &options, &repository.layout.root, &StoreOptions::default())
}

pub fn copy_store(context: &Context, verb: CopyStore) -> Result<u8> {
    let (from, to): (StoreUrl, StoreUrl) = (parse(&verb.from)?, parse(&verb.to)?);
    let to_options = store_options(&verb.store_options)?;
    refuse_secrets(&to, &to_options.clone().into_iter().collect::<Vec<_>>())?;
    let repository = connect::open_repository(context)?;
    if verb.uses {
        repository.refuse_served()?;
    }
    let own: StoreUrl = repository.settings.store.parse()?;
    let is_own = own == from;
    if verb.uses && !is_own {
        let what = format!("{from} is not the store of the repository, which is {own}");
        return Err(
            Error::new(Kind::Usage, what).hint("--use goes with the repository's own store")
        );
    }
    let in_use = || match daemons(&repository.layout)?.is_empty() {
        true => Ok(()),
        false => Err(Error::new(Kind::Conflict, "the repository is mounted")
            .hint("`artifactfs umount` first: a daemon goes on with the store it began with")),
    };
    if verb.uses {
        in_use()?;
    }
    let from_options = match is_own {
        true => repository.settings.store_options.clone(),
        false => store_options(&verb.from_options)?,
    };
    let source = open(&repository, &from, &from_options)?;
    source.refuse_missing()?;
    let target = open(&repository, &to, &to_options)?;
    let packs = if is_own { packs_of(&repository, false)? } else { source.list()? };
    let bar = Bar::new("copying", None, context.output);
    if let Some(owner) = target.owner()?.filter(|owner| *owner != repository.settings.id) {
        let what = format!("{to} is the store of another repository ({owner})");
        return Err(Error::new(Kind::Conflict, what).hint("copy to a place of its own"));
    }
    target.make()?;
    let mut copied = copy(&source, &target, &packs, &bar)?;
    if verb.uses {
        let settings = Settings {
            store: to.to_string(),
            store_options: to_options,
            ..repository.settings.clone()
        };
        let rest = move_to(&repository, (&source, &target), &settings, &in_use, &bar)?;
        // The second round finds all packs of the first already there, so `kept` stays as it is.
        copied.packs += rest.packs;
        copied.bytes += rest.bytes;
    }
    drop(bar);
    let document = json!({
        "from": from.to_string(),
        "to": to.to_string(),
        "packs": copied.packs,
        "bytes": copied.bytes,
        "packs_that_were_there": copied.kept,
        "used": verb.uses,
    });
    context.output.print(document, || {
        let (packs, kept, size) = (counted(copied.packs, "pack"), copied.kept, bytes(copied.bytes));
        vec![format!("{to}  {packs}, {size} copied, {kept} already there")]
    });
    Ok(exit::DONE)
}
