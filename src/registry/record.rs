//! Values: what stands behind a key. Each begins with a format number.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::groups::AddedPart;
use crate::error::{Error, Kind, Result};
use crate::model::digest::{DIGEST_BYTES, Digest};
use crate::model::name::{Alias, ArtifactType, Tag, VersionNumber};
use crate::model::object::{Extent, Located, ObjectKind, PackId};
use crate::model::properties::Ttl;
use crate::model::reference::ArtifactPath;
use crate::model::varint;
use crate::model::version::{Metadata, Timestamp, Totals};

const FORMAT: u8 = 2;

/// A project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProjectRecord {
    /// When it was first used.
    pub created: Timestamp,
}

/// An artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Its type; never changes.
    pub artifact_type: ArtifactType,
    /// The number the next version gets: a number is never used twice.
    pub next: VersionNumber,
    /// What people wrote.
    pub description: String,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
    /// How long versions live that inherit it; `None`: for ever.
    pub ttl_milliseconds: Option<u64>,
    /// Aliases that keep the version they stand for, sorted.
    pub protected: Vec<Alias>,
}

/// A version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The root tree.
    pub root: Digest,
    /// What is in it.
    pub totals: Totals,
    /// When it was committed.
    pub created: Timestamp,
    /// What people wrote.
    pub description: String,
    /// What programs wrote.
    pub metadata: Metadata,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
    /// How long it lives.
    pub ttl: Ttl,
}

/// A lease: who pins objects and writes packs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// It ends here unless it is renewed.
    pub expires: Timestamp,
    /// Who holds it, so that a dead holder on this host is recognised.
    pub holder: String,
    /// What it is for; a new lease for the same purpose takes over a dead one.
    pub purpose: String,
    /// What it committed: a commit that is repeated gives the same answer.
    pub committed: Option<Committed>,
    /// The part it added to a group: as with a commit.
    pub part: Option<AddedPart>,
    /// Batches of pins so far.
    pub pin_batches: u64,
}

impl LeaseRecord {
    /// Whether what it was for is done.
    pub fn is_done(&self) -> bool {
        self.committed.is_some() || self.part.is_some()
    }
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The artifact.
    pub path: ArtifactPath,
    /// The version that has the content.
    pub number: VersionNumber,
    /// Whether it is new; otherwise the newest version had this content already.
    pub new: bool,
}

/// A pack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRecord {
    /// The lease it is written under, until that commits.
    pub lease: Option<u64>,
    /// Objects that the registry knows in it.
    pub live_objects: u64,
    /// Bytes of these.
    pub live_bytes: u64,
    /// Length of the pack.
    pub length_bytes: u64,
    /// Objects in it that nothing refers to yet.
    pub unreferenced: u64,
    /// Batches of its digests kept while it is under a lease.
    pub object_batches: u64,
}

/// The bytes of a record.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![FORMAT]).expect("a record has no shape postcard cannot write")
}

/// A record of its bytes.
///
/// # Errors
/// [`Kind::Unsupported`] for another format, [`Kind::Corrupt`] for anything else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(body(bytes)?).map_err(|_| damaged())
}

fn body(bytes: &[u8]) -> Result<&[u8]> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some((&format, _)) => {
            let what =
                format!("the registry has records of format {format}; this release reads {FORMAT}");
            Err(Error::new(Kind::Unsupported, what).hint(match format < FORMAT {
                true => {
                    "an older release wrote it: `get` what is in it with that, and `put` it into a \
                     repository of this one"
                }
                false => "a newer release wrote it: use that",
            }))
        }
        None => Err(damaged()),
    }
}

fn damaged() -> Error {
    Error::new(Kind::Corrupt, "a record of the registry is damaged")
        .hint("`artifactfs fsck --rebuild` makes the object table again")
}

/// The bytes of an object's record: they are by far the most, so they are written by hand.
pub fn encode_object(object: &Located) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend([FORMAT, object.kind.code(), object.codec]);
    varint::put(&mut out, object.refs);
    varint::put(&mut out, u64::from(object.body_bytes));
    out.extend_from_slice(&object.extent.pack.0);
    varint::put(&mut out, object.extent.offset);
    varint::put(&mut out, u64::from(object.extent.stored_bytes));
    out
}

/// An object's record.
///
/// # Errors
/// As [`decode`].
pub fn decode_object(bytes: &[u8]) -> Result<Located> {
    fn parse(bytes: &[u8]) -> Option<Located> {
        let mut reader = varint::Reader::new(bytes);
        let kind = ObjectKind::from_code(reader.byte()?)?;
        let codec = reader.byte()?;
        let refs = reader.number()?;
        let body_bytes = u32::try_from(reader.number()?).ok()?;
        let pack = PackId(reader.array()?);
        let offset = reader.number()?;
        let stored_bytes = u32::try_from(reader.number()?).ok()?;
        let extent = Extent { pack, offset, stored_bytes };
        reader.is_empty().then_some(Located { kind, codec, body_bytes, extent, refs })
    }
    parse(body(bytes)?).ok_or_else(damaged)
}

/// Digests end to end.
pub fn encode_digests(digests: &[Digest]) -> Vec<u8> {
    let mut out = vec![FORMAT];
    digests.iter().for_each(|digest| out.extend_from_slice(digest.as_bytes()));
    out
}

/// Digests end to end.
///
/// # Errors
/// As [`decode`].
pub fn decode_digests(bytes: &[u8]) -> Result<Vec<Digest>> {
    let chunks = body(bytes)?.chunks_exact(DIGEST_BYTES);
    if !chunks.remainder().is_empty() {
        return Err(damaged());
    }
    let digest = |chunk: &[u8]| chunk.try_into().map(Digest::from_bytes).map_err(|_| damaged());
    chunks.map(digest).collect()
}
