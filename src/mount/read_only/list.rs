//! Listings of projects, versions and runs, whose names come and go, and of the trees of versions.

use std::sync::Arc;
use std::time::Duration;

use crate::content::directory;
use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::{ProjectName, RunId};
use crate::mount::inode::description::DESCRIPTION_FILE;
use crate::mount::inode::files::Place;
use crate::mount::inode::node::Node;
use crate::mount::read_only::fs::{Line, ReadFs, not_a_directory, version_node};
use crate::mount::read_only::listings::{Named, in_order};
use crate::ops::browse;

impl ReadFs {
    /// Calls `each` with the lines of a directory from `position` on, until it returns `false`
    /// because it is full. Each line that it takes counts as a look-up.
    ///
    /// # Errors
    /// Any error of the registry or the store.
    pub(crate) fn list(
        &self,
        reader: &Reader,
        ino: u64,
        position: u64,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<()> {
        match self.node(ino)? {
            Node::Root | Node::Run(_) | Node::Runs | Node::Project(..) => {
                let names = self.names(ino, position)?;
                let first = names.partition_point(|named| named.position <= position);
                for named in &names[first..] {
                    if !self.offer_named(ino, named, each)? {
                        break;
                    }
                }
                Ok(())
            }
            Node::Version(version) => {
                self.record_use(&version)?;
                let place = &version.place;
                self.list_tree(reader, ino, (place, place.root, true), position, each)
            }
            Node::Directory { place, tree } => {
                self.list_tree(reader, ino, (&place, tree, false), position, each)
            }
            Node::Symlink { .. } | Node::Description(_) => Err(not_a_directory()),
        }
    }

    /// Returns the names in a directory outside versions. A listing from `position` 0 reads them
    /// from the registry; a later position uses what that listing read.
    ///
    /// # Errors
    /// Any error of the registry.
    pub(crate) fn names(&self, ino: u64, position: u64) -> Result<Arc<Vec<Named>>> {
        if let Some(names) = self.listings.get(ino).filter(|_| position > 0) {
            return Ok(names);
        }
        let names = match self.node(ino)? {
            Node::Root => self.project_nodes(None)?,
            Node::Run(run) => self.project_nodes(Some(&run))?,
            Node::Runs => self.run_nodes()?,
            Node::Project(project, run) => self.project_listing(&project, run.as_ref())?,
            _ => return Err(not_a_directory()),
        };
        let names = Arc::new(in_order(names));
        self.listings.keep(ino, &names);
        Ok(names)
    }

    /// Offers one name to `each`, and returns whether that took it.
    ///
    /// # Errors
    /// Any error of the registry.
    pub(crate) fn offer_named(
        &self,
        parent: u64,
        named: &Named,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<bool> {
        let mut found = self.found(parent, &named.name, named.node.clone())?;
        if let Node::Version(version) = &named.node
            && version.used.is_some()
        {
            // The first look-up in a run decides what the name leads to, so the kernel must send
            // one.
            found.ttl = Duration::ZERO;
        }
        Ok(self.offer(Line { next: named.position, name: named.name.clone(), found }, each))
    }

    fn project_nodes(&self, run: Option<&RunId>) -> Result<Vec<(Vec<u8>, Node)>> {
        let nodes = browse::projects(self.repository())?.into_iter().map(|project| {
            let name = project.as_str().as_bytes().to_vec();
            (name, Node::Project(project, run.cloned()))
        });
        Ok(nodes.collect())
    }

    /// Returns the running runs; the others can be looked up.
    fn run_nodes(&self) -> Result<Vec<(Vec<u8>, Node)>> {
        let runs = browse::running_runs(self.repository())?;
        Ok(runs.into_iter().map(|id| (id.as_str().as_bytes().to_vec(), Node::Run(id))).collect())
    }

    /// Returns all names that a project lists: its versions by number and by alias.
    fn project_listing(
        &self,
        project: &ProjectName,
        run: Option<&RunId>,
    ) -> Result<Vec<(Vec<u8>, Node)>> {
        let mut nodes = Vec::new();
        for info in browse::versions_of_project(self.repository(), project)? {
            nodes.extend(browse::selectors_of(&info).map(|selector| {
                let name = format!("{}:{selector}", info.path.artifact).into_bytes();
                (name, version_node(&info, selector, run.cloned()))
            }));
        }
        Ok(nodes)
    }

    fn list_tree(
        &self,
        reader: &Reader,
        parent: u64,
        (place, tree, is_root): (&Arc<Place>, Digest, bool),
        mut position: u64,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<()> {
        while let Some(run) = directory::run_at(reader, tree, position)? {
            for entry in run.entries() {
                let at = position;
                position += 1;
                // A look-up of that name finds the description. Older releases stored files of that
                // name.
                if is_root && entry.name.as_bytes() == DESCRIPTION_FILE.as_bytes() {
                    continue;
                }
                let found = self.entry(parent, place, at, entry)?;
                let name = entry.name.as_bytes().to_vec();
                if !self.offer(Line { next: position, name, found }, each) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Offers a line to `each`; undoes its look-up if it does not fit.
    fn offer(&self, line: Line, each: &mut dyn FnMut(Line) -> bool) -> bool {
        let ino = line.found.attr.ino;
        let taken = each(line);
        if !taken {
            self.forget(ino, 1);
        }
        taken
    }
}
