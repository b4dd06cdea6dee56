//! An engine in memory, for model tests.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::{Durability, Engine, Pair, Transaction, View};
use crate::error::Result;

/// An engine whose data ends with the process.
#[derive(Default)]
pub struct MemoryEngine {
    map: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

impl View for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = self.range(from.to_vec()..to.to_vec()).take(limit);
        Ok(range.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// A map and the old values of its changed keys, so that a failed body changes nothing.
struct Undoable<'a> {
    map: &'a mut Map,
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl View for Undoable<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        View::get(&*self.map, key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>> {
        self.map.scan(from, to, limit)
    }
}

impl Transaction for Undoable<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let old = self.map.insert(key.to_vec(), value.to_vec());
        self.before.entry(key.to_vec()).or_insert(old);
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        let old = self.map.remove(key);
        self.before.entry(key.to_vec()).or_insert(old);
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()> {
        body(&*self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(
        &self,
        _durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let mut undoable = Undoable { map: &mut map, before: BTreeMap::new() };
        let done = body(&mut undoable);
        if done.is_err() {
            for (key, value) in std::mem::take(&mut undoable.before) {
                match value {
                    Some(value) => undoable.map.insert(key, value),
                    None => undoable.map.remove(&key),
                };
            }
        }
        done
    }
}
