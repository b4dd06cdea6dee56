//! Walks: each emits the steps of building a tree, in path order.

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

/// The subject of a walk.
pub(crate) enum Walk<'a> {
    /// A file or directory of the host, the external files of references, and the last put's index.
    Source(Option<&'a Source>, Option<Referred>, Box<OldIndex>),
    /// A draft.
    Draft(&'a DraftSource<'a>),
    /// A tree that gets one more file.
    Insert(&'a Insert<'a>),
    /// Trees to be merged.
    Merge(&'a Layers),
}

impl<'a> Walk<'a> {
    /// Walks to the end.
    pub(crate) fn run(self, repository: &'a Repository, feed: Feed<'a>) -> Result<()> {
        match self {
            Self::Source(source, referred, old) => Scan::new(source, referred, *old, feed).run(),
            Self::Draft(draft) => DraftScan::new(draft, &repository.reader, feed).run(),
            Self::Insert(insert) => InsertWalk::new(insert, &repository.reader, feed).run(),
            Self::Merge(layers) => MergeScan::new(layers, &repository.reader, feed).run(),
        }
    }
}
