//! `runs`, and what other verbs tell of runs.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{age, table};
use super::{Context, connect, exit, parse, parse_all};
use artifactfs::error::Result;
use artifactfs::model::name::{ProjectName, RunId};
use artifactfs::model::reference::Reference;
use artifactfs::model::run::{Edge, MetricRow, RunInfo, number, parse_setting};
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::runs::{self, use_version};
use artifactfs::registry::Registry;

#[derive(Subcommand)]
pub enum Runs {
    /// List the runs of a project, newest first
    Ls(Ls),
    /// Show everything about a run
    Show(Show),
    /// Forget runs that have ended, and their places in lineage; what they logged stays
    Rm(Rm),
}

#[derive(Args)]
pub struct Ls {
    /// project
    project: String,
    /// Only runs with this value: state, group, name, job_type, sweep, config.KEY, summary.KEY, or a KEY of config or
    /// summary; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// By this value; with a minus, the largest first; what is no number comes last
    #[arg(long, value_name = "[-]KEY", allow_hyphen_values = true)]
    sort: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Args)]
pub struct Show {
    /// The run [default: $ARTIFACTFS_RUN]
    id: Option<String>,
    /// Its metrics too, row by row
    #[arg(long)]
    metrics: bool,
}

#[derive(Args)]
pub struct Rm {
    /// The runs
    #[arg(required = true)]
    ids: Vec<String>,
}

/// The version that a reference stands for; inside a run it is used.
pub fn used(
    context: &Context,
    registry: &dyn Registry,
    reference: Reference,
) -> Result<VersionInfo> {
    match context.run()? {
        Some(run) => use_version(registry, &run, reference),
        None => registry.lookup(reference),
    }
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
    context.output.print(found.iter().map(run_json).collect(), || {
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
    let mut document = run_json(&run);
    document["used"] = edges_json(&used);
    document["logged"] = edges_json(&logged);
    let rows = if verb.metrics { runs::rows(registry, &id)? } else { Vec::new() };
    if verb.metrics {
        document["metrics"] = rows.iter().map(row_json).collect();
    }
    context.output.print(document, || {
        let mut lines = table(&details(&run));
        for (what, edges) in [("used", &used), ("logged", &logged)] {
            lines.extend(edge_lines(edges).into_iter().map(|line| format!("{what:8} {line}")));
        }
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

/// A run as JSON.
pub fn run_json(run: &RunInfo) -> Value {
    json!({
        "id": run.start.id,
        "project": run.start.project,
        "name": run.start.name,
        "state": run.state,
        "group": run.start.group,
        "job_type": run.start.job_type,
        "sweep": run.start.sweep,
        "command": run.start.command,
        "config": run.start.config.to_object(),
        "summary": run.summary.to_object(),
        "created": run.created.to_string(),
        "ended": run.ended.map(|at| at.to_string()),
        "exit_code": run.exit_code,
        "metric_rows": run.rows,
    })
}

/// A run in a listing: id, state, what people call it, results, age.
pub fn run_row(run: &RunInfo) -> Vec<String> {
    let name = run.start.name.clone().unwrap_or_default();
    let began = format!("{} ago", age(run.created));
    vec![run.start.id.to_string(), run.state.to_string(), name, began, run.summary.to_string()]
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
        ("metrics", format!("{} rows", run.rows)),
    ];
    let said = rows.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| vec![key.to_owned(), value]).collect()
}

/// Versions that a run used or logged, as JSON.
pub fn edges_json(edges: &[Edge]) -> Value {
    let edge = |edge: &Edge| {
        json!({
            "reference": format!("{}:{}", edge.path, edge.number),
            "alias": edge.alias,
            "at": edge.at.to_string(),
            "deleted": edge.deleted,
        })
    };
    edges.iter().map(edge).collect()
}

/// The same as text.
pub fn edge_lines(edges: &[Edge]) -> Vec<String> {
    let row = |edge: &Edge| {
        let alias = edge.alias.as_ref().map(|alias| format!("as {alias}")).unwrap_or_default();
        let deleted = if edge.deleted { "deleted" } else { "" };
        vec![format!("{}:{}", edge.path, edge.number), alias, deleted.to_owned()]
    };
    table(&edges.iter().map(row).collect::<Vec<_>>())
}
