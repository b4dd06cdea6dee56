//! Trees: one directory each, as sorted entries, cut into nodes when there are many.
//!
//! ```text
//! node    := format:u8  level:u8  item*
//! item    := kind:u8  name:bytes  body       level 0, kind 1–8
//!          | 0:u8     first:bytes  count:varint  digest  above: a node one level down
//! body    := size:varint [digest unless size is 0]   1 file of one chunk, 2 executable
//!          | size:varint digest                      3 file with a recipe, 4 executable
//!          | digest                                  5 directory
//!          | target:bytes                            6 symlink
//!          | size:varint digest                      7 external file, 8 executable: descriptor
//! bytes   := length:varint byte*
//! digest  := 32 bytes in format 1; 29 in format 2, that of a zone
//! ```

use serde::{Deserialize, Serialize};

use super::digest::{DIGEST_BYTES, Digest};
use super::merkle::Item;
use super::name::EntryName;
use super::node;
use super::object_kind::ObjectKind;
use super::varint;
use super::zone::Zone;

const ITEM_NODE: u8 = 0;
const ITEM_CHUNK_FILE: u8 = 1;
const ITEM_CHUNK_EXECUTABLE: u8 = 2;
const ITEM_RECIPE_FILE: u8 = 3;
const ITEM_RECIPE_EXECUTABLE: u8 = 4;
const ITEM_DIRECTORY: u8 = 5;
const ITEM_SYMLINK: u8 = 6;
const ITEM_EXTERNAL: u8 = 7;
const ITEM_EXTERNAL_EXECUTABLE: u8 = 8;
/// The longest target of a symlink in bytes (Linux's PATH_MAX without its NUL).
pub(crate) const SYMLINK_MAX_BYTES: usize = 4095;

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// No bytes: there is no object for it.
    Empty,
    /// One chunk, which is the file.
    Chunk {
        /// The chunk.
        digest: Digest,
        /// The bytes of the file, at least 1.
        size_bytes: u64,
    },
    /// Several chunks.
    Recipe {
        /// The root node of the recipe.
        digest: Digest,
        /// The bytes of the file.
        size_bytes: u64,
    },
    /// A file that is elsewhere.
    External {
        /// The object that describes it.
        digest: Digest,
        /// The bytes of the file.
        size_bytes: u64,
    },
}

impl Content {
    /// Returns the bytes of the file.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Chunk { size_bytes, .. }
            | Self::Recipe { size_bytes, .. }
            | Self::External { size_bytes, .. } => *size_bytes,
        }
    }

    /// Returns the object that holds it; `None` if it is empty.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Empty => None,
            Self::Chunk { digest, .. }
            | Self::Recipe { digest, .. }
            | Self::External { digest, .. } => Some(*digest),
        }
    }

    /// Returns the number that stands for its kind in binary formats. serde numbers the kinds
    /// alike.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Chunk { .. } => 1,
            Self::Recipe { .. } => 2,
            Self::External { .. } => 3,
        }
    }

    /// Returns the content of a kind that has an object, or `None` for any other number.
    pub(crate) const fn from_code(code: u8, digest: Digest, size_bytes: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Chunk { digest, size_bytes }),
            2 => Some(Self::Recipe { digest, size_bytes }),
            3 => Some(Self::External { digest, size_bytes }),
            _ => None,
        }
    }

    /// Returns the same content in a zone.
    #[must_use]
    pub(crate) fn in_zone(mut self, zone: Zone) -> Self {
        match &mut self {
            Self::Empty => {}
            Self::Chunk { digest, .. }
            | Self::Recipe { digest, .. }
            | Self::External { digest, .. } => *digest = digest.in_zone(zone),
        }
        self
    }

    /// Returns whether the bytes are the same, whatever the zones are.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.in_zone(Zone::LAST) == other.in_zone(Zone::LAST)
    }

    /// Returns whether the file is external.
    pub(crate) fn is_external(&self) -> bool {
        matches!(self, Self::External { .. })
    }
}

/// The target of a name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A regular file.
    File {
        /// The content.
        content: Content,
        /// True if it may be executed.
        executable: bool,
    },
    /// A directory, by its root tree node.
    Directory(Digest),
    /// A symbolic link, by its target, byte for byte.
    Symlink(Box<[u8]>),
}

/// One name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: EntryName,
    /// The target.
    pub target: Target,
}

/// A run of entries one level down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    /// The first name in it.
    pub(crate) first: EntryName,
    /// The number of entries below it.
    pub(crate) count: u64,
    /// The node.
    pub(crate) digest: Digest,
}

/// An item of a tree node: an entry, or above level 0 a child node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TreeItem {
    /// An entry, at level 0.
    Entry(Entry),
    /// A child node, above level 0: the first name, the number of entries, the digest. The name is
    /// absent only for the root of an empty directory.
    Child(Option<EntryName>, u64, Digest),
}

