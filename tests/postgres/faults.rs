//! The server is killed, and connections are cut, while others write.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use artifactfs::error::Kind;
use artifactfs::registry::engine::optimistic::Optimistic;
use artifactfs::registry::engine::postgres::PostgresTable;
use artifactfs::registry::engine::{Durability, Engine, Log, read, write};

use crate::server::Server;

const LOG: Log = Log { counter: b"n", prefix: b"l", kept: 1_000_000 };
const WRITERS: u8 = 4;

/// Each writer counts up in a row of its own, in a row that all share, and adds to one log.
fn count(engine: &dyn Engine, writer: u8, number: u64) -> artifactfs::error::Result<()> {
    write(engine, Durability::Immediate, |t| {
        for key in [vec![b'w', writer], b"shared".to_vec()] {
            let old = t.get(&key)?.map_or(0, |v| u64::from_be_bytes(v.try_into().unwrap()));
            t.put(&key, &(old + 1).to_be_bytes())?;
        }
        t.append(&LOG, &[&[writer], &number.to_be_bytes()[..]].concat()).map(drop)
    })
}

/// Lets writers count while `disturb` runs, and compares what was acknowledged with what is there.
fn exactly_once(server: &Server, disturb: impl FnOnce()) {
    let address = server.fresh_address();
    drop(PostgresTable::init(&address).unwrap());
    let (done, acknowledged, unknown) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let sure = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (address, done, acknowledged, unknown) =
                    (&address, &done, &acknowledged, &unknown);
                scope.spawn(move || {
                    let engine = Optimistic(PostgresTable::open(address).unwrap());
                    let (mut sure, mut number) = (BTreeSet::new(), 0u64);
                    while !done.load(Ordering::SeqCst) {
                        number += 1;
                        match count(&engine, writer, number) {
                            Ok(()) => {
                                acknowledged.fetch_add(1, Ordering::SeqCst);
                                sure.insert([&[writer], &number.to_be_bytes()[..]].concat());
                            }
                            Err(e) => {
                                assert!(
                                    matches!(e.kind(), Kind::Unavailable | Kind::TimedOut),
                                    "{e}"
                                );
                                unknown.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                    sure
                })
            })
            .collect();
        disturb();
        done.store(true, Ordering::SeqCst);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<BTreeSet<_>>()
    });
    let engine = Optimistic(PostgresTable::open(&address).unwrap());
    let (entries, shared, own, end) = read(&engine, |view| {
        let number = |key: &[u8]| {
            Ok::<_, artifactfs::error::Error>(
                view.get(key)?.map_or(0, |v| u64::from_be_bytes(v.try_into().unwrap())),
            )
        };
        let own = (0..WRITERS).map(|w| number(&[b'w', w])).collect::<Result<Vec<_>, _>>()?;
        Ok((view.scan(b"l", b"m", usize::MAX)?, number(b"shared")?, own, view.log_end(&LOG)?))
    })
    .unwrap();
    let values: Vec<_> = entries.iter().map(|(_, value)| value.clone()).collect();
    let distinct: BTreeSet<_> = values.iter().cloned().collect();
    assert_eq!(values.len(), distinct.len(), "a change was made twice");
    assert!(distinct.is_superset(&sure), "an acknowledged change is lost");
    assert_eq!((shared, own.iter().sum::<u64>(), end), (values.len() as u64, shared, shared));
    assert!(
        shared - sure.len() as u64 <= unknown.load(Ordering::SeqCst),
        "a failed change was made"
    );
    assert!(sure.len() > 100, "only {} changes were made", sure.len());
    eprintln!(
        "{} acknowledged, {} unknown, {shared} made",
        sure.len(),
        unknown.load(Ordering::SeqCst)
    );
}

#[test]
fn a_server_that_is_killed_makes_every_change_once() {
    let server = Server::start("");
    exactly_once(&server, || {
        for round in 0..12u64 {
            std::thread::sleep(Duration::from_millis(150 + (97 * round) % 400));
            server.kill();
            server.await_ready();
        }
        std::thread::sleep(Duration::from_millis(500));
    });
}

#[test]
fn cut_connections_make_every_change_once() {
    let server = Server::start("");
    exactly_once(&server, || {
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(15));
            server.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'artifactfs'");
        }
    });
}

#[test]
fn a_server_that_is_gone_is_told_in_time_and_comes_back() {
    let server = Server::start("");
    let engine = Optimistic(server.fresh_table());
    write(&engine, Durability::Immediate, |t| t.put(b"a", b"1")).unwrap();
    server.kill();
    let start = Instant::now();
    // Processes of the killed server may serve for a moment.
    let failed = loop {
        if let Err(failed) = write(&engine, Durability::Immediate, |t| t.put(b"a", b"2")) {
            break failed;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the server is not gone");
    };
    assert!(matches!(failed.kind(), Kind::Unavailable | Kind::TimedOut), "{failed}");
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    server.await_ready();
    write(&engine, Durability::Immediate, |t| t.put(b"a", b"3")).unwrap();
    assert_eq!(read(&engine, |view| view.get(b"a")).unwrap(), Some(b"3".to_vec()));
}
