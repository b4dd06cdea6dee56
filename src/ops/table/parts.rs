//! The parts of a partitioned table: every `*.table.json` below its folder, in path order.

use crate::content::directory::run_at;
use crate::content::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::tree::{Content, Target};

/// The suffix of a table's name.
pub(crate) const TABLE_SUFFIX: &str = ".table.json";

/// A file that holds a table, or a part of one.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The path in the version.
    pub(crate) path: String,
    /// The content of the file.
    pub(crate) content: Content,
}

/// A cursor through the parts. It keeps only a node of each directory on the way.
pub(crate) struct Parts<'a> {
    reader: &'a Reader,
    /// The open directories, and the position in each.
    open: Vec<(String, Digest, u64)>,
}

impl<'a> Parts<'a> {
    /// Begins with the parts below the directory `tree`, which is at `path`.
    pub(crate) fn new(reader: &'a Reader, path: String, tree: Digest) -> Self {
        Self { reader, open: vec![(path, tree, 0)] }
    }

    /// Returns the next part; `None` at the end.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a symlink with a table's name.
    pub(crate) fn advance(&mut self) -> Result<Option<Part>> {
        while let Some((path, tree, position)) = self.open.last_mut() {
            let Some(run) = run_at(self.reader, *tree, *position)? else {
                self.open.pop();
                continue;
            };
            let mut below = None;
            for entry in run.entries() {
                *position += 1;
                let name = format!("{path}/{}", entry.name);
                match &entry.target {
                    Target::Directory(tree) => {
                        below = Some((name, *tree, 0));
                        break;
                    }
                    _ if !name.ends_with(TABLE_SUFFIX) => {}
                    Target::File { content, .. } => {
                        return Ok(Some(Part { path: name, content: *content }));
                    }
                    _ => return Err(no_file(&name)),
                }
            }
            self.open.extend(below);
        }
        Ok(None)
    }
}

/// Returns the error for a symlink where a table should be.
pub(crate) fn no_file(path: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{path} is not a file"))
        .hint("name the file that the symlink leads to")
}
