//! Values: what stands behind a key. Each begins with a format number.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::digest::{DIGEST_BYTES, Digest};
use crate::model::metadata::Metadata;
use crate::model::name::{Alias, ArtifactType, Tag, VersionNumber};
use crate::model::object::{Extent, Located, PackId, Presence};
use crate::model::object_kind::ObjectKind;
use crate::model::properties::Ttl;
use crate::model::time::Timestamp;
use crate::model::varint;
use crate::model::version::{AddedPart, Committed, Totals};

const FORMAT: u8 = 2;
/// The format of an absent object's record: an older release, which would take it for present, refuses it.
const ABSENT_FORMAT: u8 = 3;
/// The format of an artifact's record: format 2 did not count versions.
const ARTIFACT_FORMAT: u8 = 3;
/// A version's record begins with its time since this format; those of format 2 are read too.
const VERSION_FORMAT: u8 = 3;

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
    /// What versions there are; `None` in a record that was written before this was kept.
    pub count: Option<VersionCount>,
}

/// The versions of an artifact in numbers, so that a listing need not read them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionCount {
    /// Versions that exist.
    pub versions: u64,
    /// The highest of them, and when that was committed.
    pub newest: Option<(VersionNumber, Timestamp)>,
}

/// An artifact's record without the count of its versions.
#[derive(Deserialize)]
struct UncountedArtifact {
    artifact_type: ArtifactType,
    next: VersionNumber,
    description: String,
    tags: Vec<Tag>,
    ttl_milliseconds: Option<u64>,
    protected: Vec<Alias>,
}

/// A version; written by [`encode_version`].
#[derive(Debug, Clone)]
pub struct VersionRecord {
    /// The root tree.
    pub root: Digest,
    /// What is in it.
    pub totals: Totals,
    /// When it was committed.
    pub created: Timestamp,
    /// The time that everything in it bears, in seconds since 1970; later than that of the version
    /// before it.
    pub time_seconds: u64,
    /// What people wrote.
    pub description: String,
    /// What programs wrote.
    pub metadata: Metadata,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
    /// How long it lives.
    pub ttl: Ttl,
}

/// A version as it was written before format 3; the time is that of the commit.
#[derive(Serialize, Deserialize)]
struct VersionBody {
    root: Digest,
    totals: Totals,
    created: Timestamp,
    description: String,
    metadata: Metadata,
    tags: Vec<Tag>,
    ttl: Ttl,
}

/// The bytes of a version's record.
pub fn encode_version(version: &VersionRecord) -> Vec<u8> {
    let version = version.clone();
    let body = VersionBody {
        root: version.root,
        totals: version.totals,
        created: version.created,
        description: version.description,
        metadata: version.metadata,
        tags: version.tags,
        ttl: version.ttl,
    };
    let timed = (version.time_seconds, body);
    postcard::to_extend(&timed, vec![VERSION_FORMAT]).expect("a version is a plain record")
}

/// A version's record.
///
/// # Errors
/// As [`decode`].
pub fn decode_version(bytes: &[u8]) -> Result<VersionRecord> {
    let (time, body) = match bytes.split_first() {
        Some((&VERSION_FORMAT, rest)) => {
            let (time, body) = postcard::from_bytes(rest).map_err(|_| damaged())?;
            (Some(time), body)
        }
        _ => (None, decode::<VersionBody>(bytes)?),
    };
    Ok(VersionRecord {
        root: body.root,
        totals: body.totals,
        created: body.created,
        time_seconds: time.unwrap_or(body.created.seconds()),
        description: body.description,
        metadata: body.metadata,
        tags: body.tags,
        ttl: body.ttl,
    })
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

/// What is being done to the object table or the store as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaintenanceMode {
    /// Counts and places are put right where they are.
    Repair,
    /// The object table is made anew beside the old one, which is untouched.
    Rebuild,
    /// The new table is taking the old one's place: it has to be brought to its end.
    Swap,
    /// The store is being moved.
    Copy,
}

/// The maintenance mark: while it stands nobody else changes versions, counts or parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// What is done.
    pub mode: MaintenanceMode,
    /// Which process does it.
    pub holder: String,
    /// When it began.
    pub begun: Timestamp,
    /// When it last said that it goes on.
    pub renewed: Timestamp,
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

/// The bytes of an artifact's record.
pub fn encode_artifact(artifact: &ArtifactRecord) -> Vec<u8> {
    postcard::to_extend(artifact, vec![ARTIFACT_FORMAT])
        .expect("a record has no shape postcard cannot write")
}

/// An artifact's record, also of the shape without a count.
///
/// # Errors
/// As [`decode`].
pub fn decode_artifact(bytes: &[u8]) -> Result<ArtifactRecord> {
    if let Some((&ARTIFACT_FORMAT, body)) = bytes.split_first() {
        return postcard::from_bytes(body).map_err(|_| damaged());
    }
    let UncountedArtifact { artifact_type, next, description, tags, ttl_milliseconds, protected } =
        decode(bytes)?;
    let count = None;
    Ok(ArtifactRecord {
        artifact_type,
        next,
        description,
        tags,
        ttl_milliseconds,
        protected,
        count,
    })
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
    Error::new(Kind::Corrupt, "a record of the registry is damaged").hint(DamageHint::Rebuild)
}

/// The bytes of an object's record: they are by far the most, so they are written by hand.
pub fn encode_object(object: &Located) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    match object.presence {
        Presence::Present => out.push(FORMAT),
        absent => out.extend([ABSENT_FORMAT, absent.code()]),
    }
    out.extend([object.kind.code(), object.codec]);
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
    fn parse(bytes: &[u8], absent: bool) -> Option<Located> {
        let mut reader = varint::Reader::new(bytes);
        let presence = match absent {
            true => Presence::from_code(reader.byte()?)?,
            false => Presence::Present,
        };
        let kind = ObjectKind::from_code(reader.byte()?)?;
        let codec = reader.byte()?;
        let refs = reader.number()?;
        let body_bytes = u32::try_from(reader.number()?).ok()?;
        let pack = PackId(reader.array()?);
        let offset = reader.number()?;
        let stored_bytes = u32::try_from(reader.number()?).ok()?;
        let extent = Extent { pack, offset, stored_bytes };
        let located = Located { kind, codec, body_bytes, extent, refs, presence };
        reader.is_empty().then_some(located)
    }
    let parsed = match bytes.split_first() {
        Some((&ABSENT_FORMAT, body)) => parse(body, true),
        _ => parse(body(bytes)?, false),
    };
    parsed.ok_or_else(damaged)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object_kind::ObjectKind;

    #[test]
    fn a_version_written_before_it_had_a_time_bears_that_of_its_commit() {
        let root = Digest::of(ObjectKind::Tree, b"");
        let body = VersionBody {
            root,
            totals: Totals { files: 3, ..Totals::default() },
            created: Timestamp(1_234_567),
            description: "words".to_owned(),
            metadata: Metadata::default(),
            tags: Vec::new(),
            ttl: Ttl::default(),
        };
        let old = decode_version(&encode(&body)).unwrap();
        assert_eq!((old.root, old.totals.files, old.time_seconds), (root, 3, 1_234));
        let new = VersionRecord { time_seconds: 9_999, ..old };
        let read = decode_version(&encode_version(&new)).unwrap();
        assert_eq!((read.time_seconds, read.created.0), (9_999, 1_234_567));
        assert_eq!(read.description, "words");
        let newer = decode_version(&[VERSION_FORMAT + 1]).unwrap_err();
        assert_eq!(newer.kind(), Kind::Unsupported);
    }
}
