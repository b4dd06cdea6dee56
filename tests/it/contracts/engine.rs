//! The contract of every engine: one suite, run on each.

use std::collections::BTreeMap;

use artifactfs::error::{Error, Kind};
use artifactfs::registry::engine::memory::MemoryEngine;
use artifactfs::registry::engine::redb::RedbEngine;
use artifactfs::registry::engine::{Durability, Engine, Pair, read, write};
use proptest::prelude::*;

fn each_engine(check: impl Fn(&dyn Engine)) {
    check(&MemoryEngine::default());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    check(&RedbEngine::open(&dir.path().join("r.redb")).unwrap());
}

fn all(engine: &dyn Engine) -> Vec<Pair> {
    read(engine, |view| view.scan(b"", b"\xff", usize::MAX)).unwrap()
}

#[test]
fn a_transaction_sees_its_own_writes_and_a_failed_one_has_none() {
    each_engine(|engine| {
        write(engine, Durability::Eventual, |t| {
            t.put(b"a", b"1")?;
            t.put(b"b", b"2")?;
            t.delete(b"a")?;
            assert_eq!((t.get(b"a")?, t.get(b"b")?), (None, Some(b"2".to_vec())));
            assert_eq!(t.scan(b"", b"z", 9)?.len(), 1);
            Ok(())
        })
        .unwrap();
        let failed = write(engine, Durability::Immediate, |t| {
            t.put(b"b", b"3")?;
            t.put(b"c", b"4")?;
            Err::<(), _>(Error::new(Kind::Conflict, "no"))
        });
        assert_eq!(failed.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(all(engine), [(b"b".to_vec(), b"2".to_vec())]);
    });
}

#[test]
fn a_range_is_half_open_ordered_and_limited() {
    each_engine(|engine| {
        write(engine, Durability::Eventual, |t| {
            (0..10u8).rev().try_for_each(|n| t.put(&[n], &[n, n]))
        })
        .unwrap();
        let scan = |from: &[u8], to: &[u8], limit| {
            let pairs = read(engine, |view| view.scan(from, to, limit)).unwrap();
            pairs.into_iter().map(|(key, _)| key[0]).collect::<Vec<_>>()
        };
        assert_eq!(scan(&[2], &[5], 99), [2, 3, 4]);
        assert_eq!(scan(&[2], &[9], 2), [2, 3]);
        assert!(scan(&[5], &[5], 9).is_empty() && scan(&[6], &[5], 9).is_empty());
    });
}

#[test]
fn concurrent_writers_lose_no_update() {
    each_engine(|engine| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        write(engine, Durability::Eventual, |t| {
                            let old = t
                                .get(b"n")?
                                .map_or(0, |v| u32::from_le_bytes(v.try_into().unwrap()));
                            t.put(b"n", &(old + 1).to_le_bytes())
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(all(engine)[0].1, 200u32.to_le_bytes());
    });
}

#[test]
fn durable_writes_survive_reopening() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("r.redb");
    let engine = RedbEngine::open(&path).unwrap();
    write(&engine, Durability::Eventual, |t| t.put(b"a", b"1")).unwrap();
    write(&engine, Durability::Immediate, |t| t.put(b"b", b"2")).unwrap();
    assert_eq!(RedbEngine::open(&path).err().unwrap().kind(), Kind::Conflict);
    drop(engine);
    assert_eq!(all(&RedbEngine::open(&path).unwrap()).len(), 2);
}

type Step = (bool, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = prop::collection::vec(0u8..3, 0..4);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..4));
    let change = prop::collection::vec((key, value), 0..6);
    prop::collection::vec((any::<bool>(), change), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn engines_are_ordered_maps(steps in steps()) {
        each_engine(|engine| {
            let mut model = BTreeMap::new();
            for (commits, changes) in &steps {
                let done = write(engine, Durability::Eventual, |t| {
                    for (key, value) in changes {
                        match value {
                            Some(value) => t.put(key, value)?,
                            None => t.delete(key)?,
                        }
                    }
                    if *commits { Ok(()) } else { Err(Error::new(Kind::Conflict, "no")) }
                });
                assert_eq!(done.is_ok(), *commits);
                for (key, value) in changes.iter().filter(|_| *commits) {
                    match value {
                        Some(value) => drop(model.insert(key.clone(), value.clone())),
                        None => drop(model.remove(key)),
                    }
                }
                assert_eq!(all(engine), model.clone().into_iter().collect::<Vec<_>>());
            }
        });
    }
}
