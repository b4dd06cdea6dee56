//! Dead bytes are freed, also beside other processes that free them, and also if some are damaged
//! or lost.

use std::fs;
use std::path::Path;

use artifactfs::model::object::PackId;
use artifactfs::model::object_kind::ObjectKind;
use artifactfs::ops::delete;
use artifactfs::ops::garbage::{self, Reclaim};
use artifactfs::ops::repository::Repository;
use artifactfs::registry::prelude::*;

use super::{object, open, put_tree, reap, registry, request, temporary};
use crate::world::{World, noise, write};

/// Returns the bytes that packs take on the disk.
fn used(repository: &Repository, root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let path = |id: PackId| root.join(format!("store/packs/{}/{id}.pack", &id.to_string()[..2]));
    let packs = repository.store.list().unwrap().into_iter();
    packs.map(|id| fs::metadata(path(id)).unwrap().blocks() * 512).sum()
}

#[test]
fn objects_that_die_during_a_reclaim_are_reclaimed_too() {
    let dir = temporary();
    let root = dir.path().join("repo");
    let (repository, _) = open(&root);
    let all = dir.path().join("all");
    fs::create_dir_all(&all).unwrap();
    let mut sources = vec![(all.clone(), "p/all")];
    for (seed, name) in ["p/a", "p/b", "p/c"].into_iter().enumerate() {
        let own = dir.path().join(format!("own{seed}"));
        fs::create_dir_all(&own).unwrap();
        for folder in [&all, &own] {
            write(&folder.join(seed.to_string()), &noise(seed as u64 + 1, 1_000_000));
        }
        sources.push((own, name));
    }
    for (source, path) in &sources {
        put_tree(&repository, source, path).unwrap();
    }
    delete::delete(&repository, &"p/all:v0".parse().unwrap(), true, Reclaim::Now).unwrap();
    let registry = &*repository.registry;
    let bury = |reference: &str| {
        registry.delete(reference.parse().unwrap(), true).unwrap();
        loop {
            let dead = registry.unreachable(100).unwrap();
            if dead.is_empty() {
                break;
            }
            let below = |digest, kind| repository.reader.children(digest, kind).unwrap();
            let dead = dead.into_iter().map(|(digest, at)| (digest, below(digest, at.kind)));
            registry.collect(dead.collect()).unwrap();
        }
    };
    // One process deletes, and reads which packs are to be reclaimed and what lives there ...
    bury("p/a:v0");
    let packs = registry.reclaimable(None, 100, false).unwrap();
    let (pack, mark) = packs.iter().find(|(pack, _)| pack.live_objects > 0).unwrap().clone();
    let length = repository.store.pack_length(pack.id).unwrap();
    // ... another deletes what lived then ...
    bury("p/b:v0");
    // ... and the first reports that it is done.
    registry.reclaimed(pack.id, length, mark).unwrap();
    garbage::collect_garbage(&repository).unwrap();
    let left = used(&repository, &root);
    assert!((1_000_000..1_200_000).contains(&left), "{left}");
}

#[test]
fn a_damaged_or_lost_index_does_not_stop_reclaiming() {
    let world = World::new();
    let sources: Vec<_> = (0..6u64)
        .map(|seed| {
            let files: Vec<_> = (0..4).map(|n| noise(seed * 10 + n, 300_000)).collect();
            let names = ["a", "b", "c", "shared"];
            let files: Vec<_> = names.into_iter().zip(files.iter().map(Vec::as_slice)).collect();
            let source = world.tree(&format!("s{seed}"), &files);
            world.ok(&["put", "-n", &format!("p/m{seed}"), source.to_str().unwrap()]);
            source
        })
        .collect();
    // Files that each version shares with another keep part of its pack alive.
    for (seed, source) in sources.iter().enumerate() {
        let file = source.join("shared");
        world.ok(&["put", "-n", &format!("p/kept{seed}"), file.to_str().unwrap()]);
    }
    let mut damaged = 0;
    let (repository, _) = open(&world.repo());
    for id in repository.store.list().unwrap() {
        let path = world.repo().join(format!("store/packs/{}/{id}.idx", &id.to_string()[..2]));
        if repository.store.pack_length(id).unwrap() > 1_000_000 {
            damaged += 1;
            match damaged {
                1 | 2 => write(&path, b"no index"),
                3 => fs::remove_file(&path).unwrap(),
                _ => {}
            }
        }
    }
    drop(repository);
    assert_eq!(damaged, 6);
    for seed in 0..6 {
        world.ok(&["delete", &format!("p/m{seed}:v0"), "--delete-aliases"]);
    }
    let (repository, _) = open(&world.repo());
    let left = used(&repository, &world.repo());
    assert!(left < 6 * 300_000 + 200_000, "{left}");
    for id in repository.store.list().unwrap() {
        assert!(!repository.store.read_index(id).unwrap().is_empty());
    }
    drop(repository);
    assert_eq!(world.run(&["verify"]).code, 0);
    world.sound();
}

