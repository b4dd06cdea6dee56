//! `runs`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::{Context, parse, parse_all};
use super::output::table;
use super::run_output::{edge_lines, edges_json, run_row};
use super::{connect, exit};
use artifactfs::error::Result;
use artifactfs::model::counted::counted;
use artifactfs::model::name::{ProjectName, RunId};
use artifactfs::model::run::{MetricRow, RunInfo, number, parse_setting};
use artifactfs::ops::documents;
use artifactfs::ops::runs::{self};

#[derive(Subcommand)]
pub enum Runs {
    /// List the runs of a project, newest first
    Ls(Ls),
    /// Show everything about a run
    Show(Show),
    /// Remove runs that have ended; the versions that they logged stay
    Rm(Rm),
}

#[derive(Args)]
pub struct Ls {
    /// The project
    project: String,
    /// List only runs with this value; KEY is state, id, name, group, job_type, sweep, created,
    /// config.KEY, summary.KEY, or a KEY of config or summary; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Sort by this value; with a minus, largest first; values that are not numbers come last
    #[arg(long, value_name = "[-]KEY", allow_hyphen_values = true)]
    sort: Option<String>,
    /// List at most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Args)]
pub struct Show {
    /// The run [default: $ARTIFACTFS_RUN]
    id: Option<String>,
    /// Show its metrics too, row by row
    #[arg(long)]
    metrics: bool,
}

#[derive(Args)]
pub struct Rm {
    /// The runs
    #[arg(required = true)]
    ids: Vec<String>,
}

pub fn runs(context: &Context, verb: Runs) -> Result<u8> {
    match verb {
        Runs::Ls(verb) => ls(context, &verb),
        Runs::Show(verb) => show(context, &verb),
        Runs::Rm(verb) => rm(context, &verb),
    }
}

fn ls(context: &Context, verb: &Ls) -> Result<u8> {
    let project: ProjectName = parse(&verb.project)?;
    let filters: Vec<_> =
        verb.filter.iter().map(|text| parse_setting(text)).collect::<Result<_>>()?;
    let repository = connect::open_repository(context)?;
    let registry = &*repository.registry;
    let mut found = Vec::new();
    runs::each_run(registry, &project, &mut |run| {
        let run = runs::settled(registry, run)?;
        if filters.iter().all(|(path, wanted)| runs::matches(&run, path, wanted)) {
            found.push(run);
        }
        Ok(())
    })?;
    match verb.sort.as_deref().map(|key| (key.trim_start_matches(['-', '+']), key.starts_with('-')))
    {
        Some((path, descending)) => runs::sort(&mut found, path, descending),
        None => found.reverse(),
    }
    found.truncate(verb.limit.unwrap_or(usize::MAX));
    context.output.print(found.iter().map(documents::run).collect(), || {
        table(&found.iter().map(run_row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

fn show(context: &Context, verb: &Show) -> Result<u8> {
    let id = super::run::which(context, verb.id.as_deref())?;
    let repository = connect::open_repository(context)?;
    let registry = &*repository.registry;
    let run = runs::find(registry, &id)?;
    let (used, logged) = (runs::edges(registry, &id, false)?, runs::edges(registry, &id, true)?);
    let mut document = documents::run(&run);
    document["used"] = edges_json(&used);
    document["logged"] = edges_json(&logged);
    let rows = if verb.metrics { runs::rows(registry, &id)? } else { Vec::new() };
    if verb.metrics {
        document["metrics"] = rows.iter().map(row_json).collect();
    }
    context.output.print(document, || {
        let mut all = details(&run);
        for (what, edges) in [("used", &used), ("logged", &logged)] {
            all.extend(edge_lines(edges).into_iter().map(|line| vec![what.to_owned(), line]));
        }
        let mut lines = table(&all);
        lines.extend(rows.iter().map(|row| row_json(row).to_string()));
        lines
    });
    Ok(exit::DONE)
}

fn rm(context: &Context, verb: &Rm) -> Result<u8> {
    let ids: Vec<RunId> = parse_all(&verb.ids)?;
    let repository = connect::open_repository(context)?;
    for id in &ids {
        runs::remove(&*repository.registry, id)?;
    }
    context.output.print(json!({ "removed": ids }), Vec::new);
    Ok(exit::DONE)
}

fn row_json(row: &MetricRow) -> Value {
    let values = row.values.iter().map(|(key, value)| (key.clone(), number(*value)));
    json!({
        "step": row.step,
        "at": row.at.to_string(),
        "values": values.collect::<serde_json::Map<_, _>>(),
    })
}

fn details(run: &RunInfo) -> Vec<Vec<String>> {
    let start = &run.start;
    let code = run.exit_code.map_or(String::new(), |code| format!(", exit code {code}"));
    let ended = run.ended.map_or(String::new(), |at| format!(", ended {at}"));
    let rows = [
        ("run", start.id.to_string()),
        ("project", start.project.to_string()),
        ("name", start.name.clone().unwrap_or_default()),
        ("state", format!("{}{code}", run.state)),
        ("created", format!("{}{ended}", run.created)),
        ("group", start.group.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("job type", start.job_type.clone().unwrap_or_default()),
        ("sweep", start.sweep.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("command", start.command.join(" ")),
        ("config", start.config.to_string()),
        ("summary", run.summary.to_string()),
        ("metrics", counted(run.rows, "row")),
    ];
    let said = rows.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| vec![key.to_owned(), value]).collect()
}
