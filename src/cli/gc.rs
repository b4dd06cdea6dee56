//! `gc`.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::bytes;
use super::{connect, exit};
use artifactfs::error::Result;
use artifactfs::model::counted::counted;
use artifactfs::ops::gc::{Collected, collect_deferred};

#[derive(Args)]
pub struct Gc {
    /// Free dead bytes in packs of which more than this share is dead
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=100))]
    garbage: u64,
    /// Also free what killed or failed puts stored, which is otherwise kept for a day for a retry
    #[arg(long)]
    unfinished: bool,
}

pub fn gc(context: &Context, verb: Gc) -> Result<u8> {
    let repository = connect::open_repository(context)?;
    let collected = collect_deferred(&repository, verb.garbage, verb.unfinished)?;
    let Collected { packs, freed_bytes, left_bytes } = collected;
    let document =
        json!({ "packs": packs, "freed_bytes": freed_bytes, "garbage_bytes": left_bytes });
    context.output.print(document, || {
        let (freed, left) = (bytes(freed_bytes), bytes(left_bytes));
        let packs = counted(packs, "pack");
        vec![format!("{packs}, {freed} freed, {left} of garbage left")]
    });
    Ok(exit::DONE)
}
