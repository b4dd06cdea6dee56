//! Lineage: the graph of runs and the versions they used and logged.
//!
//! A version is logged once, by a run that used versions that existed before. So the graph has no
//! cycles.

use std::collections::{HashMap, HashSet, VecDeque};

use super::runs;
use crate::error::{Error, Kind, Result, RunHint};
use crate::model::name::{RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::run::RunInfo;
use crate::registry::Registry;

/// The maximum number of nodes of one graph; a graph that is cut says so.
const NODES_MAX: usize = 10_000;

/// A run or a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Thing {
    /// A version.
    Version(ArtifactPath, VersionNumber),
    /// A run.
    Run(RunId),
}

/// A node of the graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// The run or version.
    pub thing: Thing,
    /// True for a version that was deleted.
    pub deleted: bool,
    /// The record of a run; `None` for a version, and for a run that was removed.
    pub run: Option<Box<RunInfo>>,
}

/// The meaning of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// A version that a run used: from the version to the run.
    Used,
    /// A version that a run logged: from the run to the version.
    Logged,
}

/// The part of the graph around a version.
#[derive(Debug, Default)]
pub struct Graph {
    /// The nodes; the first is the version that was requested.
    pub nodes: Vec<Node>,
    /// The edges: from, to (by index), in the direction of the data.
    pub edges: Vec<(usize, usize, Relation)>,
    /// True if there is more than was looked at.
    pub cut: bool,
}

/// Returns the run that logged a version.
///
/// # Errors
/// [`Kind::NotFound`] for a version that never existed, and for one that no run logged.
pub fn logged_by(registry: &dyn Registry, reference: &Reference) -> Result<RunInfo> {
    let (path, number, _) = resolve(registry, reference)?;
    let Some(id) = registry.logger(path.clone(), number)? else {
        return Err(Error::new(Kind::NotFound, format!("no run logged {path}:{number}"))
            .hint(RunHint::PutInside));
    };
    runs::find(registry, &id)
}

/// Returns the runs that used a version.
///
/// # Errors
/// [`Kind::NotFound`] for a version that never existed.
pub fn used_by(registry: &dyn Registry, reference: &Reference) -> Result<Vec<RunInfo>> {
    let (path, number, _) = resolve(registry, reference)?;
    let ids = runs::users(registry, &path, number)?;
    ids.iter().map(|id| runs::find(registry, id)).collect()
}

/// Returns the version that a reference stands for, and whether it was deleted. A deleted version
/// is found as long as runs refer to it.
///
/// # Errors
/// [`Kind::NotFound`] for a version that never existed, or that no run refers to any more.
pub(crate) fn resolve(
    registry: &dyn Registry,
    reference: &Reference,
) -> Result<(ArtifactPath, VersionNumber, bool)> {
    match (registry.lookup(reference.clone()), &reference.selector) {
        (Err(e), Selector::Version(number)) if e.kind() == Kind::NotFound => {
            let path = reference.path.clone();
            let known = registry.logger(path.clone(), *number)?.is_some()
                || !registry.users(path.clone(), *number, None, 1)?.items.is_empty();
            if known { Ok((path, *number, true)) } else { Err(e) }
        }
        (found, _) => found.map(|info| (info.path, info.number, false)),
    }
}

/// The direction in which the graph is walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

struct Walk<'a> {
    registry: &'a dyn Registry,
    graph: Graph,
    seen: HashMap<Thing, usize>,
    drawn: HashSet<(usize, usize, Relation)>,
    waiting: VecDeque<(usize, Way, usize)>,
    depth: usize,
}

impl Walk<'_> {
    /// Returns the index of a node, and adds a new one; `None` if there are too many.
    fn node(&mut self, thing: Thing, deleted: bool) -> Result<Option<usize>> {
        if let Some(&index) = self.seen.get(&thing) {
            return Ok(Some(index));
        }
        if self.graph.nodes.len() >= NODES_MAX {
            self.graph.cut = true;
            return Ok(None);
        }
        let run = match &thing {
            Thing::Run(id) => match super::runs::find(self.registry, id) {
                Err(e) if e.kind() == Kind::NotFound => None,
                found => Some(Box::new(found?)),
            },
            Thing::Version(..) => None,
        };
        let index = self.graph.nodes.len();
        self.graph.nodes.push(Node { thing: thing.clone(), deleted, run });
        self.seen.insert(thing, index);
        Ok(Some(index))
    }

    /// Adds a neighbour and the edge to it, and queues the neighbour if it is new.
    fn reach(&mut self, from: usize, way: Way, far: usize, thing: Thing, gone: bool) -> Result<()> {
        if far >= self.depth {
            self.graph.cut = true;
            return Ok(());
        }
        let relation = match (&thing, way) {
            (Thing::Run(_), Way::Up) | (Thing::Version(..), Way::Down) => Relation::Logged,
            (Thing::Run(_), Way::Down) | (Thing::Version(..), Way::Up) => Relation::Used,
        };
        let known = self.seen.contains_key(&thing);
        let Some(to) = self.node(thing, gone)? else { return Ok(()) };
        let edge = if way == Way::Up { (to, from, relation) } else { (from, to, relation) };
        if self.drawn.insert(edge) {
            self.graph.edges.push(edge);
        }
        if !known {
            self.waiting.push_back((to, way, far + 1));
        }
        Ok(())
    }

    fn run(mut self) -> Result<Graph> {
        while let Some((index, way, far)) = self.waiting.pop_front() {
            let registry = self.registry;
            let neighbours: Vec<(Thing, bool)> = match self.graph.nodes[index].thing.clone() {
                Thing::Version(path, number) => match way {
                    Way::Up => registry.logger(path, number)?.into_iter().collect(),
                    Way::Down => super::runs::users(registry, &path, number)?,
                }
                .into_iter()
                .map(|run| (Thing::Run(run), false))
                .collect(),
                Thing::Run(_) if self.graph.nodes[index].run.is_none() => Vec::new(),
                Thing::Run(id) => super::runs::edges(registry, &id, way == Way::Down)?
                    .into_iter()
                    .map(|edge| (Thing::Version(edge.path, edge.number), edge.deleted))
                    .collect(),
            };
            for (thing, deleted) in neighbours {
                self.reach(index, way, far, thing, deleted)?;
            }
        }
        Ok(self.graph)
    }
}

/// Returns everything that led to a version and everything that came of it, at most `depth` steps
/// away.
///
/// # Errors
/// [`Kind::NotFound`] for a version that never existed.
pub fn around(registry: &dyn Registry, reference: &Reference, depth: usize) -> Result<Graph> {
    let (path, number, deleted) = resolve(registry, reference)?;
    let mut walk = Walk {
        registry,
        graph: Graph::default(),
        seen: HashMap::new(),
        drawn: HashSet::new(),
        waiting: VecDeque::new(),
        depth,
    };
    let root = walk.node(Thing::Version(path, number), deleted)?;
    let root = root.ok_or_else(|| Error::new(Kind::Full, "the graph has no nodes"))?;
    walk.waiting.extend([(root, Way::Up, 0), (root, Way::Down, 0)]);
    walk.run()
}
