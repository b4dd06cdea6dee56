//! `status`.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::output::{bytes, table};
use super::{connect, draft, exit, groups, stats};
use artifactfs::daemon::{DaemonRecord, Running};
use artifactfs::error::Result;
use artifactfs::model::counted::counted;

#[derive(Args)]
pub struct Status {}

/// Describes why a daemon still runs although its mounts are detached.
fn what_keeps(daemon: &DaemonRecord) -> String {
    let places: Vec<_> = daemon.elsewhere().iter().map(ToString::to_string).collect();
    match (daemon.commits, places.is_empty()) {
        (true, _) => "committing a draft".to_owned(),
        (false, true) => "still used: open files".to_owned(),
        (false, false) => format!("still used: {}", places.join(", ")),
    }
}

pub fn status(context: &Context, _verb: Status) -> Result<u8> {
    let repository = Arc::new(connect::open_repository(context)?);
    let Running { records: daemons, unreadable } = Running::of(&repository.layout)?;
    let (here, left): (Vec<_>, Vec<_>) = daemons.iter().partition(|daemon| daemon.is_in_place());
    let (drafts, mut troubles) = draft::list(&repository)?;
    troubles.extend(unreadable);
    let open = artifactfs::ops::groups::open_groups(&*repository.registry, None)?;
    let info = artifactfs::ops::stats::contents(&repository)?;
    let space = repository.store.space()?;
    let numbers: Vec<_> = daemons
        .iter()
        .filter_map(|daemon| Some((daemon.pid, stats::of_daemon(&repository.layout, daemon.pid)?)))
        .filter(|(_, numbers)| numbers.remote)
        .collect();
    let root = repository.layout.root.display().to_string();
    let document = json!({
        "repository": root,
        "store": repository.settings.store,
        "store_bytes": info.as_ref().map(|info| info.live_bytes),
        "pack_bytes": info.as_ref().map(|info| info.pack_bytes),
        "objects": info.as_ref().map(|info| info.objects),
        "packs": info.as_ref().map(|info| info.packs),
        "free_bytes": space.free_bytes,
        "total_bytes": space.total_bytes,
        "mounts": here,
        "left": left,
        "elsewhere": daemons.iter().flat_map(DaemonRecord::elsewhere).collect::<Vec<_>>(),
        "remote": numbers,
        "drafts": drafts.iter().map(draft::draft_json).collect::<Vec<_>>(),
        "groups": open.iter().map(groups::group_json).collect::<Vec<_>>(),
        "troubles": troubles,
    });
    context.output.print(document, || {
        let mut rows = vec![("repository", root)];
        rows.extend(info.map(|info| {
            let (objects, packs) = (counted(info.objects, "object"), counted(info.packs, "pack"));
            ("store", format!("{} in {objects}, {packs}", bytes(info.live_bytes)))
        }));
        let free = format!("{} of {}", bytes(space.free_bytes), bytes(space.total_bytes));
        rows.push(("free", free));
        for daemon in here {
            let staging = daemon.staging.as_ref();
            let staging = staging.map(|path| format!(", staging {}", path.display()));
            let (mount, staging) = (daemon.mount.display(), staging.unwrap_or_default());
            rows.push(("mount", format!("{mount}{staging} (process {})", daemon.pid)));
            let numbers = numbers.iter().find(|(pid, _)| *pid == daemon.pid);
            rows.extend(numbers.iter().flat_map(|(_, numbers)| stats::rows(numbers)));
            rows.extend(daemon.elsewhere().iter().map(|place| ("also at", place.to_string())));
        }
        for daemon in left {
            let (mount, pid) = (daemon.mount.display(), daemon.pid);
            rows.push(("left", format!("{mount}, {} (process {pid})", what_keeps(daemon))));
        }
        rows.extend(drafts.iter().map(|draft| ("draft", draft::draft_row(draft).join("  "))));
        rows.extend(open.iter().map(|info| ("group", groups::group_row(info).join("  "))));
        rows.extend(troubles.iter().map(|trouble| ("trouble", trouble.clone())));
        table(&rows.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}
