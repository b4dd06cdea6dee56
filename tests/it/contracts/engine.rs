//! The contract of every engine: one suite, run on each. `tests/postgres` runs it on PostgreSQL.

use std::collections::BTreeMap;

use artifactfs::error::{Error, Kind};
use artifactfs::registry::engine::{Durability, Engine, Log, Pair, read, write};
use proptest::prelude::*;

use crate::each_engine;

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

const LOG: Log = Log { counter: b"n", prefix: b"l", kept: 3 };

#[test]
fn a_log_numbers_its_entries_and_keeps_the_newest() {
    each_engine(|engine| {
        let end = || read(engine, |view| view.log_end(&LOG)).unwrap();
        let append = |value: &[u8]| write(engine, Durability::Eventual, |t| t.append(&LOG, value));
        assert_eq!(end(), 0);
        for n in 1..=5u8 {
            append(&[n]).unwrap();
            assert_eq!(end(), u64::from(n));
        }
        let failed = write(engine, Durability::Eventual, |t| {
            t.append(&LOG, b"no")?;
            Err::<(), _>(Error::new(Kind::Conflict, "no"))
        });
        assert!(failed.is_err());
        let entries = read(engine, |view| view.scan(b"l", b"m", 99)).unwrap();
        assert_eq!(entries, (3..=5u8).map(|n| (LOG.entry(n.into()), vec![n])).collect::<Vec<_>>());
        write(engine, Durability::Immediate, |t| {
            t.append(&LOG, b"6")?;
            t.append(&LOG, b"7").map(drop)
        })
        .unwrap();
        assert_eq!(end(), 7);
        let entries = read(engine, |view| view.scan(b"l", b"m", 99)).unwrap();
        assert_eq!(entries.last(), Some(&(LOG.entry(7), b"7".to_vec())));
    });
}

/// Two writers each check that no key of the other is there: only one may succeed, whatever the
/// order.
#[test]
fn a_range_that_was_empty_does_not_fill_unseen() {
    each_engine(|engine| {
        for round in 0..20u8 {
            let claim = |own: u8| {
                write(engine, Durability::Eventual, |t| {
                    let taken = !t.scan(&[round, 0], &[round, 255], 1)?.is_empty();
                    if !taken {
                        t.put(&[round, own], b"")?;
                    }
                    Ok(!taken)
                })
                .unwrap()
            };
            let won = std::thread::scope(|scope| {
                let claims: Vec<_> = (1..5).map(|own| scope.spawn(move || claim(own))).collect();
                claims.into_iter().map(|c| u32::from(c.join().unwrap())).sum::<u32>()
            });
            assert_eq!(won, 1);
            assert_eq!(
                read(engine, |view| view.scan(&[round, 0], &[round, 255], 9)).unwrap().len(),
                1
            );
        }
    });
}

/// Reads see one moment: the sum of two accounts is always the same.
#[test]
fn reads_see_one_moment_while_others_write() {
    each_engine(|engine| {
        let amount = |bytes: Option<Vec<u8>>| bytes.map_or(0, |b| u32::from(b[0]));
        write(engine, Durability::Eventual, |t| t.put(b"a", &[100])).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=100u8 {
                    write(engine, Durability::Eventual, |t| {
                        t.put(b"a", &[100 - n])?;
                        t.put(b"b", &[n])
                    })
                    .unwrap();
                }
            });
            for _ in 0..100 {
                let sum = read(engine, |view| {
                    let first = amount(view.get(b"a")?);
                    Ok(first + amount(view.get(b"b")?))
                });
                assert_eq!(sum.unwrap(), 100);
            }
        });
    });
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
