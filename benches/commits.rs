//! Commits per second in a shared registry: `commits ADDRESS WRITERS PROJECTS SECONDS`.
//!
//! Each writer has connections of its own, like a process, and commits two trees in turn to an
//! artifact of its own; the writers are spread over the projects. ADDRESS names a registry that was
//! just made; see benches/README.md.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Barrier;
use std::time::{Duration, Instant};

use artifactfs::model::digest::Digest;
use artifactfs::model::object::{NewObject, PackId};
use artifactfs::model::object_kind::ObjectKind;
use artifactfs::registry::engine::optimistic::Optimistic;
use artifactfs::registry::engine::postgres::{Address, PostgresTable};
use artifactfs::registry::prelude::*;
use artifactfs::registry::{CommitRequest, EngineRegistry, LeaseId};

fn open(address: &Address) -> EngineRegistry {
    let table = PostgresTable::open(address).unwrap();
    let clock = table.clock();
    EngineRegistry::open(Box::new(Optimistic(table)), clock).unwrap()
}

/// Stores two trees that no other writer stores. Returns their digests.
fn roots(registry: &EngineRegistry, lease: LeaseId, writer: u8) -> [Digest; 2] {
    [0, 1].map(|turn| {
        let (pack, kind) = (PackId([2 * writer + turn + 1; 16]), ObjectKind::Tree);
        registry.register_pack(lease, pack).unwrap();
        let digest = Digest::of(kind, &[writer, turn]);
        let (codec, body_bytes, offset, stored_bytes, children) = (0, 1, 0, 1, Vec::new());
        let object = NewObject { digest, kind, codec, body_bytes, offset, stored_bytes, children };
        registry.add_objects(lease, pack, 1, vec![object]).unwrap();
        digest
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, writers, projects, seconds] = &arguments[..] else {
        panic!("commits ADDRESS WRITERS PROJECTS SECONDS");
    };
    let address: Address = address.parse().unwrap();
    let (writers, projects): (u8, u8) = (writers.parse().unwrap(), projects.parse().unwrap());
    let length = Duration::from_secs(seconds.parse().unwrap());
    let ready = Barrier::new(usize::from(writers));
    let waits: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (address, ready) = (&address, &ready);
                scope.spawn(move || {
                    let registry = open(address);
                    let lease =
                        registry.begin("bench".into(), format!("{writer}"), None).unwrap().lease;
                    let roots = roots(&registry, lease, writer);
                    let path = format!("p{}/a{writer}", writer % projects);
                    ready.wait();
                    let (start, mut waits) = (Instant::now(), Vec::new());
                    while start.elapsed() < length {
                        let root = roots[waits.len() % 2];
                        let begun = Instant::now();
                        let request = CommitRequest::plain(path.parse().unwrap(), root);
                        registry.commit(lease, request).unwrap();
                        waits.push(begun.elapsed());
                    }
                    waits
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut waits = waits;
    waits.sort_unstable();
    let per_second = waits.len() as f64 / length.as_secs_f64();
    let (median, last) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    println!(
        "{writers} writers, {projects} projects: {per_second:.0} commits/s, median {:.1} ms, 99 % {:.1} ms",
        median.as_secs_f64() * 1e3,
        last.as_secs_f64() * 1e3
    );
}
