//! Listings of names that come and go, in a stable order.
//!
//! The position in such a listing is that of a name, not a place in a list: it follows from the
//! name alone. So a reader finds all names that are there all the time, whatever is created or
//! removed meanwhile. In a tree, which never changes, the position is the number of the entry.

use std::sync::{Arc, Mutex, PoisonError};

use crate::mount::inode::node::Node;

/// The number of listings that are kept for readers that continue.
const LISTINGS_KEPT: usize = 2;

/// A name and its node.
pub(crate) struct Named {
    /// The position in its listing, and the one where the next reading begins.
    pub(crate) position: u64,
    /// The name.
    pub(crate) name: Vec<u8>,
    /// The node.
    pub(crate) node: Node,
}

/// Returns the position of a name in every listing: at least 1, below 2^62.
pub(crate) fn position(name: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(name).as_bytes()[..8]);
    (u64::from_le_bytes(first) >> 2).max(1)
}

/// Sorts the names by their positions, and makes these distinct.
pub(super) fn in_order(names: Vec<(Vec<u8>, Node)>) -> Vec<Named> {
    let named = names.into_iter().map(|(name, node)| (position(&name), name, node));
    let mut sorted: Vec<_> =
        named.map(|(position, name, node)| Named { position, name, node }).collect();
    sorted.sort_unstable_by(|a, b| (a.position, &a.name).cmp(&(b.position, &b.name)));
    // Of two names with one position, a reader would skip one.
    let mut last = 0;
    for named in &mut sorted {
        named.position = named.position.max(last + 1);
        last = named.position;
    }
    sorted
}

/// The most recent listings: one of many names takes many requests.
#[derive(Default)]
pub(crate) struct Listings {
    kept: Mutex<Vec<(u64, Arc<Vec<Named>>)>>,
}

impl Listings {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Arc<Vec<Named>>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, ino: u64) -> Option<Arc<Vec<Named>>> {
        self.lock().iter().find(|(of, _)| *of == ino).map(|(_, names)| Arc::clone(names))
    }

    pub(super) fn keep(&self, ino: u64, names: &Arc<Vec<Named>>) {
        let mut kept = self.lock();
        kept.retain(|(of, _)| *of != ino);
        kept.truncate(LISTINGS_KEPT - 1);
        kept.insert(0, (ino, Arc::clone(names)));
    }

    /// Forgets all listings, after names have moved.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(names: &[String]) -> Vec<(Vec<u8>, u64)> {
        let names = names.iter().map(|name| (name.clone().into_bytes(), Node::Runs)).collect();
        in_order(names).into_iter().map(|named| (named.name, named.position)).collect()
    }

    #[test]
    fn a_name_keeps_its_position_whatever_else_is_listed() {
        let names: Vec<String> = (0..500).map(|n| format!("a:v{n}")).collect();
        let all = positions(&names);
        assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].1));
        assert!(all.iter().all(|(_, position)| (1..1 << 62).contains(position)));
        let some = positions(&names[100..200]);
        assert!(some.iter().all(|one| all.contains(one)));
    }
}