impl TreeItem {
    /// Returns the node that a summary stands for; `None` for an entry.
    pub(crate) fn node_digest(&self) -> Option<Digest> {
        match self {
            Self::Entry(_) => None,
            Self::Child(_, _, digest) => Some(*digest),
        }
    }

    fn name(&self) -> Option<&EntryName> {
        match self {
            Self::Entry(entry) => Some(&entry.name),
            Self::Child(first, ..) => first.as_ref(),
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Entry(_) => 1,
            Self::Child(_, count, _) => *count,
        }
    }
}

impl Item for TreeItem {
    const KIND: ObjectKind = ObjectKind::Tree;

    fn spread(&self) -> u64 {
        let name = self.name().map_or(&b""[..], EntryName::as_bytes);
        Digest::of(ObjectKind::Chunk, name).spread()
    }

    fn encode(zone: Zone, level: u8, run: &[Self]) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + run.len() * (DIGEST_BYTES + 24));
        out.extend([node::format_of(zone), level]);
        for item in run {
            match item {
                Self::Entry(entry) => encode_entry(&mut out, zone, entry),
                Self::Child(first, count, digest) => {
                    out.push(ITEM_NODE);
                    varint::put_bytes(&mut out, first.as_ref().map_or(b"", EntryName::as_bytes));
                    varint::put(&mut out, *count);
                    node::put_child(&mut out, zone, *digest);
                }
            }
        }
        out
    }

    fn summary(run: &[Self], digest: Digest) -> Self {
        let first = run.first().and_then(|item| item.name().cloned());
        Self::Child(first, run.iter().map(Self::count).sum(), digest)
    }

    fn children(run: &[Self]) -> Vec<Digest> {
        run.iter()
            .filter_map(|item| match item {
                Self::Entry(entry) => entry.target.object(),
                Self::Child(_, _, digest) => Some(*digest),
            })
            .collect()
    }
}

impl Target {
    /// Returns the object that it points at, if there is one.
    pub(crate) fn object(&self) -> Option<Digest> {
        match self {
            Self::File { content, .. } => content.digest(),
            Self::Directory(digest) => Some(*digest),
            Self::Symlink(_) => None,
        }
    }
}

fn encode_entry(out: &mut Vec<u8>, zone: Zone, entry: &Entry) {
    let code = match &entry.target {
        Target::File { content: Content::Recipe { .. }, executable: false } => ITEM_RECIPE_FILE,
        Target::File { content: Content::Recipe { .. }, executable: true } => {
            ITEM_RECIPE_EXECUTABLE
        }
        Target::File { content: Content::External { .. }, executable: false } => ITEM_EXTERNAL,
        Target::File { content: Content::External { .. }, executable: true } => {
            ITEM_EXTERNAL_EXECUTABLE
        }
        Target::File { executable: false, .. } => ITEM_CHUNK_FILE,
        Target::File { executable: true, .. } => ITEM_CHUNK_EXECUTABLE,
        Target::Directory(_) => ITEM_DIRECTORY,
        Target::Symlink(_) => ITEM_SYMLINK,
    };
    out.push(code);
    varint::put_bytes(out, entry.name.as_bytes());
    match &entry.target {
        Target::File { content, .. } => {
            varint::put(out, content.size_bytes());
            if let Some(digest) = content.digest() {
                node::put_child(out, zone, digest);
            }
        }
        Target::Directory(digest) => node::put_child(out, zone, *digest),
        Target::Symlink(target) => varint::put_bytes(out, target),
    }
}

/// One decoded tree node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TreeNode {
    /// A run of entries, sorted by name.
    Leaf(Vec<Entry>),
    /// A run of nodes one level down, in the order of their names.
    Inner(Vec<Child>),
}

impl TreeNode {
    /// Decodes the body of the node with this digest, which was checked; `None` for a format that
    /// this release does not support.
    pub(crate) fn decode(digest: Digest, body: &[u8]) -> Option<Self> {
        let mut reader = varint::Reader::new(body);
        let zone = node::zone_of(reader.byte()?, digest)?;
        if reader.byte()? == 0 {
            let mut entries = Vec::new();
            while !reader.is_empty() {
                entries.push(decode_entry(&mut reader, zone)?);
            }
            return Some(Self::Leaf(entries));
        }
        let mut children = Vec::new();
        while !reader.is_empty() {
            if reader.byte()? != ITEM_NODE {
                return None;
            }
            let first = EntryName::try_from(reader.bytes()?).ok()?;
            let count = reader.number()?;
            children.push(Child { first, count, digest: node::take_child(&mut reader, zone)? });
        }
        Some(Self::Inner(children))
    }

