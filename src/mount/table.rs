//! Inode numbers for files, by content: 88 bytes for each that the kernel knows.
//!
//! ```text
//! number   bit 62: 0 (drafts have it set)   bits 33–61: generation, from 1   bit 32: 0
//!          bits 0–31: slot
//! ```
//! A slot is used again, with another generation, so a number never is.

use hashbrown::HashTable;

use crate::model::digest::Digest;
use crate::model::tree::Content;

const GENERATION_SHIFT: u32 = 33;
/// A slot that reached it is not used again: numbers stay below bit 62.
const GENERATION_MAX: u32 = (1 << 29) - 1;

/// A file: its content and mode are its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKey {
    /// What is in it.
    pub content: Content,
    /// Whether it may be executed.
    pub executable: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    digest: Digest,
    size_bytes: u64,
    lookups: u64,
    /// The directory it was last found in.
    parent: u64,
    generation: u32,
    kind: ContentKind,
    executable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ContentKind {
    /// Nothing, or a chunk.
    Plain,
    Recipe,
    External,
}

impl ContentKind {
    fn of(content: &Content) -> Self {
        match content {
            Content::Empty | Content::Chunk { .. } => Self::Plain,
            Content::Recipe { .. } => Self::Recipe,
            Content::External { .. } => Self::External,
        }
    }
}

/// The files the kernel knows.
#[derive(Default)]
pub struct FileTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
}

fn hash(digest: &Digest, executable: bool) -> u64 {
    digest.spread() ^ u64::from(executable)
}

impl Slot {
    fn is(&self, key: &FileKey, digest: &Digest) -> bool {
        self.digest == *digest
            && self.size_bytes == key.content.size_bytes()
            && self.kind == ContentKind::of(&key.content)
            && self.executable == key.executable
    }

    fn key(&self) -> FileKey {
        let Self { digest, size_bytes, .. } = *self;
        let content = match (size_bytes, self.kind) {
            (0, ContentKind::Plain) => Content::Empty,
            (_, ContentKind::Plain) => Content::Chunk { digest, size_bytes },
            (_, ContentKind::Recipe) => Content::Recipe { digest, size_bytes },
            (_, ContentKind::External) => Content::External { digest, size_bytes },
        };
        FileKey { content, executable: self.executable }
    }
}

impl FileTable {
    /// The number of a file, which the kernel looked up once more, in `parent`.
    pub fn look_up(&mut self, key: &FileKey, parent: u64) -> u64 {
        let digest = key.content.digest().unwrap_or(Digest::from_bytes([0; 32]));
        let hash_value = hash(&digest, key.executable);
        let slots = &mut self.slots;
        let known = self.by_key.find(hash_value, |slot| slots[*slot as usize].is(key, &digest));
        if let Some(&slot) = known {
            slots[slot as usize].lookups += 1;
            slots[slot as usize].parent = parent;
            return number(slot, slots[slot as usize].generation);
        }
        let mut new = Slot {
            digest,
            size_bytes: key.content.size_bytes(),
            lookups: 1,
            parent,
            generation: 1,
            kind: ContentKind::of(&key.content),
            executable: key.executable,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                new.generation = slots[slot as usize].generation + 1;
                slots[slot as usize] = new;
                slot
            }
            None => {
                slots.push(new);
                (slots.len() - 1) as u32
            }
        };
        let rehash = |slot: &u32| {
            let slot = &slots[*slot as usize];
            hash(&slot.digest, slot.executable)
        };
        self.by_key.insert_unique(hash_value, slot, rehash);
        number(slot, new.generation)
    }

    fn slot(&self, ino: u64) -> Option<u32> {
        let slot = ino as u32;
        let found = self.slots.get(slot as usize)?;
        (number(slot, found.generation) == ino && found.lookups > 0).then_some(slot)
    }

    /// The file with this number.
    pub fn get(&self, ino: u64) -> Option<FileKey> {
        self.slot(ino).map(|slot| self.slots[slot as usize].key())
    }

    /// The directory in which a file was last found.
    pub fn seen_in(&self, ino: u64) -> Option<u64> {
        self.slot(ino).map(|slot| self.slots[slot as usize].parent)
    }

    /// The kernel forgets `lookups` look-ups.
    pub fn forget(&mut self, ino: u64, lookups: u64) {
        let Some(slot) = self.slot(ino) else { return };
        let found = &mut self.slots[slot as usize];
        found.lookups = found.lookups.saturating_sub(lookups);
        if found.lookups > 0 {
            return;
        }
        let hash_value = hash(&found.digest, found.executable);
        let retired = found.generation == GENERATION_MAX;
        if let Ok(entry) = self.by_key.find_entry(hash_value, |other| *other == slot) {
            entry.remove();
        }
        if !retired {
            self.free.push(slot);
        }
    }
}

const fn number(slot: u32, generation: u32) -> u64 {
    (generation as u64) << GENERATION_SHIFT | slot as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object::ObjectKind;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn key(number: u8) -> FileKey {
        let digest = Digest::of(ObjectKind::Chunk, &[number / 2]);
        FileKey { content: Content::Chunk { digest, size_bytes: 1 }, executable: number % 2 == 1 }
    }

    proptest! {
        #[test]
        fn numbers_are_stable_while_known_and_never_used_twice(
            steps in prop::collection::vec((0u8..20, any::<bool>()), 0..2_000)
        ) {
            let mut table = FileTable::default();
            let mut model: HashMap<u8, (u64, u64)> = HashMap::new();
            let mut used = HashSet::new();
            for (name, look_up) in steps {
                if look_up {
                    let ino = table.look_up(&key(name), 1);
                    let known = model.entry(name).or_insert_with(|| {
                        assert!(used.insert(ino), "{ino:x} was used before");
                        (ino, 0)
                    });
                    prop_assert_eq!(known.0, ino);
                    known.1 += 1;
                } else if let Some((ino, lookups)) = model.remove(&name) {
                    table.forget(ino, lookups);
                    prop_assert!(table.get(ino).is_none());
                }
                for (name, (ino, _)) in &model {
                    prop_assert_eq!(table.get(*ino), Some(key(*name)));
                }
                prop_assert_eq!(table.by_key.len(), model.len());
            }
        }
    }
}
