//! Inode numbers for the files of versions: 64 bytes for each that the kernel holds.
//!
//! ```text
//! number   bit 62: 0 (drafts have it set)   bits 33–61: generation, from 1   bit 32: 0
//!          bits 0–31: slot
//! ```
//! A file is a path of a version: the same by each of the version's names, and never another file
//! with the same bytes. Programs distinguish files by their number, and take two with one number
//! for two names of one file. A slot is used again, with another generation, so a number is never
//! used twice.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::VersionNumber;
use crate::model::reference::ArtifactPath;
use crate::model::tree::Content;

const GENERATION_SHIFT: u32 = 33;
/// The highest generation: a slot that reached it is not used again, so numbers stay below bit 62.
const GENERATION_MAX: u32 = (1 << 29) - 1;
/// The length of a place's identity: long enough that no two are equal by chance.
const PLACE_BYTES: usize = 16;

/// A directory of a version, by any of the version's names.
#[derive(Debug)]
pub(crate) struct Place {
    /// The identity, which follows from artifact, number, root tree and path.
    id: [u8; PLACE_BYTES],
    /// The root tree of the version.
    pub(crate) root: Digest,
    /// The time of everything in the version, in seconds since 1970.
    pub(crate) time_seconds: u64,
}

impl Place {
    /// Returns the root directory of a version.
    pub(crate) fn of_version(
        path: &ArtifactPath,
        number: VersionNumber,
        root: Digest,
        time_seconds: u64,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(path.to_string().as_bytes()).update(&[0]);
        hasher.update(&number.0.to_le_bytes()).update(root.as_bytes());
        Self { id: shortened(&hasher), root, time_seconds }
    }

    /// Returns the directory `name` of this one.
    #[must_use]
    pub(crate) fn below(&self, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.id).update(name);
        Self { id: shortened(&hasher), ..*self }
    }
}

fn shortened(hasher: &blake3::Hasher) -> [u8; PLACE_BYTES] {
    let mut id = [0; PLACE_BYTES];
    hasher.finalize_xof().fill(&mut id);
    id
}

/// A file of a version.
#[derive(Debug, Clone)]
pub(crate) struct FileNode {
    /// The content.
    pub(crate) content: Content,
    /// True if the file may be executed.
    pub(crate) executable: bool,
    /// The directory it is in.
    pub(crate) place: Arc<Place>,
}

struct Slot {
    digest: Digest,
    size_bytes: u64,
    /// `None` while the slot is free.
    place: Option<Arc<Place>>,
    /// The number of the entry in its directory.
    position: u32,
    /// The number of look-ups by the kernel. At its highest value it is not counted any more, and
    /// the slot stays.
    lookups: u32,
    generation: u32,
    kind: ContentKind,
    executable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ContentKind {
    /// No bytes, or a chunk.
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

/// The files that the kernel holds.
#[derive(Default)]
pub(crate) struct FileTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
}

fn hash(place: &Place, position: u32) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&place.id[..8]);
    // An odd factor (2^64 divided by the golden ratio) spreads positions over all bits.
    u64::from_le_bytes(first) ^ u64::from(position).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Slot {
    fn is(&self, place: &Place, position: u32) -> bool {
        self.position == position && self.place.as_ref().is_some_and(|own| own.id == place.id)
    }

    fn hash(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| hash(place, self.position))
    }

    fn content(&self) -> Content {
        let Self { digest, size_bytes, .. } = *self;
        match (size_bytes, self.kind) {
            (0, ContentKind::Plain) => Content::Empty,
            (_, ContentKind::Plain) => Content::Chunk { digest, size_bytes },
            (_, ContentKind::Recipe) => Content::Recipe { digest, size_bytes },
            (_, ContentKind::External) => Content::External { digest, size_bytes },
        }
    }
}

impl FileTable {
    /// Looks up entry `position` of the file's directory, and returns its number.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] beyond 2^32 entries of one directory.
    pub(crate) fn look_up(&mut self, file: &FileNode, position: u64) -> Result<u64> {
        let position = u32::try_from(position).map_err(|_| {
            Error::new(Kind::Unsupported, format!("cannot number entry {position} of a directory"))
                .hint("a directory is mounted up to 4,294,967,296 entries: divide it")
        })?;
        let FileNode { content, executable, place } = file;
        let hash_value = hash(place, position);
        let slots = &mut self.slots;
        let known = self.by_key.find(hash_value, |slot| slots[*slot as usize].is(place, position));
        if let Some(&slot) = known {
            let found = &mut slots[slot as usize];
            found.lookups = found.lookups.saturating_add(1);
            return Ok(number(slot, found.generation));
        }
        let mut new = Slot {
            digest: content.digest().unwrap_or(Digest::from_bytes([0; 32])),
            size_bytes: content.size_bytes(),
            place: Some(Arc::clone(place)),
            position,
            lookups: 1,
            generation: 1,
            kind: ContentKind::of(content),
            executable: *executable,
        };
        let generation;
        let slot = match self.free.pop() {
            Some(slot) => {
                new.generation = slots[slot as usize].generation + 1;
                generation = new.generation;
                slots[slot as usize] = new;
                slot
            }
            None => {
                generation = new.generation;
                slots.push(new);
                (slots.len() - 1) as u32
            }
        };
        self.by_key.insert_unique(hash_value, slot, |slot| slots[*slot as usize].hash());
        Ok(number(slot, generation))
    }

