//! `lineage`, `logged-by` and `used-by`.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::context::{Context, parse};
use super::run_output::run_row;
use super::{connect, exit};
use artifactfs::error::{Error, Kind, Result};
use artifactfs::model::reference::Reference;
use artifactfs::ops::documents;
use artifactfs::ops::lineage::{self, Graph, Node, Relation, Thing};

#[derive(Args)]
pub struct Lineage {
    /// project/artifact:alias; a deleted version by its number
    reference: String,
    /// The maximum number of steps; from a version to a run is one [default: all]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// The output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Indented lines
    Text,
    /// Nodes and edges as JSON
    Json,
    /// Graphviz source
    Dot,
    /// Mermaid source
    Mermaid,
    /// An image; needs Graphviz
    Svg,
}

#[derive(Args)]
pub struct Of {
    /// project/artifact:alias; a deleted version by its number
    reference: String,
}

pub fn logged_by(context: &Context, verb: &Of) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let repository = connect::open_repository(context)?;
    let run = lineage::logged_by(&*repository.registry, &reference)?;
    context
        .output
        .print(documents::run(&run), || vec![run_row(&run).join("  ").trim_end().to_owned()]);
    Ok(exit::DONE)
}

pub fn used_by(context: &Context, verb: &Of) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let repository = connect::open_repository(context)?;
    let found = lineage::used_by(&*repository.registry, &reference)?;
    context.output.print(found.iter().map(documents::run).collect(), || {
        super::output::table(&found.iter().map(run_row).collect::<Vec<_>>())
    });
    Ok(exit::DONE)
}

pub fn lineage(context: &Context, verb: &Lineage) -> Result<u8> {
    let reference: Reference = parse(&verb.reference)?;
    let repository = connect::open_repository(context)?;
    let depth = verb.depth.unwrap_or(usize::MAX);
    let graph = lineage::around(&*repository.registry, &reference, depth)?;
    if graph.cut {
        context.output.note("artifactfs: there is more than is shown");
    }
    let format = if context.output.json { Format::Json } else { verb.format };
    let lines = match format {
        Format::Json => vec![format!("{:#}", graph_json(&graph))],
        Format::Text => Outline::of(&graph),
        Format::Dot => dot(&graph),
        Format::Mermaid => mermaid(&graph),
        Format::Svg => vec![svg(&dot(&graph))?],
    };
    context.output.print(graph_json(&graph), || lines);
    Ok(exit::DONE)
}

/// Returns the label of a node.
fn title(node: &Node) -> String {
    match &node.thing {
        Thing::Version(path, number) if node.deleted => format!("{path}:{number} (deleted)"),
        Thing::Version(path, number) => format!("{path}:{number}"),
        Thing::Run(id) => match &node.run {
            Some(run) => match &run.start.name {
                Some(name) => format!("run {id} \"{name}\" ({})", run.state),
                None => format!("run {id} ({})", run.state),
            },
            None => format!("run {id} (removed)"),
        },
    }
}

fn graph_json(graph: &Graph) -> Value {
    let node = |node: &Node| match &node.thing {
        Thing::Version(path, number) => json!({
            "kind": "version",
            "reference": format!("{path}:{number}"),
            "deleted": node.deleted,
        }),
        Thing::Run(id) => json!({
            "kind": "run",
            "id": id,
            "removed": node.run.is_none(),
            "run": node.run.as_deref().map(documents::run),
        }),
    };
    let edge = |(from, to, relation): &(usize, usize, Relation)| {
        let relation = match relation {
            Relation::Used => "used",
            Relation::Logged => "logged",
        };
        json!({ "from": from, "to": to, "relation": relation })
    };
    json!({
        "nodes": graph.nodes.iter().map(node).collect::<Value>(),
        "edges": graph.edges.iter().map(edge).collect::<Value>(),
        "complete": !graph.cut,
    })
}

/// The graph as indented lines: first the origins (`<-`), then the results (`->`).
struct Outline<'a> {
    graph: &'a Graph,
    printed: HashSet<usize>,
    lines: Vec<String>,
}

impl<'a> Outline<'a> {
    fn of(graph: &'a Graph) -> Vec<String> {
        let mut outline = Self { graph, printed: HashSet::from([0]), lines: Vec::new() };
        outline.lines.push(title(&graph.nodes[0]));
        outline.walk(true);
        outline.walk(false);
        outline.lines
    }

    /// Adds one side of the first node, depth first; without recursion, since graphs may be deep.
    fn walk(&mut self, up: bool) {
        let mut beyond = vec![Vec::new(); self.graph.nodes.len()];
        for (from, to, _) in self.graph.edges.iter().rev() {
            let (near, far) = if up { (*to, *from) } else { (*from, *to) };
            beyond[near].push(far);
        }
        let arrow = if up { "<-" } else { "->" };
        let mut waiting: Vec<_> = beyond[0].iter().map(|next| (*next, 1)).collect();
        while let Some((index, depth)) = waiting.pop() {
            let new = self.printed.insert(index);
            let again = if new { "" } else { " …" };
            let title = title(&self.graph.nodes[index]);
            self.lines.push(format!("{}{arrow} {title}{again}", "  ".repeat(depth)));
            if new {
                waiting.extend(beyond[index].iter().map(|next| (*next, depth + 1)));
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn dot(graph: &Graph) -> Vec<String> {
    let mut lines = vec!["digraph lineage {".to_owned(), "  rankdir=LR".to_owned()];
    for (index, node) in graph.nodes.iter().enumerate() {
        let shape = match node.thing {
            Thing::Version(..) => "box",
            Thing::Run(_) => "ellipse",
        };
        let style = if node.deleted { " style=dashed" } else { "" };
        lines.push(format!("  n{index} [shape={shape}{style} label={}]", quoted(&title(node))));
    }
    lines.extend(graph.edges.iter().map(|(from, to, _)| format!("  n{from} -> n{to}")));
    lines.push("}".to_owned());
    lines
}

fn mermaid(graph: &Graph) -> Vec<String> {
    let mut lines = vec!["flowchart LR".to_owned()];
    for (index, node) in graph.nodes.iter().enumerate() {
        // In a label only quotes and hashes are special
        // (mermaid, "Entity codes to escape characters").
        let label = title(node).replace('#', "#35;").replace('"', "#quot;");
        lines.push(match node.thing {
            Thing::Version(..) => format!("  n{index}[\"{label}\"]"),
            Thing::Run(_) => format!("  n{index}([\"{label}\"])"),
        });
    }
    lines.extend(graph.edges.iter().map(|(from, to, _)| format!("  n{from} --> n{to}")));
    lines
}

fn svg(dot: &[String]) -> Result<String> {
    let failed = |e: std::io::Error| {
        Error::io("cannot run Graphviz's dot, which draws the image", e)
            .hint("install Graphviz, or use --format mermaid")
    };
    let mut child = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut input = child
        .stdin
        .take()
        .ok_or_else(|| Error::new(Kind::Unavailable, "Graphviz's dot has no standard input"))?;
    let text = dot.join("\n");
    // dot prints nothing before it has read its whole input, so this cannot deadlock.
    input.write_all(text.as_bytes()).map_err(failed)?;
    drop(input);
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(Error::new(Kind::Unavailable, "Graphviz's dot failed"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
