//! Runs and sweeps: executions, with their settings and results, and the versions that they used
//! and logged.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::json::number;
use super::json::{NOT_FINITE, parse_or_text};
use super::metadata::Metadata;
use super::name::{Alias, GroupName, ProjectName, RunId, SweepId};
use super::time::Timestamp;
use crate::error::{Error, Kind, Result, RunHint};

/// The silence in milliseconds after which a run counts as crashed.
pub const SILENCE_MILLISECONDS: u64 = 5 * 60 * 1000;
/// The same for a run that no process keeps alive (`run start`).
pub const SCRIPT_SILENCE_MILLISECONDS: u64 = 24 * 3600 * 1000;
/// The maximum length of a name, job type or command line that is kept, in bytes.
pub(crate) const TEXT_MAX_BYTES: usize = 4096;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// The run goes on.
    Running,
    /// The run ended well.
    Finished,
    /// The run reported that it failed.
    Failed,
    /// The run was killed, or sends no heartbeat any more.
    Crashed,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
        })
    }
}

/// The environment variable that names the run a process belongs to.
pub const RUN_VARIABLE: &str = "ARTIFACTFS_RUN";

/// The data with which a run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// The id.
    pub id: RunId,
    /// The project.
    pub project: ProjectName,
    /// The name that people gave it.
    pub name: Option<String>,
    /// The group of runs that it belongs to.
    pub group: Option<GroupName>,
    /// The purpose: `train`, `evaluate`, …
    pub job_type: Option<String>,
    /// The sweep that it is part of.
    pub sweep: Option<SweepId>,
    /// The settings.
    pub config: Metadata,
    /// The process that keeps it alive, if there is one.
    pub holder: Option<String>,
    /// The command line.
    pub command: Vec<String>,
    /// A random number by which a request that is repeated for want of a reply is recognised.
    pub token: u64,
}

/// The treatment of a run whose id exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resume {
    /// Refuse it.
    #[default]
    Never,
    /// Go on with it; begin it if it does not exist.
    Allow,
    /// Go on with it; refuse if it does not exist.
    Must,
}

/// A run and everything that the registry holds of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The data with which it began; a run that was resumed has the newest of each.
    pub start: RunStart,
    /// The state.
    pub state: RunState,
    /// The time at which it began.
    pub created: Timestamp,
    /// The time of its last heartbeat or log.
    pub heard: Timestamp,
    /// The time at which it ended.
    pub ended: Option<Timestamp>,
    /// The exit code of its command.
    pub exit_code: Option<i32>,
    /// The results.
    pub summary: Metadata,
    /// The number of rows of metrics so far.
    pub rows: u64,
    /// The token of the last log.
    pub last_log: u64,
}

impl RunInfo {
    /// Returns a run that begins.
    pub(crate) fn new(start: RunStart, now: Timestamp) -> Self {
        Self {
            start,
            state: RunState::Running,
            created: now,
            heard: now,
            ended: None,
            exit_code: None,
            summary: Metadata::default(),
            rows: 0,
            last_log: 0,
        }
    }

    /// Returns the run as it is at `now`: one that has been silent for too long has crashed.
    #[must_use]
    pub(crate) fn seen_at(mut self, now: Timestamp) -> Self {
        let patience = match self.start.holder {
            Some(_) => SILENCE_MILLISECONDS,
            None => SCRIPT_SILENCE_MILLISECONDS,
        };
        if self.state == RunState::Running && now.0 > self.heard.0.saturating_add(patience) {
            (self.state, self.ended) = (RunState::Crashed, Some(self.heard));
        }
        self
    }

    /// Returns a value by its path: `summary.val_acc`, `config.optimizer.lr`, `state`, `name`,
    /// `group`, …
    pub(crate) fn value(&self, path: &str) -> Option<Value> {
        let text = |text: &Option<String>| text.clone().map(Value::String);
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let inside =
            |metadata: &Metadata| find(&Value::Object(metadata.to_object()), rest).cloned();
        match first {
            "summary" => inside(&self.summary),
            "config" => inside(&self.start.config),
            "id" => Some(self.start.id.as_str().into()),
            "state" => Some(self.state.to_string().into()),
            "name" => text(&self.start.name),
            "job_type" => text(&self.start.job_type),
            "group" => self.start.group.as_ref().map(|group| group.as_str().into()),
            "sweep" => self.start.sweep.as_ref().map(|sweep| sweep.as_str().into()),
            "created" => Some(self.created.0.into()),
            _ => None,
        }
    }
}

/// Returns the value at `path`, whose steps are separated by dots. A key that has dots is found as
/// well.
pub(crate) fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    let object = value.as_object()?;
    if let Some(found) = object.get(path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(dot, _)| find(object.get(&path[..dot])?, &path[dot + 1..]))
}

/// Compares runs by a value: numbers, then truth values, then text, then missing values and those
/// that are not numbers. The last stay last in either direction, in the order in which they came.
pub(crate) fn compare(left: Option<&Value>, right: Option<&Value>, descending: bool) -> Ordering {
    let rank = |value: Option<&Value>| match value {
        Some(Value::Number(_)) => 0,
        Some(Value::Bool(_)) => 1,
        Some(Value::String(text)) if !NOT_FINITE.contains(&text.as_str()) => 2,
        _ => LAST,
    };
    let turned = |order: Ordering| if descending { order.reverse() } else { order };
    let (left_rank, right_rank) = (rank(left), rank(right));
    left_rank.cmp(&right_rank).then_with(|| match (left, right) {
        _ if left_rank == LAST => Ordering::Equal,
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            let (left, right) = (left.as_f64().unwrap_or(0.0), right.as_f64().unwrap_or(0.0));
            turned(left.total_cmp(&right))
        }
        (Some(Value::String(left)), Some(Value::String(right))) => turned(left.cmp(right)),
        (Some(Value::Bool(left)), Some(Value::Bool(right))) => turned(left.cmp(right)),
        _ => Ordering::Equal,
    })
}

