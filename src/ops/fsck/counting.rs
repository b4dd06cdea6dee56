//! Counting references, in passes of bounded memory.

use std::collections::{BTreeMap, HashMap};

use super::table::{Table, is_damage};
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::object::{Located, Presence};
use crate::model::object_kind::ObjectKind;
use crate::ops::groups::each_part;
use crate::ops::listing::each_version;
use crate::ops::repository::Repository;

/// The number of objects counted in one pass. It bounds memory to some 200 MiB.
const COUNTED_AT_ONCE: u64 = 2_000_000;
/// The maximum number of unreadable nodes that are remembered; more are not reported one by one.
const UNREADABLE_MAX: usize = 100_000;

/// A count of all references to the objects of a table.
pub(crate) struct Counting<'a> {
    repository: &'a Repository,
    table: &'a dyn Table,
    passes: u64,
    pass: u64,
    /// The number of versions.
    pub(crate) versions: u64,
    /// Nodes that cannot be read, and why.
    pub(crate) unreadable: BTreeMap<Digest, String>,
    /// True if references from versions and parts are counted, too.
    roots: bool,
}

/// The references to a part of the objects.
pub(crate) struct Pass {
    number: u64,
    passes: u64,
    /// The number of references to each object that has any.
    pub(crate) counts: HashMap<Digest, u64>,
}

impl Pass {
    /// Reports whether an object is counted in this pass.
    pub(crate) fn mine(&self, digest: &Digest) -> bool {
        digest.spread() % self.passes == self.number
    }

    fn add(&mut self, digest: Digest) {
        if self.mine(&digest) {
            *self.counts.entry(digest).or_default() += 1;
        }
    }
}

impl<'a> Counting<'a> {
    /// Makes a count of references to the objects of `table`, of which there are about `objects`.
    pub(crate) fn new(repository: &'a Repository, table: &'a dyn Table, objects: u64) -> Self {
        let passes = objects / COUNTED_AT_ONCE + 1;
        Self {
            repository,
            table,
            passes,
            pass: 0,
            versions: 0,
            unreadable: BTreeMap::new(),
            roots: true,
        }
    }

    /// Counts references from nodes only.
    pub(crate) fn of_nodes(self) -> Self {
        Self { roots: false, ..self }
    }

    /// Returns whether [`Self::unreadable`] may lack some of the unreadable nodes.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.unreadable.len() >= UNREADABLE_MAX
    }

    /// Counts the next part; returns `None` after the last.
    ///
    /// # Errors
    /// An error means that registry or store cannot be read now. A damaged node is no error.
    pub(crate) fn next_pass(&mut self) -> Result<Option<Pass>> {
        if self.pass == self.passes {
            return Ok(None);
        }
        let mut pass = Pass { number: self.pass, passes: self.passes, counts: HashMap::new() };
        self.pass += 1;
        if self.roots {
            self.count_roots(&mut pass)?;
        }
        let table = self.table;
        table.each(&mut |digest, located| self.count_children(&mut pass, digest, &located))?;
        Ok(Some(pass))
    }

    fn count_roots(&mut self, pass: &mut Pass) -> Result<()> {
        self.versions = 0;
        each_version(&*self.repository.registry, &mut |version| {
            self.versions += 1;
            pass.add(version.root);
            Ok(())
        })?;
        each_part(&*self.repository.registry, &mut |part| {
            pass.add(part.root);
            Ok(())
        })
    }

    /// Counts the children of a node, unless it is absent and they are not counted while it is.
    fn count_children(&mut self, pass: &mut Pass, digest: Digest, node: &Located) -> Result<()> {
        if node.kind == ObjectKind::Chunk || node.presence == Presence::AbsentUncounted {
            return Ok(());
        }
        match self.table.children(digest, node) {
            Ok(children) => children.into_iter().for_each(|child| pass.add(child)),
            Err(e) if is_damage(&e) => {
                if self.unreadable.len() < UNREADABLE_MAX {
                    self.unreadable.insert(digest, e.message());
                }
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}
