//! Walks: each tells in path order what the next tree is made of.

pub mod draft;
pub mod event;
pub mod feed;
mod host;
mod host_referred;
pub mod insert;
pub mod merge;
pub mod referred;

use super::index::OldIndex;
use super::source::Source;
use crate::error::Result;
use crate::ops::repository::Repository;
use draft::{DraftScan, DraftSource};
use feed::Feed;
use host::Scan;
use insert::{Insert, InsertWalk};
use merge::{Layers, MergeScan};
use referred::Referred;

/// What is walked.
pub enum Walk<'a> {
    /// A file or directory of the host, of which the last put knew this, and what references name.
    Source(Option<&'a Source>, Option<Referred>, Box<OldIndex>),
    /// A draft.
    Draft(&'a DraftSource<'a>),
    /// A tree that gets one more file.
    Insert(&'a Insert<'a>),
    /// Trees that become one.
    Merge(&'a Layers),
}

impl<'a> Walk<'a> {
    /// Walks to the end.
    ///
    /// # Errors
    /// What cannot be read, and what the feed says.
    pub fn run(self, repository: &'a Repository, feed: Feed<'a>) -> Result<()> {
        match self {
            Self::Source(source, referred, old) => Scan::new(source, referred, *old, feed).run(),
            Self::Draft(draft) => DraftScan::new(draft, &repository.reader, feed).run(),
            Self::Insert(insert) => InsertWalk::new(insert, &repository.reader, feed).run(),
            Self::Merge(layers) => MergeScan::new(layers, &repository.reader, feed).run(),
        }
    }
}
