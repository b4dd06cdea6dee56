//! A least-recently-used map bounded by the bytes its values take.

use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

/// A map shared between threads. It does not keep a value larger than the whole bound.
pub(crate) struct WeightedLru<K: Hash + Eq, V> {
    inner: Mutex<Inner<K, V>>,
    max_bytes: usize,
}

struct Inner<K: Hash + Eq, V> {
    map: LruCache<K, (V, usize)>,
    bytes: usize,
}

impl<K: Hash + Eq, V: Clone> WeightedLru<K, V> {
    /// Returns a map for values that weigh at most `max_bytes` together.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let inner = Inner { map: LruCache::unbounded(), bytes: 0 };
        Self { inner: Mutex::new(inner), max_bytes }
    }

    /// Returns the value of `key`, which becomes the most recently used.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.map.get(key).map(|(value, _)| value.clone())
    }

    /// Adds a value that weighs `bytes`, and drops the least recently used beyond the bound.
    pub(crate) fn put(&self, key: K, value: V, bytes: usize) {
        if bytes > self.max_bytes {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, (_, old))) = inner.map.push(key, (value, bytes)) {
            inner.bytes -= old;
        }
        inner.bytes += bytes;
        while inner.bytes > self.max_bytes {
            let Some((_, (_, dropped))) = inner.map.pop_lru() else {
                break;
            };
            inner.bytes -= dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_the_bound_holds() {
        let lru = WeightedLru::new(10);
        lru.put(1, "a", 4);
        lru.put(2, "b", 4);
        lru.get(&1);
        lru.put(3, "c", 4);
        assert_eq!((lru.get(&1), lru.get(&2), lru.get(&3)), (Some("a"), None, Some("c")));
        lru.put(1, "d", 2);
        lru.put(4, "e", 4);
        assert_eq!((lru.get(&1), lru.get(&3), lru.get(&4)), (Some("d"), Some("c"), Some("e")));
        lru.put(5, "f", 11);
        assert_eq!(lru.get(&5), None);
    }
}