/// The rank of values that are last in either direction.
const LAST: u8 = 3;
/// Returns whether a value equals the one that was requested.
pub(crate) fn is_value(found: Option<&Value>, wanted: &Value) -> bool {
    match (found, wanted) {
        (Some(Value::Number(found)), Value::Number(wanted)) => found.as_f64() == wanted.as_f64(),
        // An id or name of digits is requested as a number.
        (Some(Value::String(found)), Value::Number(wanted)) => *found == wanted.to_string(),
        (found, wanted) => found == Some(wanted),
    }
}

/// Parses `key=value`: the value is JSON, a number that JSON does not have, or else text.
///
/// # Errors
/// [`Kind::Usage`] without `=` or a key, and as [`parse_or_text`].
pub fn parse_setting(text: &str) -> Result<(String, Value)> {
    let (key, value) = split(text)?;
    Ok((key, parse_or_text(value)?))
}

/// Parses `key=number`; NaN and infinities are numbers.
///
/// # Errors
/// [`Kind::Usage`] for anything else.
pub fn parse_metric(text: &str) -> Result<(String, f64)> {
    let (key, value) = split(text)?;
    let number = value.parse().map_err(|_| {
        Error::new(Kind::Usage, format!("the metric {key} is \"{value}\", which is no number"))
            .hint(RunHint::UseSummary)
    })?;
    Ok((key, number))
}

fn split(text: &str) -> Result<(String, &str)> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim())),
        _ => Err(Error::new(Kind::Usage, format!("\"{text}\" is no KEY=VALUE"))
            .hint("write it as val_acc=0.93")),
    }
}

/// The metrics of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// The step.
    pub step: u64,
    /// The time at which it was logged.
    pub at: Timestamp,
    /// The names and values.
    pub values: Vec<(String, f64)>,
}

/// The additions to a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunLog {
    /// The settings to set, with values as JSON.
    pub config: Vec<(String, String)>,
    /// The results to set, with values as JSON.
    pub summary: Vec<(String, String)>,
    /// The metrics of one step; the newest of each is a result too.
    pub metrics: Vec<(String, f64)>,
    /// The step; `None` for the next.
    pub step: Option<u64>,
    /// A random number by which a request that is repeated for want of a reply is recognised.
    pub token: u64,
}

/// A version that a run used or logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The artifact.
    pub path: super::reference::ArtifactPath,
    /// The version.
    pub number: super::name::VersionNumber,
    /// The time at which it was first used, or logged.
    pub at: Timestamp,
    /// The alias by which it was first used.
    pub alias: Option<Alias>,
    /// True if it was deleted since.
    pub deleted: bool,
}

/// The better direction of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Higher values are better.
    Maximize,
    /// Lower values are better.
    Minimize,
}

/// A sweep: runs that are tried for the best value of one metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepInfo {
    /// The id.
    pub id: SweepId,
    /// The project.
    pub project: ProjectName,
    /// The key of the runs' summaries that counts.
    pub metric: String,
    /// The better direction of the metric.
    pub goal: Goal,
    /// The settings to try, as people wrote them.
    pub config: Metadata,
    /// The time at which it was made.
    pub created: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn settings_are_json_numbers_or_text() {
        let of = |text: &str| parse_setting(text).unwrap().1;
        assert_eq!(of("a=1e-3"), json("0.001"));
        assert_eq!(of("a={\"b\":[1]}"), json("{\"b\":[1]}"));
        assert_eq!(of("a=adam"), json("\"adam\""));
        assert_eq!(of("a=nan"), json("\"NaN\""));
        assert_eq!(of("a=-inf"), json("\"-Infinity\""));
        assert_eq!(of("a=x=y"), json("\"x=y\""));
        assert!(parse_setting("=1").is_err() && parse_setting("a").is_err());
        assert!(parse_metric("a=much").is_err());
        assert!(parse_metric("a=NaN").unwrap().1.is_nan());
    }

    #[test]
    fn what_is_no_number_is_last_either_way() {
        let texts = ["2", "\"NaN\"", "10", "\"Infinity\"", "\"b\"", "true", "\"a\"", "-1", "false"];
        let values: Vec<Option<Value>> = texts.map(|v| Some(json(v))).into();
        let sorted = |descending| {
            let mut all = values.clone();
            all.push(None);
            all.sort_by(|a, b| compare(a.as_ref(), b.as_ref(), descending));
            let shown = all.iter().map(|v| v.as_ref().map_or("-".into(), Value::to_string));
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sorted(false), "-1 2 10 false true \"a\" \"b\" \"NaN\" \"Infinity\" -");
        assert_eq!(sorted(true), "10 2 -1 true false \"b\" \"a\" \"NaN\" \"Infinity\" -");
    }

    #[test]
    fn values_are_found_by_path_also_when_keys_have_dots() {
        let value = json("{\"a\": {\"b.c\": 1, \"d\": {\"e\": 2}}, \"f.g\": 3}");
        assert_eq!(find(&value, "a.b.c"), Some(&json("1")));
        assert_eq!(find(&value, "a.d.e"), Some(&json("2")));
        assert_eq!(find(&value, "f.g"), Some(&json("3")));
        assert_eq!(find(&value, "a.x"), None);
    }
}
