//! Names that come and go, in an order that each keeps.
//!
//! A position among names that come and go is that of a name, not of a place in a list: it follows
//! from the name alone, so a reader that goes on finds all that was there all the time, whatever
//! was made or removed meanwhile. In a tree, which never changes, it is the number of the entry.

use std::sync::{Arc, Mutex, PoisonError};

use crate::mount::inode::node::Node;

/// Listings that are kept for those who read on in them.
const LISTINGS_KEPT: usize = 2;

/// A name and what it stands for.
pub struct Named {
    /// Where it stands in its listing; where the next reading begins, too.
    pub position: u64,
    /// The name.
    pub name: Vec<u8>,
    /// What it stands for.
    pub node: Node,
}

/// Where a name stands in every listing: at least 1, below 2^62.
pub fn position(name: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(name).as_bytes()[..8]);
    (u64::from_le_bytes(first) >> 2).max(1)
}

/// The names in the order of their positions.
pub(super) fn in_order(names: Vec<(Vec<u8>, Node)>) -> Vec<Named> {
    let named = names.into_iter().map(|(name, node)| (position(&name), name, node));
    let mut sorted: Vec<_> =
        named.map(|(position, name, node)| Named { position, name, node }).collect();
    sorted.sort_unstable_by(|a, b| (a.position, &a.name).cmp(&(b.position, &b.name)));
    // Two names of one position: one of them would be passed over.
    let mut last = 0;
    for named in &mut sorted {
        named.position = named.position.max(last + 1);
        last = named.position;
    }
    sorted
}

/// Listings made lately: reading one of many names takes many requests.
#[derive(Default)]
pub struct Listings {
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

    /// Names have moved.
    pub fn clear(&self) {
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
