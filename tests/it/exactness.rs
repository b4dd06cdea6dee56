//! Deletion frees exactly: random versions that share content, against an oracle that walks all
//! trees and uses no reference counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use artifactfs::model::digest::Digest;
use artifactfs::model::new_version::NewVersion;
use artifactfs::model::reference::Reference;
use artifactfs::ops::delete::delete;
use artifactfs::ops::exclusive_size::exclusive_bytes;
use artifactfs::ops::fsck::{Mode, fsck};
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::groups::{FinishRequest, discard, each_part, finish, open_groups};
use artifactfs::ops::listing::each_version;
use artifactfs::ops::put::Upsert;
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::repository::Repository;
use artifactfs::registry::GroupInfo;
use proptest::prelude::*;

use crate::world::{World, noise};

/// Returns every object that a version or a part of a group needs, with its length in the store.
fn oracle(repository: &Repository) -> BTreeMap<Digest, u64> {
    let mut live = BTreeMap::new();
    let mut open = Vec::new();
    each_version(&*repository.registry, &mut |version| {
        open.push(version.root);
        Ok(())
    })
    .unwrap();
    each_part(&*repository.registry, &mut |part| {
        open.push(part.root);
        Ok(())
    })
    .unwrap();
    while let Some(digest) = open.pop() {
        let at = repository.registry.locate(vec![digest]).unwrap()[0].expect("a live object");
        if live.insert(digest, u64::from(at.extent.stored_bytes)).is_none() {
            open.extend(repository.reader.children(digest, at.kind).unwrap());
        }
    }
    live
}

/// Compares the registry, the indexes and the bytes on the disk with the oracle. Returns the live
/// bytes.
fn agrees(repository: &Repository) -> u64 {
    let live = oracle(repository);
    let total: u64 = live.values().sum();
    let info = repository.registry.info().unwrap();
    assert_eq!((info.live_bytes, info.objects), (total, live.len() as u64));
    let mut indexed = BTreeSet::new();
    for pack in repository.store.list().unwrap() {
        let entries = repository.store.read_index(pack).unwrap();
        let path = repository.layout.root.join("store/packs");
        let name = pack.to_string();
        let bytes = fs::read(path.join(&name[..2]).join(format!("{name}.pack"))).unwrap();
        let mut at = 0;
        for entry in &entries {
            let start = usize::try_from(entry.offset).unwrap();
            assert!(bytes[at..start].iter().all(|b| *b == 0), "dead bytes are left in {name}");
            at = start + entry.stored_bytes as usize;
            assert!(indexed.insert(entry.digest));
        }
        assert!(bytes[at..].iter().all(|b| *b == 0), "dead bytes are left in {name}");
    }
    assert_eq!(indexed, live.into_keys().collect());
    total
}

#[derive(Debug, Clone)]
enum Step {
    /// A put of the next version of an artifact: its file names, with the seeds of their content.
    Put(u8, Vec<(u8, u8)>),
    /// A deletion of the nth version.
    Delete(u8),
    /// An upsert of a part to the artifact's group.
    Upsert(u8, Vec<(u8, u8)>),
    /// A finish of the nth open group.
    Finish(u8),
    /// A discard of the nth open group.
    Discard(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let files = prop::collection::vec((0u8..12, 0u8..10), 0..14);
    let step = prop_oneof![
        3 => (0u8..3, files.clone()).prop_map(|(artifact, files)| Step::Put(artifact, files)),
        2 => any::<u8>().prop_map(Step::Delete),
        3 => (0u8..3, files).prop_map(|(artifact, files)| Step::Upsert(artifact, files)),
        1 => any::<u8>().prop_map(Step::Finish),
        1 => any::<u8>().prop_map(Step::Discard),
    ];
    prop::collection::vec(step, 1..24)
}

/// Returns content by seed: none, small, or several chunks. Seeds of one kind share a beginning.
fn content(seed: u8) -> Vec<u8> {
    match seed {
        0 => Vec::new(),
        1..=5 => noise(seed.into(), 3_000 * usize::from(seed)),
        _ => [noise(100, 700_000), noise(seed.into(), 200_000)].concat(),
    }
}

fn put_files(
    world: &World,
    repository: &Repository,
    artifact: u8,
    files: &[(u8, u8)],
    upsert: Option<Upsert>,
) {
    let source = world.path("source");
    let _ = fs::remove_dir_all(&source);
    fs::create_dir(&source).unwrap();
    for (name, seed) in files {
        let folder = source.join(format!("d{}", name % 3));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name.to_string()), content(*seed)).unwrap();
    }
    let request = PutRequest {
        upsert,
        ..PutRequest::plain(source, format!("p/a{artifact}").parse().unwrap())
    };
    let before = repository.registry.info().unwrap().live_bytes;
    let report = put(repository, &request, Arc::new(Silent)).unwrap();
    let after = repository.registry.info().unwrap().live_bytes;
    assert_eq!(after - before, report.stored_bytes);
}

fn nth_group(repository: &Repository, index: u8) -> Option<GroupInfo> {
    let open = open_groups(&*repository.registry, None).unwrap();
    (!open.is_empty()).then(|| open[usize::from(index) % open.len()].clone())
}

fn apply(world: &World, repository: &Repository, step: &Step) {
    match step {
        Step::Put(artifact, files) => put_files(world, repository, *artifact, files, None),
        Step::Upsert(artifact, files) => {
            let upsert = Upsert { group: "g".parse().unwrap(), overwrite: true };
            put_files(world, repository, *artifact, files, Some(upsert));
        }
        Step::Finish(index) => {
            let Some(info) = nth_group(repository, *index) else { return };
            let version = NewVersion::plain(info.path);
            finish(repository, &FinishRequest { group: info.group, version }).unwrap();
        }
        Step::Discard(index) => {
            let Some(info) = nth_group(repository, *index) else { return };
            let (path, group) = (info.path, info.group);
            let parts = repository.registry.parts(path.clone(), group.clone(), 0, 100).unwrap();
            let roots: Vec<_> = parts.iter().map(|part| part.root).collect();
            let promised = exclusive_bytes(repository, &roots).unwrap();
            let before = agrees(repository);
            let (_, freed) = discard(repository, &path, &group).unwrap();
            assert_eq!((freed, before - agrees(repository)), (promised, freed));
        }
        Step::Delete(index) => {
            let mut versions = Vec::new();
            each_version(&*repository.registry, &mut |version| {
                versions.push(version);
                Ok(())
            })
            .unwrap();
            if versions.is_empty() {
                return;
            }
            let version = &versions[usize::from(*index) % versions.len()];
            let reference: Reference = version.reference();
            let promised = exclusive_bytes(repository, &[version.root]).unwrap();
            let before = agrees(repository);
            let (_, freed) = delete(repository, &reference, true, Reclaim::Now).unwrap();
            assert_eq!((freed, before - agrees(repository)), (promised, freed));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_deletion_frees_what_only_that_version_had_to_the_byte(steps in steps()) {
        let world = World::new();
        let repository = world.open();
        for step in &steps {
            apply(&world, &repository, step);
            agrees(&repository);
        }
        prop_assert_eq!(fsck(&repository, Mode::Check).unwrap().problems, 0);
        let kept = oracle(&repository);
        let rebuilt = fsck(&repository, Mode::Rebuild).unwrap();
        prop_assert_eq!(rebuilt.missing_objects, 0);
        prop_assert_eq!(oracle(&repository), kept);
        agrees(&repository);
        prop_assert_eq!(fsck(&repository, Mode::Check).unwrap().problems, 0);
    }
}