    fn slot(&self, ino: u64) -> Option<u32> {
        let slot = ino as u32;
        let found = self.slots.get(slot as usize)?;
        (number(slot, found.generation) == ino && found.lookups > 0).then_some(slot)
    }

    /// Returns the file with a number.
    pub(crate) fn get(&self, ino: u64) -> Option<FileNode> {
        let slot = &self.slots[self.slot(ino)? as usize];
        let place = Arc::clone(slot.place.as_ref()?);
        Some(FileNode { content: slot.content(), executable: slot.executable, place })
    }

    /// Subtracts `lookups` look-ups that the kernel forgets.
    pub(crate) fn forget(&mut self, ino: u64, lookups: u64) {
        let Some(slot) = self.slot(ino) else { return };
        let found = &mut self.slots[slot as usize];
        if found.lookups == u32::MAX {
            return;
        }
        found.lookups = u32::try_from(lookups).map_or(0, |less| found.lookups.saturating_sub(less));
        if found.lookups > 0 {
            return;
        }
        let hash_value = found.hash();
        let retired = found.generation == GENERATION_MAX;
        found.place = None;
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
    use crate::model::object_kind::ObjectKind;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    /// Makes a file of one of two names of a version, or of another version; all have the same
    /// bytes.
    fn file(number: u8) -> (FileNode, u64) {
        let tree = Digest::of(ObjectKind::Tree, b"");
        let version = VersionNumber(u64::from(number % 2));
        let root = Place::of_version(&"p/a".parse().unwrap(), version, tree, 7);
        let place = Arc::new(if number.is_multiple_of(3) { root } else { root.below(b"sub") });
        let content = Content::Chunk { digest: Digest::of(ObjectKind::Chunk, b"x"), size_bytes: 1 };
        (FileNode { content, executable: false, place }, u64::from(number / 6))
    }

    fn identity(number: u8) -> (bool, bool, u8) {
        (number.is_multiple_of(2), number.is_multiple_of(3), number / 6)
    }

    #[test]
    fn a_known_file_takes_one_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
    }

    #[test]
    fn places_differ_by_path_and_version_and_agree_by_every_name() {
        let tree = Digest::of(ObjectKind::Tree, b"");
        let of = |path: &str, number| {
            Place::of_version(&path.parse().unwrap(), VersionNumber(number), tree, 0)
        };
        let (first, again) = (of("p/a", 0), of("p/a", 0));
        assert_eq!(first.below(b"x").id, again.below(b"x").id);
        let others = [of("p/a", 1), of("p/b", 0), of("q/a", 0), first.below(b"x")];
        let more = [first.below(b"xy"), first.below(b"x").below(b"y"), first.below(b"y")];
        let all: HashSet<_> = others.iter().chain(&more).map(|place| place.id).collect();
        assert_eq!(all.len(), 7);
        assert!(!all.contains(&first.id));
    }

    proptest! {
        #[test]
        fn numbers_are_stable_while_known_and_never_used_twice(
            steps in prop::collection::vec((0u8..40, any::<bool>()), 0..2_000)
        ) {
            let mut table = FileTable::default();
            let mut model: HashMap<(bool, bool, u8), (u64, u64)> = HashMap::new();
            let mut used = HashSet::new();
            for (name, look_up) in steps {
                if look_up {
                    let (node, position) = file(name);
                    let ino = table.look_up(&node, position).unwrap();
                    let known = model.entry(identity(name)).or_insert_with(|| {
                        assert!(used.insert(ino), "{ino:x} was used before");
                        (ino, 0)
                    });
                    prop_assert_eq!(known.0, ino);
                    known.1 += 1;
                } else if let Some((ino, lookups)) = model.remove(&identity(name)) {
                    table.forget(ino, lookups);
                    prop_assert!(table.get(ino).is_none());
                }
                for (ino, _) in model.values() {
                    prop_assert!(table.get(*ino).is_some());
                }
                prop_assert_eq!(table.by_key.len(), model.len());
            }
        }
    }
}