    /// Returns the objects that it points at, each once, sorted.
    pub(crate) fn children(&self) -> Vec<Digest> {
        let mut children: Vec<Digest> = match self {
            Self::Leaf(entries) => entries.iter().filter_map(|e| e.target.object()).collect(),
            Self::Inner(children) => children.iter().map(|child| child.digest).collect(),
        };
        children.sort_unstable();
        children.dedup();
        children
    }
}

fn decode_entry(reader: &mut varint::Reader<'_>, zone: Zone) -> Option<Entry> {
    let code = reader.byte()?;
    let name = EntryName::try_from(reader.bytes()?).ok()?;
    let executable =
        matches!(code, ITEM_CHUNK_EXECUTABLE | ITEM_RECIPE_EXECUTABLE | ITEM_EXTERNAL_EXECUTABLE);
    let target = match code {
        ITEM_CHUNK_FILE | ITEM_CHUNK_EXECUTABLE => {
            let content = match reader.number()? {
                0 => Content::Empty,
                size_bytes => {
                    Content::Chunk { digest: node::take_child(reader, zone)?, size_bytes }
                }
            };
            Target::File { content, executable }
        }
        ITEM_RECIPE_FILE | ITEM_RECIPE_EXECUTABLE => {
            let size_bytes = reader.number()?;
            let digest = node::take_child(reader, zone)?;
            Target::File { content: Content::Recipe { digest, size_bytes }, executable }
        }
        ITEM_EXTERNAL | ITEM_EXTERNAL_EXECUTABLE => {
            let size_bytes = reader.number()?;
            let digest = node::take_child(reader, zone)?;
            Target::File { content: Content::External { digest, size_bytes }, executable }
        }
        ITEM_DIRECTORY => Target::Directory(node::take_child(reader, zone)?),
        ITEM_SYMLINK => Target::Symlink(reader.bytes()?.into()),
        _ => return None,
    };
    Some(Entry { name, target })
}

#[cfg(test)]
mod tests {
    use super::super::merkle::{Builder, Node};
    use super::*;
    use std::collections::{BTreeMap, HashSet};

    fn entry(number: u32) -> TreeItem {
        let digest = Digest::of(ObjectKind::Chunk, &number.to_le_bytes());
        let name = EntryName::try_from(format!("{number:09}.jpg").into_bytes()).unwrap();
        let content = Content::Chunk { digest, size_bytes: 4 };
        TreeItem::Entry(Entry { name, target: Target::File { content, executable: false } })
    }

    fn build(numbers: impl Iterator<Item = u32>) -> (Digest, BTreeMap<Digest, Node>) {
        let mut nodes = BTreeMap::new();
        let mut builder = Builder::new(Zone::WHOLE);
        let mut emit = |node: Node| {
            nodes.insert(node.digest, node);
        };
        numbers.for_each(|number| builder.push(entry(number), &mut emit));
        let root = builder.finish(&mut emit).node_digest().unwrap();
        (root, nodes)
    }

    fn walk(nodes: &BTreeMap<Digest, Node>, at: Digest, out: &mut Vec<Entry>) -> u64 {
        let node = TreeNode::decode(at, &nodes[&at].body).unwrap();
        assert_eq!(node.children(), nodes[&at].children);
        match &node {
            TreeNode::Leaf(entries) => {
                out.extend(entries.iter().cloned());
                entries.len() as u64
            }
            TreeNode::Inner(children) => {
                for child in children {
                    assert_eq!(walk(nodes, child.digest, out), child.count);
                }
                children.iter().map(|child| child.count).sum()
            }
        }
    }

    #[test]
    fn any_number_of_entries_comes_back_in_order() {
        for count in [0, 1, 2, 127, 128, 129, 1024, 1025, 5000, 40_000] {
            let (root, nodes) = build(0..count);
            let mut entries = Vec::new();
            assert_eq!(walk(&nodes, root, &mut entries), u64::from(count));
            let expected: Vec<_> = (0..count).map(entry).collect();
            let found: Vec<_> = entries.into_iter().map(TreeItem::Entry).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn one_entry_added_to_a_hundred_thousand_changes_a_few_nodes() {
        let (_, before) = build((0..200_000).step_by(2));
        let before: HashSet<_> = before.into_keys().collect();
        for added in [0u32, 1, 77_777, 199_999, 200_000] {
            let mut numbers: Vec<_> = (0..200_000).step_by(2).collect();
            numbers.push(added);
            numbers.sort_unstable();
            let (_, after) = build(numbers.into_iter());
            let new = after.keys().filter(|digest| !before.contains(digest)).count();
            assert!(new <= 8, "{new} new nodes for {added}");
        }
    }

    #[test]
    fn a_cut_or_foreign_body_is_no_node() {
        let (root, nodes) = build(0..3);
        let body = &nodes[&root].body;
        assert!(TreeNode::decode(root, &body[..body.len() - 1]).is_none());
        assert!(TreeNode::decode(root, b"\x03\x00").is_none());
        assert!(TreeNode::decode(root, b"").is_none());
    }
}
