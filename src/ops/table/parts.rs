//! The parts of a partitioned table: every `*.table.json` below its folder, in path order.

use crate::content::directory::run_at;
use crate::content::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::tree::{Content, Target};

/// How a table's name ends.
pub const TABLE_SUFFIX: &str = ".table.json";

/// A file that holds a table, or a part of one.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it is in the version.
    pub path: String,
    /// What is in it.
    pub content: Content,
}

/// Goes through the parts; a node of each directory on the way is all that it keeps.
pub struct Parts<'a> {
    reader: &'a Reader,
    /// Directories, and how far each is gone through.
    open: Vec<(String, Digest, u64)>,
}

impl<'a> Parts<'a> {
    /// The parts below the directory `tree`, which is at `path`.
    pub fn new(reader: &'a Reader, path: String, tree: Digest) -> Self {
        Self { reader, open: vec![(path, tree, 0)] }
    }

    /// The next part.
    ///
    /// # Errors
    /// When a tree cannot be read; [`Kind::Unsupported`] for a symlink of a table's name.
    pub fn advance(&mut self) -> Result<Option<Part>> {
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

/// A symlink where a table should be.
pub fn no_file(path: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{path} is no file"))
        .hint("name the file that the symlink leads to")
}
