//! Checking the cache: cached objects are hashed again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;

use super::repository::Repository;
use crate::content::cache::{Blocks, Cache, SEGMENT_BYTES, SegmentKey, blocks_of};
use crate::content::codec;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::PackId;

/// The result of a check.
#[derive(Debug, Default, Clone, Copy)]
pub struct CacheCheck {
    /// Objects that are wholly cached and right.
    pub objects: u64,
    /// Objects that were wrong: their segments were removed.
    pub wrong: u64,
    /// Segments of packs that this repository does not have.
    pub unknown: u64,
}

/// Reads and hashes every object that is wholly in the cache. Objects that span two segments are
/// skipped; their readers verify them anyway.
///
/// # Errors
/// [`Kind::Unsupported`] if there is no cache.
pub fn check(repository: &Repository) -> Result<CacheCheck> {
    let cache =
        repository.store.fetcher().and_then(|fetcher| fetcher.cache()).ok_or_else(|| {
            Error::new(Kind::Unsupported, "there is no cache")
                .hint("a store in a directory needs none")
        })?;
    let mut packs: BTreeMap<PackId, BTreeSet<u32>> = BTreeMap::new();
    for held in cache.segments().at("list", cache.root())? {
        packs.entry(held.key.pack).or_default().insert(held.key.number);
    }
    let mut found = CacheCheck::default();
    for (pack, numbers) in packs {
        if repository.registry.pack(pack)?.is_none() {
            found.unknown += numbers.len() as u64;
            continue;
        }
        let entries = repository.store.read_index(pack)?;
        for number in numbers {
            let key = SegmentKey { pack, number };
            let start = u64::from(number) * SEGMENT_BYTES;
            let here = entries.iter().filter(|entry| {
                let end = entry.offset + u64::from(entry.stored_bytes);
                entry.offset >= start && end <= start + SEGMENT_BYTES
            });
            let objects = here.map(|e| {
                (e.digest, e.kind, e.codec, e.offset - start, e.stored_bytes, e.body_bytes)
            });
            check_segment(cache, key, objects, &mut found)?;
        }
    }
    Ok(found)
}

type Object = (Digest, crate::model::object_kind::ObjectKind, u8, u64, u32, u32);

fn check_segment(
    cache: &Cache,
    key: SegmentKey,
    objects: impl Iterator<Item = Object>,
    found: &mut CacheCheck,
) -> Result<()> {
    let Some(file) = cache.segment(key) else { return Ok(()) };
    let present = Blocks::of_file(&file);
    let mut wrong = 0;
    for (digest, kind, codec, offset, stored_bytes, body_bytes) in objects {
        let range = offset..offset + u64::from(stored_bytes);
        if !present.has_all(blocks_of(&range)) {
            continue;
        }
        let mut stored = vec![0; stored_bytes as usize];
        let read = file.read_exact_at(&mut stored, offset).is_ok();
        let body = codec::decode(codec, stored, body_bytes);
        if read && body.is_ok_and(|body| digest.is_of(kind, &body)) {
            found.objects += 1;
        } else {
            wrong += 1;
        }
    }
    if wrong > 0 {
        found.wrong += wrong;
        cache.remove(key).at("clear", cache.root())?;
    }
    Ok(())
}
