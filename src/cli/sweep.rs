//! `sweep`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;

use super::context::{Context, parse};
use super::get::folder_name;
use super::output::{Bar, age, table};
use super::run_output::{edge_lines, edges_json, run_row};
use super::{connect, exit};
use artifactfs::error::{Error, IoContext, Kind, Result};
use artifactfs::model::json::{number, parse_if_json, refuse_large};
use artifactfs::model::metadata::Metadata;
use artifactfs::model::name::{ProjectName, SweepId};
use artifactfs::model::reference::{Reference, Selector};
use artifactfs::model::run::{Edge, Goal, SweepInfo};
use artifactfs::model::time::Timestamp;
use artifactfs::ops::documents;
use artifactfs::ops::put::Filters;
use artifactfs::ops::repository::Repository;
use artifactfs::ops::runs;

#[derive(Subcommand)]
pub enum Sweep {
    /// Create a sweep and print its id, for `run --sweep`
    Create(Create),
    /// List the sweeps of a project
    Ls(Ls),
    /// Show a sweep and its runs, best first
    Show(Which),
    /// Show the best run of a sweep, by its summary
    Best(Best),
}

#[derive(Args)]
pub struct Create {
    /// The project
    project: String,
    /// The key of the runs' summaries to compare [default: metric.name of --config]
    #[arg(long)]
    metric: Option<String>,
    /// The better direction [default: metric.goal of --config]
    #[arg(long, value_enum)]
    goal: Option<Way>,
    /// The search space: a YAML or JSON file, as W&B writes it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The id of the sweep [default: eight random letters and digits]
    #[arg(long)]
    id: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    /// More is better
    Maximize,
    /// Less is better
    Minimize,
}

#[derive(Args)]
pub struct Ls {
    /// The project
    project: String,
}

#[derive(Args)]
pub struct Which {
    /// The sweep
    id: String,
}

#[derive(Args)]
pub struct Best {
    /// The sweep
    id: String,
    /// List the versions that the best run logged
    #[arg(long)]
    artifacts: bool,
    /// Write these versions to directories below DIR
    #[arg(long, value_name = "DIR")]
    get: Option<PathBuf>,
}

pub fn sweep(context: &Context, verb: Sweep) -> Result<u8> {
    match verb {
        Sweep::Create(verb) => create(context, &verb),
        Sweep::Ls(verb) => ls(context, &verb),
        Sweep::Show(verb) => show(context, &verb),
        Sweep::Best(verb) => best(context, &verb),
    }
}

/// Reads a configuration file, YAML or JSON, as an object.
fn read_config(file: &PathBuf) -> Result<Metadata> {
    let text = std::fs::read_to_string(file).at("read", file)?;
    let bad = |e| {
        Error::new(Kind::Usage, format!("{} is neither YAML nor JSON", file.display())).because(e)
    };
    let value = match parse_if_json(&text)? {
        Some(value) => value,
        None => plain(serde_yaml_ng::from_str(&text).map_err(bad)?, &text)?,
    };
    match value {
        Value::Object(object) => Metadata::from_object(object),
        _ => Err(Error::new(Kind::Usage, format!("{} is not a mapping of keys", file.display()))),
    }
}

/// Converts YAML parsed from `text` to JSON; NaN and infinities become text, as everywhere.
fn plain(value: Yaml, text: &str) -> Result<Value> {
    Ok(match value {
        Yaml::Number(found) => match (found.as_i64(), found.as_u64(), found.as_f64()) {
            (Some(whole), ..) => whole.into(),
            (_, Some(whole), _) => whole.into(),
            (.., Some(fraction)) => {
                refuse_large(text, fraction)?;
                number(fraction)
            }
            (None, None, None) => Value::Null,
        },
        Yaml::Sequence(items) => {
            items.into_iter().map(|item| plain(item, text)).collect::<Result<_>>()?
        }
        Yaml::Mapping(pairs) => {
            let pair = |(key, value): (Yaml, Yaml)| {
                let key = match plain(key, text)? {
                    Value::String(key) => key,
                    key => key.to_string(),
                };
                Ok((key, plain(value, text)?))
            };
            Value::Object(pairs.into_iter().map(pair).collect::<Result<_>>()?)
        }
        Yaml::Tagged(tagged) => plain(tagged.value, text)?,
        Yaml::Null => Value::Null,
        Yaml::Bool(truth) => truth.into(),
        Yaml::String(text) => text.into(),
    })
}

