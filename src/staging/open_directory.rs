//! An open directory of a draft, and a reader's position in it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use crate::model::digest::Digest;

/// Positions remembered: more than fit into the longest answer.
const REMEMBERED: usize = 16_384;

/// An open directory.
pub struct DirectoryHandle {
    pub(super) node: u64,
    pub(super) tree: Option<Digest>,
    /// Reading moves its position. Opened late when there is no directory on the host yet.
    pub(super) upper: Mutex<Option<OwnedFd>>,
    pub(super) above: Mutex<Above>,
}

/// Where in the host's part of a listing somebody is.
#[derive(Default)]
pub(super) struct Above {
    /// Number of an entry and the host's cookie of it, ascending.
    known: VecDeque<(u64, u64)>,
}

impl Above {
    /// The nearest position at or before `number`.
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
