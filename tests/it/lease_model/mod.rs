//! Random interleavings of writers, deletions and reclaims against a model: begin, adopt, leave,
//! end, release, delete, collect, reclaim and rewrite. Each call may act on an old picture, over an
//! engine in memory and a clock that jumps. A call of several transactions stops before each of
//! them, and goes on later or never.
//!
//! Always: what a version needs is there with its bytes, and so is what a writer relies on whose
//! lease nobody has ended. At the end: exactly what versions need is there, counted exactly,
//! and no byte more.

mod stepped;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artifactfs::error::Result;
use artifactfs::model::digest::Digest;
use artifactfs::model::object::{NewObject, PackId};
use artifactfs::model::object_kind::ObjectKind;
use artifactfs::model::time::Timestamp;
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::prelude::*;
use artifactfs::registry::{Begun, CommitRequest, EngineRegistry, Judged, LeaseId, PackInfo};

use crate::random::Random;

use self::stepped::{Gated, Stepped};

/// The number of interleavings.
const CASES: u64 = 2_000;
/// The number of steps of each.
const STEPS: u64 = 150;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

#[derive(Debug)]
enum Doing {
    Looks,
    Announced(PackId, Vec<Digest>),
    Written(PackId, Vec<Digest>),
    Commits,
    Releases,
}

struct Writer {
    holder: String,
    lease: LeaseId,
    path: &'static str,
    root: Digest,
    /// The objects that are still to be looked for, children first.
    todo: Vec<Digest>,
    /// The objects that it relies on.
    held: Vec<Digest>,
    doing: Doing,
}

enum Purge {
    Looks(PackInfo, u64),
    /// The places that held nothing live when it looked.
    Punches(PackId, Vec<u64>, u64),
    Told(PackId, u64, u64),
    /// The objects that lived, and their places.
    Copied(LeaseId, PackId, Vec<(Digest, u64)>, u64),
    Moved(LeaseId, PackId, u64),
}

