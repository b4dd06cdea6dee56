//! Runs, and the versions that they used and logged, as text and as JSON.

use serde_json::{Value, json};

use super::output::{age, table};
use artifactfs::model::run::{Edge, RunInfo};

/// Returns a run as a row of a table: id, state, name, age, summary.
pub fn run_row(run: &RunInfo) -> Vec<String> {
    let name = run.start.name.clone().unwrap_or_default();
    let began = format!("{} ago", age(run.created));
    vec![run.start.id.to_string(), run.state.to_string(), name, began, run.summary.to_string()]
}

/// Returns the versions that a run used or logged, as JSON.
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

/// Returns the versions that a run used or logged, as lines of text.
pub fn edge_lines(edges: &[Edge]) -> Vec<String> {
    let row = |edge: &Edge| {
        let alias = edge.alias.as_ref().map(|alias| format!("as {alias}")).unwrap_or_default();
        let deleted = if edge.deleted { "deleted" } else { "" };
        vec![format!("{}:{}", edge.path, edge.number), alias, deleted.to_owned()]
    };
    table(&edges.iter().map(row).collect::<Vec<_>>())
}
