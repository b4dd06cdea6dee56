//! `init` and `status`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{bytes, table};
use super::{Context, connect, exit};
use crate::error::Result;
use crate::ops::repository::Layout;
use crate::registry::system_clock;

#[derive(Args)]
pub struct Init {
    /// Where [default: --repo, or the default repository]
    directory: Option<PathBuf>,
    /// Where the bytes go [default: file:store, below the repository]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

#[derive(Args)]
pub struct Status {}

pub fn init(context: &Context, verb: Init) -> Result<u8> {
    let directory = verb.directory.unwrap_or_else(|| context.repo.value.clone());
    let layout = Layout::new(&directory)?;
    let settings = layout.init(verb.store.as_deref(), system_clock()())?;
    let root = layout.root.display().to_string();
    let document = json!({
        "repository": root,
        "id": settings.id,
        "format": settings.format,
        "store": settings.store,
        "chunker": settings.chunker,
    });
    context.output.print(document, || vec![root]);
    Ok(exit::DONE)
}

pub fn status(context: &Context, _verb: Status) -> Result<u8> {
    let repository = connect::open_repository(&context.repo)?;
    let info = repository.registry.info()?;
    let space = repository.store.space()?;
    let root = repository.layout.root.display().to_string();
    let document = json!({
        "repository": root,
        "store_bytes": info.live_bytes,
        "objects": info.objects,
        "packs": info.packs,
        "free_bytes": space.free_bytes,
        "total_bytes": space.total_bytes,
    });
    context.output.print(document, || {
        let store = bytes(info.live_bytes);
        let rows = [
            ("repository", root),
            (
                "store",
                format!("{store} in {} objects, {} packs", info.objects, info.packs),
            ),
            (
                "free",
                format!(
                    "{} of {}",
                    bytes(space.free_bytes),
                    bytes(space.total_bytes)
                ),
            ),
        ];
        table(&rows.map(|(key, value)| vec![key.to_owned(), value]))
    });
    Ok(exit::DONE)
}