struct World {
    registry: Arc<EngineRegistry>,
    clock: Arc<AtomicU64>,
    random: Random,
    remote: bool,
    /// The bytes in the store: pack, offset, object.
    store: BTreeMap<PackId, BTreeMap<u64, Digest>>,
    children: BTreeMap<Digest, (ObjectKind, Vec<Digest>)>,
    roots: Vec<Digest>,
    numbers: u64,
    writers: Vec<Writer>,
    versions: BTreeMap<String, Digest>,
    dead: HashSet<String>,
    /// The leases that somebody was entitled to end.
    ended: HashSet<LeaseId>,
    judged: Vec<(Judged, String)>,
    buries: Vec<Vec<Digest>>,
    purges: Vec<Purge>,
    stepped: Vec<Stepped>,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(AtomicU64::new(DAY));
        let time = Arc::clone(&clock);
        let time = Arc::new(move || Timestamp(time.load(Ordering::SeqCst)));
        let engine = Box::new(Gated(MemoryEngine::default()));
        let registry = Arc::new(EngineRegistry::open(engine, time).unwrap());
        let mut children = BTreeMap::new();
        let chunk = |n: u8| Digest::of(ObjectKind::Chunk, &[n]);
        for n in 0..6 {
            children.insert(chunk(n), (ObjectKind::Chunk, vec![]));
        }
        let mut roots: Vec<Digest> = Vec::new();
        for n in 0..6u8 {
            // Each tree has two chunks, which it shares with its neighbours; every second one has a
            // tree, too.
            let mut below = vec![chunk(n), chunk((n + 1) % 6)];
            below.extend(roots.last().filter(|_| n % 2 == 1));
            let tree = Digest::of(ObjectKind::Tree, &[n]);
            children.insert(tree, (ObjectKind::Tree, below));
            roots.push(tree);
        }
        Self {
            registry,
            clock,
            random: Random(seed),
            remote: seed.is_multiple_of(3),
            store: BTreeMap::new(),
            children,
            roots,
            numbers: 0,
            writers: Vec::new(),
            versions: BTreeMap::new(),
            dead: HashSet::new(),
            ended: HashSet::new(),
            judged: Vec::new(),
            buries: Vec::new(),
            purges: Vec::new(),
            stepped: Vec::new(),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.below(end.max(1))
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn pack_id(&mut self) -> PackId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.number().wrapping_mul(0x9e37_79b9).to_be_bytes());
        PackId(id)
    }

    /// Returns everything below a node, children first, each once.
    fn closure(&self, root: Digest) -> Vec<Digest> {
        let mut all: Vec<Digest> = Vec::new();
        for child in &self.children[&root].1 {
            for digest in self.closure(*child) {
                if !all.contains(&digest) {
                    all.push(digest);
                }
            }
        }
        all.push(root);
        all
    }

    fn object(&self, digest: Digest, offset: u64) -> NewObject {
        let (kind, children) = self.children[&digest].clone();
        NewObject { digest, kind, codec: 0, body_bytes: 1, offset, stored_bytes: 1, children }
    }

    /// Records that a caller with this judgement may end the lease.
    fn entitle(&mut self, judged: &Judged) {
        let leases = self.registry.leases().unwrap();
        let lease = leases.iter().find(|lease| lease.id == judged.lease);
        if lease.is_some_and(|lease| judged.dead || lease.expired || lease.is_left()) {
            self.ended.insert(judged.lease);
        }
    }

    fn begin(&mut self) {
        let which = self.below(self.roots.len());
        let root = self.roots[which];
        let path = ["p/a", "p/b"][self.below(2)];
        let holder = format!("holder {}", self.number());
        let purpose = format!("put {path} {root}");
        let same = self.judged.iter().filter(|(_, of)| *of == purpose);
        let orphans: Vec<_> = same.map(|(judged, _)| judged.clone()).collect();
        for judged in &orphans {
            self.entitle(judged);
        }
        let begin = || self.registry.begin(purpose.clone(), holder.clone(), None).unwrap();
        let there = self.registry.leases().unwrap();
        let Begun { lease, shares_purpose, .. } = begin();
        assert_eq!(shares_purpose, there.iter().any(|other| other.purpose == purpose));
        assert_eq!(begin().lease, lease, "begun twice, it is one lease");
        for orphan in orphans.iter().flat_map(|orphan| [orphan, orphan]) {
            self.registry.adopt(lease, orphan.clone()).unwrap();
        }
        let (todo, held, doing) = (self.closure(root), Vec::new(), Doing::Looks);
        self.writers.push(Writer { holder, lease, path, root, todo, held, doing });
        for orphan in orphans {
            let registry = Arc::clone(&self.registry);
            self.stepped.push(Stepped::new(move || registry.end_lease(orphan, false).map(drop)));
        }
    }

    /// Makes the next call of a writer.
    fn advance(&mut self, which: usize) {
        let mut writer = self.writers.swap_remove(which);
        match self.next_call(&mut writer) {
            Ok(true) => self.writers.push(writer),
            Ok(false) => {}
            Err(e) => {
                assert!(self.ended.contains(&writer.lease), "nobody may have ended it: {e}");
                self.drop_own_pack(&writer);
            }
        }
    }

    /// Removes the pack of a writer whose lease is lost, unless the registry still needs the pack.
    fn drop_own_pack(&mut self, writer: &Writer) {
        if let Doing::Announced(id, _) | Doing::Written(id, _) = writer.doing {
            let pack = self.registry.pack(id).unwrap();
            if pack.is_none_or(|pack| !pack.leased && pack.live_objects == 0) {
                self.store.remove(&id);
            }
        }
    }

    fn next_call(&mut self, writer: &mut Writer) -> Result<bool> {
        let registry = Arc::clone(&self.registry);
        match std::mem::replace(&mut writer.doing, Doing::Looks) {
            Doing::Looks if writer.todo.is_empty() => writer.doing = Doing::Commits,
            Doing::Looks => {
                let most = 1 + self.below(3);
                let some: Vec<_> = writer.todo.drain(..most.min(writer.todo.len())).collect();
                let missing = registry.missing(writer.lease, some.clone())?;
                writer.held.extend(some.iter().filter(|digest| !missing.contains(digest)));
                let missing: Vec<_> = some.into_iter().filter(|d| missing.contains(d)).collect();
                if !missing.is_empty() {
                    let id = self.pack_id();
                    registry.register_pack(writer.lease, id)?;
                    writer.doing = Doing::Announced(id, missing);
                }
            }
            Doing::Announced(id, missing) => {
                let bytes = missing.iter().enumerate().map(|(at, digest)| (at as u64, *digest));
                self.store.insert(id, bytes.collect());
                writer.doing = Doing::Written(id, missing);
            }
            Doing::Written(id, missing) => {
                let objects = missing.iter().enumerate().map(|(at, d)| self.object(*d, at as u64));
                let objects: Vec<_> = objects.collect();
                writer.doing = Doing::Written(id, missing.clone());
                let added =
                    registry.add_objects(writer.lease, id, objects.len() as u64, objects)?;
                assert!(added.missing.is_empty(), "what it relied on went: {added:?}");
                writer.held.extend(missing);
                writer.doing = Doing::Looks;
            }
            Doing::Commits => {
                let request = CommitRequest::plain(writer.path.parse().unwrap(), writer.root);
                let committed = registry.commit(writer.lease, request.clone())?;
                assert_eq!(registry.commit(writer.lease, request)?, committed, "asked twice");
                let name = format!("{}:{}", committed.path, committed.number);
                self.versions.insert(name, writer.root);
                writer.doing = Doing::Releases;
            }
            Doing::Releases => {
                let lease = writer.lease;
                self.stepped.push(Stepped::new(move || registry.release(lease)));
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn kill(&mut self, which: usize) {
        let writer = self.writers.swap_remove(which);
        // A writer that is killed between losing its lease and removing its pack leaves the pack to
        // fsck.
        if self.ended.contains(&writer.lease) {
            self.drop_own_pack(&writer);
        }
        self.dead.insert(writer.holder);
    }

    fn leave(&mut self, which: usize) {
        let writer = self.writers.swap_remove(which);
        self.ended.insert(writer.lease);
        self.dead.insert(writer.holder);
        let (registry, lease) = (Arc::clone(&self.registry), writer.lease);
        self.stepped.push(Stepped::new(move || registry.leave(lease).map(drop)));
    }

    fn judge(&mut self) {
        let leases = self.registry.leases().unwrap();
        if leases.is_empty() {
            return;
        }
        let lease = &leases[self.below(leases.len())];
        let dead = self.dead.contains(&lease.holder);
        if dead || lease.expired || lease.is_left() || lease.is_ending() {
            let judged = Judged { lease: lease.id, holder: lease.holder.clone(), dead };
            self.judged.push((judged, lease.purpose.clone()));
        }
    }

    fn end_judged(&mut self) {
        if self.judged.is_empty() {
            return;
        }
        let which = self.below(self.judged.len());
        let (judged, _) = self.judged.swap_remove(which);
        let wholly = self.below(4) == 0;
        self.entitle(&judged);
        let registry = Arc::clone(&self.registry);
        self.stepped.push(Stepped::new(move || registry.end_lease(judged, wholly).map(drop)));
    }

    fn delete(&mut self) {
        if self.versions.is_empty() {
            return;
        }
        let which = self.below(self.versions.len());
        let name = self.versions.keys().nth(which).unwrap().clone();
        self.registry.delete(name.parse().unwrap(), true).unwrap();
        self.versions.remove(&name);
    }

    fn bury(&mut self) {
        if self.buries.is_empty() || self.below(2) == 0 {
            let most = 1 + self.below(3) as u32;
            let dead = self.registry.unreachable(most).unwrap();
            self.buries.push(dead.into_iter().map(|(digest, _)| digest).collect());
            return;
        }
        let which = self.below(self.buries.len());
        let dead = self.buries.swap_remove(which);
        let with_children =
            dead.into_iter().map(|digest| (digest, self.children[&digest].1.clone()));
        self.registry.collect(with_children.collect()).unwrap();
    }

    fn purge(&mut self) {
        if self.purges.is_empty() || self.below(3) == 0 {
            let packs = self.registry.reclaimable(None, 3, false).unwrap();
            self.purges.extend(packs.into_iter().map(|(pack, mark)| Purge::Looks(pack, mark)));
            return;
        }
        let which = self.below(self.purges.len());
        let purge = self.purges.swap_remove(which);
        let next = self.purge_on(purge);
        self.purges.extend(next);
    }

    fn purge_on(&mut self, purge: Purge) -> Option<Purge> {
        let registry = Arc::clone(&self.registry);
        match purge {
            Purge::Looks(pack, mark) if pack.live_objects == 0 => {
                self.store.remove(&pack.id);
                Some(Purge::Told(pack.id, 0, mark))
            }
            Purge::Looks(pack, mark) => {
                let index: Vec<_> = self.store.get(&pack.id)?.clone().into_iter().collect();
                let digests = index.iter().map(|(_, digest)| *digest).collect();
                let live = registry.live_in(pack.id, digests).unwrap();
                let both = index.into_iter().zip(live);
                if !self.remote {
                    let gone = both.filter(|(_, live)| !live).map(|((at, _), _)| at).collect();
                    return Some(Purge::Punches(pack.id, gone, mark));
                }
                let holder = format!("holder {}", self.number());
                let lease =
                    registry.begin("rewrite".to_owned(), holder.clone(), None).unwrap().lease;
                self.dead.insert(holder);
                let Some(mark) = registry.claim_reclaim(lease, pack.id).unwrap() else {
                    registry.release(lease).unwrap();
                    return None;
                };
                let alive = both.filter(|(_, live)| *live).map(|((at, digest), _)| (digest, at));
                Some(Purge::Copied(lease, pack.id, alive.collect(), mark))
            }
            Purge::Punches(id, gone, mark) => {
                let bytes = self.store.get_mut(&id)?;
                bytes.retain(|at, _| !gone.contains(at));
                let length = 1 + bytes.keys().max().copied().unwrap_or_default();
                Some(Purge::Told(id, length, mark))
            }
            Purge::Told(id, length, mark) => {
                registry.reclaimed(id, length, mark).unwrap();
                None
            }
            Purge::Copied(lease, old, alive, mark) => {
                let new = self.pack_id();
                let places = (0..).zip(alive.iter().map(|(digest, _)| *digest));
                let places: BTreeMap<u64, Digest> = places.collect();
                let moved = places.iter().map(|(at, digest)| (*digest, *at)).collect();
                let length = places.len() as u64;
                if registry.register_pack(lease, new).is_err() {
                    return None;
                }
                self.store.insert(new, places);
                match registry.relocate(lease, old, new, length, moved) {
                    Ok(_) => Some(Purge::Moved(lease, old, mark)),
                    Err(_) => {
                        self.store.remove(&new);
                        None
                    }
                }
            }
            Purge::Moved(lease, old, mark) => {
                assert_eq!(registry.pack(old).unwrap().map_or(0, |pack| pack.live_objects), 0);
                self.store.remove(&old);
                registry.reclaimed(old, 0, mark).unwrap();
                registry.release(lease).unwrap();
                None
            }
        }
    }

    fn step(&mut self) {
        match self.below(20) {
            0 | 1 if self.writers.len() < 4 => self.begin(),
            0..=8 if !self.writers.is_empty() => {
                let which = self.below(self.writers.len());
                self.advance(which);
            }
            9 if !self.writers.is_empty() => {
                let which = self.below(self.writers.len());
                if self.below(2) == 0 { self.kill(which) } else { self.leave(which) }
            }
            10 => {
                let by = [MINUTE, 4 * MINUTE, 11 * MINUTE, 13 * 60 * MINUTE][self.below(4)];
                self.clock.fetch_add(by, Ordering::SeqCst);
            }
            11 => self.judge(),
            12 => self.end_judged(),
            13 => self.delete(),
            14 | 15 => self.bury(),
            16 | 17 => self.purge(),
            _ if !self.stepped.is_empty() => {
                let which = self.below(self.stepped.len());
                // One in thirty is killed at this point.
                if self.below(30) == 0 {
                    self.stepped[which].end();
                }
                if self.stepped[which].step() {
                    self.stepped.swap_remove(which);
                }
            }
            _ => {}
        }
    }

    /// Checks that every needed object is there, with its bytes.
    fn check(&self) {
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        for root in self.versions.values() {
            needed.extend(self.closure(*root));
        }
        for writer in self.writers.iter().filter(|writer| !self.ended.contains(&writer.lease)) {
            for held in &writer.held {
                needed.extend(self.closure(*held));
            }
        }
        let needed: Vec<_> = needed.into_iter().collect();
        for (digest, found) in needed.iter().zip(self.registry.locate(needed.clone()).unwrap()) {
            let extent = found.expect("what is needed is known").extent;
            let bytes = self.store.get(&extent.pack).and_then(|pack| pack.get(&extent.offset));
            assert_eq!(bytes, Some(digest), "the bytes of what is needed are there");
        }
    }

    /// Ends all writers. Then exactly what versions need is left.
    fn finish(mut self) {
        while !self.writers.is_empty() {
            match self.below(5) {
                0 => self.kill(0),
                1 => self.leave(0),
                _ => self.advance(0),
            }
            self.check();
        }
        while let Some(mut stepped) = self.stepped.pop() {
            while !stepped.step() {}
        }
        while let Some(purge) = self.purges.pop() {
            let next = self.purge_on(purge);
            self.purges.extend(next);
        }
        self.check();
        for _ in 0..3 {
            self.clock.fetch_add(2 * DAY, Ordering::SeqCst);
            for lease in self.registry.leases().unwrap() {
                let judged = Judged { lease: lease.id, holder: lease.holder, dead: false };
                self.registry.end_lease(judged, false).unwrap();
            }
        }
        assert!(self.registry.leases().unwrap().is_empty());
        loop {
            let dead = self.registry.unreachable(100).unwrap();
            let packs = self.registry.reclaimable(None, 100, true).unwrap();
            if dead.is_empty() && packs.is_empty() {
                break;
            }
            let dead =
                dead.into_iter().map(|(digest, _)| (digest, self.children[&digest].1.clone()));
            self.registry.collect(dead.collect()).unwrap();
            for (pack, mark) in packs {
                let mut next = Some(Purge::Looks(pack, mark));
                while let Some(purge) = next {
                    next = self.purge_on(purge);
                }
            }
        }
        self.check();
        self.exact();
    }

    fn exact(&self) {
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        let mut refs: BTreeMap<Digest, u64> = BTreeMap::new();
        for root in self.versions.values() {
            needed.extend(self.closure(*root));
            *refs.entry(*root).or_default() += 1;
        }
        for node in &needed {
            self.children[node].1.iter().for_each(|child| *refs.entry(*child).or_default() += 1);
        }
        let known = self.registry.scan_objects(None, 100).unwrap();
        let counted = known.iter().map(|(digest, located)| (*digest, located.refs));
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), refs);
        let bytes: usize = self.store.values().map(BTreeMap::len).sum();
        assert_eq!(bytes, known.len(), "not one byte more: {:?}", self.store);
        let packs = self.registry.scan_packs(None, 1_000).unwrap();
        let packs: BTreeSet<_> = packs.into_iter().map(|pack| pack.id).collect();
        assert_eq!(packs, self.store.keys().copied().collect(), "no pack more or less");
    }
}

#[test]
fn concurrent_writers_and_reclaims_lose_and_leak_nothing() {
    for seed in 1..=CASES {
        let played = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
                world.check();
            }
            world.finish();
        });
        assert!(played.is_ok(), "interleaving {seed}");
    }
}
