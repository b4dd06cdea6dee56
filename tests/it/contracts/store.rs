//! The contract of every store: a directory here, clouds in `tests/stores`.

use std::path::Path;

use artifactfs::content::fetch::{Class, Patience};
use artifactfs::content::options::StoreOptions;
use artifactfs::content::pack::IndexEntry;
use artifactfs::content::store::{Store, StoreUrl};
use artifactfs::error::Kind;
use artifactfs::model::digest::Digest;
use artifactfs::model::object::{Extent, PackId};
use artifactfs::model::object_kind::ObjectKind;

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn entry(offset: u64, body: &[u8]) -> IndexEntry {
    let length = u32::try_from(body.len()).unwrap();
    let (stored_bytes, body_bytes) = (length, length);
    let digest = Digest::of(ObjectKind::Chunk, body);
    IndexEntry { digest, offset, stored_bytes, body_bytes, kind: ObjectKind::Chunk, codec: 0 }
}

fn put(store: &Store, seed: u64, objects: usize, each: usize) -> (PackId, Vec<IndexEntry>) {
    let id = PackId(blake3::hash(&seed.to_le_bytes()).as_bytes()[..16].try_into().unwrap());
    let mut writer = store.create(id).unwrap();
    let mut entries = Vec::new();
    for n in 0..objects {
        let body = bytes(seed * 1_000 + n as u64, each);
        let offset = writer.append(&body).unwrap();
        assert_eq!(offset, (n * each) as u64);
        entries.push(entry(offset, &body));
    }
    assert_eq!(writer.finish().unwrap(), (objects * each) as u64);
    store.write_index(id, &entries).unwrap();
    (id, entries)
}

fn read(store: &Store, id: PackId, entry: &IndexEntry) -> Vec<u8> {
    let mut buffer = vec![0; entry.stored_bytes as usize];
    let extent = Extent { pack: id, offset: entry.offset, stored_bytes: entry.stored_bytes };
    store.read(extent, 0, &mut buffer, Class::Piece, Patience::Deadline).unwrap();
    buffer
}

/// Checks a fresh `url` against the contract. `salt` makes names that no other run uses.
pub fn keeps_its_promises(url: &str, options: &[(String, String)], base: &Path, salt: u64) {
    let url: StoreUrl = url.parse().unwrap();
    let cached = StoreOptions { cache: Some(base.join("cache")), ..StoreOptions::default() };
    for access in [StoreOptions::default(), cached] {
        let store = Store::open(&url, options, base, &access).unwrap();
        let salt = salt + u64::from(access.cache.is_some());
        assert_eq!(store.list().unwrap(), []);
        store.make().unwrap();
        store.refuse_missing().unwrap();
        let (small, few) = put(&store, salt, 3, 1_000);
        // This pack is longer than one upload may be, and than a segment of the cache.
        let (large, many) = put(&store, salt + 10, 70, 1_000_000);
        let (one, single) = put(&store, salt + 20, 1, 1);
        for (id, entries, each) in
            [(small, &few, 1_000), (large, &many, 1_000_000), (one, &single, 1)]
        {
            assert_eq!(store.read_index(id).unwrap(), *entries);
            assert_eq!(store.pack_length(id).unwrap(), (entries.len() * each) as u64);
            for entry in entries.iter().rev() {
                let body = read(&store, id, entry);
                assert_eq!(Digest::of(ObjectKind::Chunk, &body), entry.digest);
            }
        }
        let part = store.read_raw(large, 999_990, 20).unwrap();
        assert_eq!(part[..10], read(&store, large, &many[0])[999_990..]);
        assert_eq!(part[10..], read(&store, large, &many[1])[..10]);
        // An index may be replaced.
        store.write_index(small, &few[..1]).unwrap();
        assert_eq!(store.read_index(small).unwrap(), few[..1]);
        let mut listed = store.list().unwrap();
        listed.sort_unstable();
        let mut expected = vec![small, large, one];
        expected.sort_unstable();
        assert_eq!(listed, expected);
        for id in [small, large, one] {
            store.remove(id).unwrap();
            store.remove(id).unwrap();
            assert_eq!(store.read_index(id).unwrap_err().kind(), Kind::NotFound);
            assert_eq!(store.pack_length(id).unwrap_err().kind(), Kind::NotFound);
        }
        assert_eq!(store.list().unwrap(), []);
        // A pack that was begun and given up is not there.
        if store.is_remote() {
            let mut writer = store.create(large).unwrap();
            for n in 0..50 {
                writer.append(&bytes(n, 1_000_000)).unwrap();
            }
            drop(writer);
            assert_eq!(store.list().unwrap(), []);
            let extent = Extent { pack: small, offset: 0, stored_bytes: 10 };
            let gone = store.read(extent, 0, &mut [0; 10], Class::Piece, Patience::Deadline);
            let gone = gone.map(|()| "read").map_err(|e| e.kind());
            // Cached parts of a pack that is gone may be read: bytes never change.
            assert!(gone == Err(Kind::Corrupt) || access.cache.is_some(), "{gone:?}");
        }
    }
}
