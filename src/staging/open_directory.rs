//! An open directory of a draft, and a reader's position in it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use crate::model::digest::Digest;

/// The number of positions remembered: more than fit into the longest reply.
const REMEMBERED: usize = 16_384;

/// An open directory.
pub(crate) struct DirectoryHandle {
    pub(super) node: u64,
    pub(super) tree: Option<Digest>,
    /// The upper directory, whose position reading moves. Opened late if there is none yet.
    pub(super) upper: Mutex<Option<OwnedFd>>,
    pub(super) above: Mutex<Above>,
}

/// The known positions in the upper's part of a listing.
#[derive(Default)]
pub(super) struct Above {
    /// Number of an entry and the upper file system's cookie of it, ascending.
    known: VecDeque<(u64, u64)>,
}

impl Above {
    /// Returns the nearest position at or before `number`.
    pub(super) fn near(&self, number: u64) -> (u64, u64) {
        let behind = self.known.partition_point(|(at, _)| *at <= number);
        match behind.checked_sub(1).and_then(|index| self.known.get(index)) {
            Some(&near) => near,
            None => (0, 0),
        }
    }

    pub(super) fn remember(&mut self, number: u64, cookie: u64) {
        if self.known.back().is_some_and(|(last, _)| *last >= number) {
            return;
        }
        if self.known.len() >= REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back((number, cookie));
    }
}
