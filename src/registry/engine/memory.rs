//! An engine in memory, for model tests. On request it undoes the commits that a crash may undo.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::{Durability, Engine, Pair, Transaction, View};
use crate::error::Result;

/// An engine whose data ends with the process.
#[derive(Default)]
pub struct MemoryEngine {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    map: Map,
    /// The changes since the last [`Durability::Immediate`] commit.
    eventual: Undo,
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The old values of changed keys.
#[derive(Default)]
struct Undo(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Undo {
    fn note(&mut self, key: &[u8], old: Option<Vec<u8>>) {
        self.0.entry(key.to_vec()).or_insert(old);
    }

    fn apply(self, map: &mut Map) {
        for (key, value) in self.0 {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }
}

impl MemoryEngine {
    /// Undoes all commits since the last [`Durability::Immediate`] one, as a crash may.
    pub fn forget(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.eventual).apply(&mut state.map);
    }
}

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
    undo: Undo,
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
        self.undo.note(key, old);
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        let old = self.map.remove(key);
        self.undo.note(key, old);
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<()>) -> Result<()> {
        body(&self.state.read().unwrap_or_else(PoisonError::into_inner).map)
    }

    fn write(
        &self,
        durability: Durability,
        body: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State { map, eventual } = &mut *state;
        let mut undoable = Undoable { map, undo: Undo::default() };
        let done = body(&mut undoable);
        let Undoable { map, undo } = undoable;
        match (&done, durability) {
            (Err(_), _) => undo.apply(map),
            (Ok(()), Durability::Immediate) => *eventual = Undo::default(),
            (Ok(()), Durability::Eventual) => {
                undo.0.into_iter().for_each(|(key, old)| eventual.note(&key, old));
            }
        }
        done
    }
}