#[test]
fn a_lost_pack_does_not_stop_reclaiming_others() {
    let world = World::new();
    let root = world.path("repo");
    for (name, seed) in [("lost", 1), ("fine", 2)] {
        let files = [("a", noise(seed, 400_000)), ("b", noise(seed + 10, 400_000))];
        let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        let source = world.tree(name, &files);
        world.ok(&["put", "-n", &format!("p/{name}"), source.to_str().unwrap()]);
        world.ok(&["put", "-n", &format!("p/{name}-a"), source.join("a").to_str().unwrap()]);
        if name == "lost" {
            let (repository, _) = open(&root);
            for id in repository.store.list().unwrap() {
                if repository.store.pack_length(id).unwrap() > 700_000 {
                    repository.store.remove(id).unwrap();
                }
            }
        }
    }
    world.ok(&["delete", "p/lost:v0", "--delete-aliases"]);
    world.ok(&["delete", "p/fine:v0", "--delete-aliases"]);
    let (repository, _) = open(&root);
    assert!(used(&repository, &root) < 500_000);
    let packs = repository.registry.scan_packs(None, 100).unwrap();
    assert!(packs.iter().all(|pack| pack.length_bytes > 0), "{packs:?}");
}

#[test]
fn deferred_dead_bytes_are_not_examined_by_every_put() {
    let (registry, _) = registry();
    let lease = registry.begin("put".into(), "one".into(), None).unwrap().lease;
    let pack = PackId([1; 16]);
    registry.register_pack(lease, pack).unwrap();
    let trees = [object(1, ObjectKind::Tree, 0, vec![]), object(2, ObjectKind::Tree, 1, vec![])];
    let roots = trees.clone().map(|tree| tree.digest);
    registry.add_objects(lease, pack, 2, trees.to_vec()).unwrap();
    registry.commit(lease, request("p/a", roots[0])).unwrap();
    registry.commit(lease, request("p/b", roots[1])).unwrap();
    registry.release(lease).unwrap();
    registry.delete("p/a:v0".parse().unwrap(), true).unwrap();
    reap(&registry);
    let listed = |deferred| registry.reclaimable(None, 9, deferred).unwrap();
    let old = listed(false)[0].1;
    registry.defer_reclaim(pack, old).unwrap();
    assert_eq!((listed(false).len(), listed(true).len()), (0, 1));
    // More of the pack dies: it is listed again, and a deferral of the older mark does not defer
    // this.
    registry.delete("p/b:v0".parse().unwrap(), true).unwrap();
    reap(&registry);
    registry.defer_reclaim(pack, old).unwrap();
    assert_eq!(listed(false).len(), 1);
    // A claim keeps other processes away while its lease lives.
    let begin =
        |holder: &str| registry.begin("rewrite".into(), holder.to_owned(), None).unwrap().lease;
    let (one, two) = (begin("one"), begin("two"));
    let mark = registry.claim_reclaim(one, pack).unwrap();
    assert_eq!(registry.claim_reclaim(two, pack).unwrap(), None);
    assert_eq!(listed(true).len(), 0);
    registry.release(one).unwrap();
    assert_eq!(registry.claim_reclaim(two, pack).unwrap(), mark);
    registry.reclaimed(pack, 0, mark.unwrap()).unwrap();
    assert!(registry.pack(pack).unwrap().is_none());
    assert_eq!(listed(true).len(), 0);
}
