//! `stats`: live statistics of the daemons.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::output::{bytes, table};
use super::{connect, exit};
use artifactfs::client::Client;
use artifactfs::daemon::daemons;
use artifactfs::error::Result;
use artifactfs::model::counted::counted;
use artifactfs::ops::repository::Layout;
use artifactfs::ops::stats::Stats;
use artifactfs::protocol::Service;

#[derive(Args)]
pub struct StatsVerb {
    /// Print once and exit
    #[arg(long)]
    once: bool,
    /// The seconds between two updates
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// Requests the statistics of a daemon; returns `None` if it does not reply.
pub fn of_daemon(layout: &Layout, pid: u32) -> Option<Stats> {
    let client = Client::connect(&layout.daemon_socket(pid)).ok()?;
    client.ask(Service::Stats, &()).ok()
}

/// Returns the statistics of a daemon as rows of label and value.
pub fn rows(stats: &Stats) -> Vec<(&'static str, String)> {
    let hit = stats.hit_percent().map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
    let (held, most) = (bytes(stats.cache_bytes), bytes(stats.cache_limit_bytes));
    let requests = counted(stats.requests, "request");
    let mut rows = vec![
        ("cache", format!("{held} of {most}, {}", counted(stats.cache_files, "segment"))),
        ("cache hits", format!("{hit}, {} saved", bytes(stats.saved_bytes))),
        ("fetched", format!("{} in {requests}", bytes(stats.fetched_bytes))),
        ("in flight", stats.in_flight.to_string()),
    ];
    if stats.retries + stats.failures + stats.wrong_objects > 0 {
        let Stats { retries, failures, wrong_objects, .. } = stats;
        let failures = counted(*failures, "failure");
        let (retries, wrong) =
            (counted(*retries, "retry"), counted(*wrong_objects, "wrong object"));
        rows.push(("errors", format!("{failures}, {retries}, {wrong}")));
    }
    let slowest = stats.slowest.iter().take(3);
    rows.extend(slowest.map(|(what, took)| ("slow", format!("{took} ms  {what}"))));
    rows
}

pub fn stats(context: &Context, verb: &StatsVerb) -> Result<u8> {
    let layout = connect::layout_of(context)?;
    let mut before: Option<u64> = None;
    loop {
        let mut documents: Vec<Value> = Vec::new();
        let mut lines = Vec::new();
        let mut fetched = 0;
        for daemon in daemons(&layout)? {
            let Some(stats) = of_daemon(&layout, daemon.pid) else { continue };
            fetched += stats.fetched_bytes;
            lines.push(format!("{}  process {}", daemon.mount.display(), daemon.pid));
            let cells: Vec<_> =
                rows(&stats).into_iter().map(|(k, v)| vec![format!("  {k}"), v]).collect();
            lines.extend(table(&cells));
            documents.push(json!({ "mount": daemon.mount, "pid": daemon.pid, "stats": stats }));
        }
        if let Some(before) = before {
            let rate = fetched.saturating_sub(before) / verb.interval;
            lines.push(format!("fetching {}/s", bytes(rate)));
        }
        let live = !verb.once && !context.output.json;
        let lines =
            if live { std::iter::once(CLEAR.to_owned()).chain(lines).collect() } else { lines };
        context.output.print(Value::Array(documents), || lines);
        if !live {
            return Ok(exit::DONE);
        }
        before = Some(fetched);
        std::thread::sleep(Duration::from_secs(verb.interval));
    }
}

/// The sequence that moves to the first line and clears the terminal (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";