fn create(context: &Context, verb: &Create) -> Result<u8> {
    let config = verb.config.as_ref().map(read_config).transpose()?.unwrap_or_default();
    let said = config.to_object();
    let said = |key: &str| {
        said.get("metric").and_then(|metric| metric.get(key)?.as_str().map(str::to_owned))
    };
    let metric = verb.metric.clone().or_else(|| said("name")).ok_or_else(|| {
        Error::new(
            Kind::Usage,
            "no metric is given, neither by --metric nor by metric.name of --config",
        )
        .hint("`artifactfs sweep create PROJECT --metric val_acc --goal maximize` names one")
    })?;
    let goal = match (verb.goal, said("goal").as_deref()) {
        (Some(Way::Maximize), _) | (None, Some("maximize")) => Goal::Maximize,
        (Some(Way::Minimize), _) | (None, Some("minimize")) => Goal::Minimize,
        (None, other) => {
            let what = format!(
                "the goal is neither maximize nor minimize: {}",
                other.unwrap_or("not given")
            );
            return Err(
                Error::new(Kind::Usage, what).hint("give `--goal maximize` or `--goal minimize`")
            );
        }
    };
    let sweep = SweepInfo {
        id: match &verb.id {
            Some(id) => parse(id)?,
            None => runs::new_id(&context.access.host).as_str().parse()?,
        },
        project: parse(&verb.project)?,
        metric,
        goal,
        config,
        created: Timestamp(0),
    };
    let repository = connect::open_repository(context)?;
    let sweep = runs::create_sweep(&*repository.registry, sweep)?;
    context.output.print(sweep_json(&sweep), || vec![sweep.id.to_string()]);
    Ok(exit::DONE)
}

fn sweep_json(sweep: &SweepInfo) -> Value {
    json!({
        "id": sweep.id,
        "project": sweep.project,
        "metric": sweep.metric,
        "goal": sweep.goal,
        "config": sweep.config.to_object(),
        "created": sweep.created.to_string(),
    })
}

fn goal(sweep: &SweepInfo) -> String {
    let way = match sweep.goal {
        Goal::Maximize => "maximize",
        Goal::Minimize => "minimize",
    };
    format!("{way} {}", sweep.metric)
}

fn ls(context: &Context, verb: &Ls) -> Result<u8> {
    let project: ProjectName = parse(&verb.project)?;
    let repository = connect::open_repository(context)?;
    let sweeps = runs::sweeps(&*repository.registry, &project)?;
    context.output.print(sweeps.iter().map(sweep_json).collect(), || {
        let row = |sweep: &SweepInfo| {
            vec![sweep.id.to_string(), goal(sweep), format!("{} ago", age(sweep.created))]
        };
        table(&sweeps.iter().map(row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

fn show(context: &Context, verb: &Which) -> Result<u8> {
    let id: SweepId = parse(&verb.id)?;
    let repository = connect::open_repository(context)?;
    let registry = &*repository.registry;
    let sweep = runs::sweep(registry, &id)?;
    let mut found = runs::of_sweep(registry, &id)?;
    runs::sort(&mut found, &format!("summary.{}", sweep.metric), sweep.goal == Goal::Maximize);
    let mut document = sweep_json(&sweep);
    document["runs"] = found.iter().map(documents::run).collect();
    context.output.print(document, || {
        let mut lines = vec![format!("{}  {}  {}", sweep.id, sweep.project, goal(&sweep))];
        lines.extend(table(&found.iter().map(run_row).collect::<Vec<_>>()));
        lines
    });
    Ok(exit::DONE)
}

fn best(context: &Context, verb: &Best) -> Result<u8> {
    let id: SweepId = parse(&verb.id)?;
    let repository = connect::open_repository(context)?;
    let registry = &*repository.registry;
    let run = runs::best(registry, &id)?;
    let wanted = verb.artifacts || verb.get.is_some();
    let logged = if wanted { runs::edges(registry, &run.start.id, true)? } else { Vec::new() };
    let mut document = documents::run(&run);
    let mut written = Vec::new();
    if let Some(folder) = &verb.get {
        for edge in &logged {
            written.extend(write_out(context, &repository, edge, folder)?);
        }
        document["paths"] = written.iter().map(|path| path.to_string_lossy()).collect();
    }
    if wanted {
        document["artifacts"] = edges_json(&logged);
    }
    context.output.print(document, || {
        let mut lines = vec![run_row(&run).join("  ")];
        lines.extend(edge_lines(&logged));
        lines.extend(written.iter().map(|path| path.display().to_string()));
        lines
    });
    Ok(exit::DONE)
}

/// Writes a version to `<artifact>@<version>` below `folder`; returns `None` if it was deleted.
fn write_out(
    context: &Context,
    repository: &Repository,
    edge: &Edge,
    folder: &std::path::Path,
) -> Result<Option<PathBuf>> {
    let reference = Reference { path: edge.path.clone(), selector: Selector::Version(edge.number) };
    if edge.deleted {
        context.output.note(&format!("artifactfs: {reference} was deleted"));
        return Ok(None);
    }
    let info = super::used::used(context, &*repository.registry, reference)?;
    let target = folder.join(folder_name(&info));
    let bar = Bar::new("getting", Some(info.totals.size_bytes), context.output);
    artifactfs::ops::get::get(repository, info.root, &target, &Filters::default(), &bar)?;
    Ok(Some(target))
}
