//! Versions as the lower of drafts.

use std::sync::Arc;

use crate::content::directory::{lookup, run_at};
use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Content, Entry, Target};
use crate::staging::Lower;

/// The trees and content of a repository.
pub struct Versions(pub Arc<Reader>);

impl Lower for Versions {
    fn entry(&self, tree: Digest, name: &EntryName) -> Result<Option<Target>> {
        Ok(lookup(&self.0, tree, name)?.map(|entry| entry.target))
    }

    fn run(&self, tree: Digest, position: u64) -> Result<Vec<Entry>> {
        let run = run_at(&self.0, tree, position)?;
        Ok(run.map_or_else(Vec::new, |run| run.entries().to_vec()))
    }

    fn read(&self, content: &Content, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.0.read_at(content, offset, buffer)
    }
}
