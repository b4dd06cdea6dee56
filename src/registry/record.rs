//! The values behind keys. Each begins with a format number.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{DamageHint, Error, Kind, Result};
use crate::model::access::KeyInfo;
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
/// The format of an absent object's record: older releases, which would take it for present, refuse
/// it.
const ABSENT_FORMAT: u8 = 3;
/// The format of an artifact's record with a count of versions; format 2 has none.
const ARTIFACT_FORMAT: u8 = 3;
/// The format of a version's record that begins with its time; records of format 2 are read too.
const VERSION_FORMAT: u8 = 3;
/// The format of the record of a key for some projects. Older releases, which would accept it for
/// all, refuse it.
const KEY_FORMAT: u8 = 3;

/// The record of a project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProjectRecord {
    /// The time of its first use.
    pub(crate) created: Timestamp,
}

/// The record of an artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ArtifactRecord {
    /// Its type, which never changes.
    pub(crate) artifact_type: ArtifactType,
    /// The number of the next version: a number is never used twice.
    pub(crate) next: VersionNumber,
    /// Its description.
    pub(crate) description: String,
    /// Its tags, sorted.
    pub(crate) tags: Vec<Tag>,
    /// The time to live of versions that inherit it; `None`: for ever.
    pub(crate) ttl_milliseconds: Option<u64>,
    /// The protected aliases, sorted: each keeps the version that it stands for.
    pub(crate) protected: Vec<Alias>,
    /// The count of its versions; `None` in records of format 2.
    pub(crate) count: Option<VersionCount>,
}

/// The count of an artifact's versions, so that a listing need not read them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionCount {
    /// The number of versions that exist.
    pub(crate) versions: u64,
    /// The highest version that exists, and the time of its commit.
    pub(crate) newest: Option<(VersionNumber, Timestamp)>,
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

/// The record of a version; [`encode_version`] writes it.
#[derive(Debug, Clone)]
pub(crate) struct VersionRecord {
    /// The root tree.
    pub(crate) root: Digest,
    /// The totals of the tree.
    pub(crate) totals: Totals,
    /// The time of its commit.
    pub(crate) created: Timestamp,
    /// The time of all its files, in seconds since 1970; later than that of the version before it.
    pub(crate) time_seconds: u64,
    /// Its description.
    pub(crate) description: String,
    /// Its metadata.
    pub(crate) metadata: Metadata,
    /// Its tags, sorted.
    pub(crate) tags: Vec<Tag>,
    /// Its time to live.
    pub(crate) ttl: Ttl,
}

/// A version's record of format 2; its time is that of the commit.
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

/// Encodes a version's record.
pub(crate) fn encode_version(version: &VersionRecord) -> Vec<u8> {
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

/// Decodes a version's record of format 2 or 3.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_version(bytes: &[u8]) -> Result<VersionRecord> {
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

/// The record of a lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    /// The time after which others may end the lease, unless it is renewed.
    pub(crate) expires: Timestamp,
    /// The identity of its process, so that a dead holder on this host is recognised.
    pub(crate) holder: String,
    /// Its purpose; a new lease for the same purpose takes over a dead one.
    pub(crate) purpose: String,
    /// The result of its commit: a repeated commit returns the same result.
    pub(crate) committed: Option<Committed>,
    /// The part that it added to a group: a repeated call returns the same part.
    pub(crate) part: Option<AddedPart>,
    /// The number of its batches of pins so far.
    pub(crate) pin_batches: u64,
}

impl LeaseRecord {
    /// Returns whether the lease has committed or added its part.
    pub(crate) fn is_done(&self) -> bool {
        self.committed.is_some() || self.part.is_some()
    }
}

/// The kind of a maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaintenanceMode {
    /// A repair of counts and places in the table.
    Repair,
    /// A new object table is built beside the old one, which is untouched.
    Rebuild,
    /// The new table replaces the old one; a swap that has begun must be completed.
    Swap,
    /// A move of the store.
    Copy,
}

/// The maintenance mark: while it is set no other process changes versions, counts or parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// The kind of the maintenance.
    pub(crate) mode: MaintenanceMode,
    /// The identity of the process that does it.
    pub(crate) holder: String,
    /// The time of its beginning.
    pub(crate) begun: Timestamp,
    /// The time of the last renewal.
    pub(crate) renewed: Timestamp,
}

/// The record of a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackRecord {
    /// The lease that it is written under, until the lease is released.
    pub(crate) lease: Option<u64>,
    /// The number of registered objects in it.
    pub(crate) live_objects: u64,
    /// The size of these objects in bytes.
    pub(crate) live_bytes: u64,
    /// The length of the pack in bytes.
    pub(crate) length_bytes: u64,
    /// The number of its objects that nothing refers to; kept while the pack is under a lease.
    pub(crate) unreferenced: u64,
    /// The number of batches of its digests, which are kept while it is under a lease.
    pub(crate) object_batches: u64,
}

/// Encodes a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![FORMAT]).expect("a record has no shape postcard cannot write")
}

/// Decodes a record.
///
/// # Errors
/// [`Kind::Unsupported`] for another format, [`Kind::Corrupt`] for anything else.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(body(bytes)?).map_err(|_| damaged())
}

/// Encodes the record of a key. One that is accepted for all projects is as older releases wrote it.
pub(crate) fn encode_key(key: &KeyInfo) -> Vec<u8> {
    let KeyInfo { id, user, role, note, created, expires, projects } = key;
    if !projects.is_empty() {
        return postcard::to_extend(key, vec![KEY_FORMAT])
            .expect("a record has no shape postcard cannot write");
    }
    encode(&(id, user, role, note, created, expires))
}

/// Decodes the record of a key of format 2 or 3.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_key(bytes: &[u8]) -> Result<KeyInfo> {
    if let Some((&KEY_FORMAT, body)) = bytes.split_first() {
        return postcard::from_bytes(body).map_err(|_| damaged());
    }
    let (id, user, role, note, created, expires) = decode(bytes)?;
    Ok(KeyInfo { id, user, role, note, created, expires, projects: Vec::new() })
}

/// Encodes an artifact's record.
pub(crate) fn encode_artifact(artifact: &ArtifactRecord) -> Vec<u8> {
    postcard::to_extend(artifact, vec![ARTIFACT_FORMAT])
        .expect("a record has no shape postcard cannot write")
}

/// Decodes an artifact's record of format 2 or 3.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_artifact(bytes: &[u8]) -> Result<ArtifactRecord> {
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

/// Encodes an object's record. These records are by far the most, so their compact format is
/// written by hand.
pub(crate) fn encode_object(object: &Located) -> Vec<u8> {
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

/// Decodes an object's record.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_object(bytes: &[u8]) -> Result<Located> {
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

/// Encodes digests, one after another.
pub(crate) fn encode_digests(digests: &[Digest]) -> Vec<u8> {
    let mut out = vec![FORMAT];
    digests.iter().for_each(|digest| out.extend_from_slice(digest.as_bytes()));
    out
}

/// Decodes digests that lie one after another.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_digests(bytes: &[u8]) -> Result<Vec<Digest>> {
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
