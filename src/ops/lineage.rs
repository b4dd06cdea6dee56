//! Lineage: the graph of runs and the versions they used and logged.
//!
//! A version is logged once, by a run that used versions that were there before: no cycles.

use std::collections::{HashMap, HashSet, VecDeque};

use super::runs;
use crate::error::{Error, Kind, Result, RunHint};
use crate::model::name::{RunId, VersionNumber};
use crate::model::reference::{ArtifactPath, Reference, Selector};
use crate::model::run::RunInfo;
use crate::registry::Registry;

/// Nodes of one graph; what is further away is left out, and said so.
const NODES_MAX: usize = 10_000;

/// A run or a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Thing {
    /// A version.
    Version(ArtifactPath, VersionNumber),
    /// A run.
    Run(RunId),
}

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Which it is.
    pub thing: Thing,
    /// Of a version: whether it was deleted.
    pub deleted: bool,
    /// Of a run: the rest; `None` when it was removed.
    pub run: Option<Box<RunInfo>>,
}

/// What an edge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// From a version to a run.
    Used,
    /// From a run to a version.
    Logged,
}

/// The part of the graph around a version.
#[derive(Debug, Default)]
pub struct Graph {
    /// Its nodes; the first is what was asked for.
    pub nodes: Vec<Node>,
    /// From, to (by index), in the direction of the data.
    pub edges: Vec<(usize, usize, Relation)>,
    /// There is more than was looked at.
    pub cut: bool,
}

/// Returns the run that logged a version.
///
/// # Errors
/// [`Kind::NotFound`] for a version that never was, and for one that no run logged.
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
/// [`Kind::NotFound`] for a version that never was.
pub fn used_by(registry: &dyn Registry, reference: &Reference) -> Result<Vec<RunInfo>> {
    let (path, number, _) = resolve(registry, reference)?;
    let ids = runs::users(registry, &path, number)?;
    ids.iter().map(|id| runs::find(registry, id)).collect()
}

/// The version that a reference stands for; one that was deleted is known as long as runs refer to it.
///
/// # Errors
/// [`Kind::NotFound`] for one that never was.
pub fn resolve(
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

/// Which way the graph is walked.
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
    /// The index of a node, made when it is new; `None` when there are too many.
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

    /// Goes on to a neighbour.
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

/// Everything that led to a version and everything that came of it, at most `depth` steps away.
///
/// # Errors
/// [`Kind::NotFound`] for a version that never was.
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
    let root = root.ok_or_else(|| Error::new(Kind::Full, "a graph of no nodes"))?;
    walk.waiting.extend([(root, Way::Up, 0), (root, Way::Down, 0)]);
    walk.run()
}
