//! Transactions over a table that others change at every moment.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use artifactfs::error::{Error, Kind};
use artifactfs::registry::engine::optimistic::Optimistic;
use artifactfs::registry::engine::table::Change;
use artifactfs::registry::engine::{Durability, Engine, read, write};

use crate::engines::{MemoryTable, Rows};
use crate::random::Random;

/// Moves an amount between two of the accounts 0 to 7. Their sum is what all transactions may rely
/// on, whatever they see.
fn transfer(rows: &mut Rows, random: &mut Random) {
    let (from, to) = (random.below(8u8), random.below(8u8));
    let amount = |rows: &Rows, key: u8| rows.map.get(&vec![key]).map_or(0, |(value, _)| value[0]);
    if from == to || amount(rows, from) == 0 {
        return;
    }
    let left = amount(rows, from) - 1;
    let mut change =
        Change { puts: vec![(vec![to], vec![amount(rows, to) + 1])], ..Change::default() };
    match left {
        0 => change.deletes.push(vec![from]),
        left => change.puts.push((vec![from], vec![left])),
    }
    assert!(rows.apply(&change));
}

fn bank(seed: u64) -> Optimistic<MemoryTable<impl Fn(&mut Rows) + Send + Sync>> {
    let random = Mutex::new(Random(seed));
    let disturb = move |rows: &mut Rows| {
        let mut random = random.lock().unwrap();
        if random.below(3u8) == 0 {
            transfer(rows, &mut random);
        }
    };
    let engine = Optimistic(MemoryTable { rows: Mutex::default(), disturb });
    let table = &engine.0;
    let puts = (0..8u8).map(|key| (vec![key], vec![5])).collect();
    assert!(table.rows.lock().unwrap().apply(&Change { puts, ..Change::default() }));
    engine
}

#[test]
fn what_a_transaction_decides_is_true_of_one_moment() {
    let (mut moved, mut refused) = (0, 0);
    for seed in 0..2_000u64 {
        let engine = bank(seed);
        let mut random = Random(seed + 1_000_000);
        for _ in 0..3 {
            let (key, step) = (random.below(8u8), random.below(4usize) + 1);
            let done = write(&engine, Durability::Immediate, |t| {
                // Reads all accounts in pages and one by one: the looks fall at different moments.
                let own = t.get(&[key])?.map_or(0, |value| value[0]);
                let (mut sum, mut from, mut rows) = (0u32, vec![0], Vec::new());
                loop {
                    let page = t.scan(&from, &[8], step)?;
                    sum += page.iter().map(|(_, value)| u32::from(value[0])).sum::<u32>();
                    rows.extend(page.iter().map(|(key, _)| key[0]));
                    match page.last() {
                        Some((last, _)) if page.len() == step => from = [&last[..], &[0]].concat(),
                        _ => break,
                    }
                }
                if own == 0 {
                    return Err(Error::new(Kind::Conflict, format!("{sum}")));
                }
                t.put(&[9], &[sum as u8])?;
                t.delete(&[key])?;
                let target = rows.iter().find(|other| **other != key).copied().unwrap_or(key ^ 1);
                let there = t.get(&[target])?.map_or(0, |value| value[0]);
                t.put(&[target], &[there + own])?;
                Ok(sum)
            });
            match done {
                Ok(sum) => {
                    moved += 1;
                    assert_eq!(sum, 40, "seed {seed}");
                }
                Err(e) => {
                    refused += 1;
                    assert_eq!(
                        e.message(),
                        "40",
                        "seed {seed}: the refusal followed from a mixture"
                    );
                }
            }
        }
        let rows = engine.0.rows.lock().unwrap();
        let sum: u32 =
            (0..8u8).filter_map(|key| rows.map.get(&vec![key])).map(|(v, _)| u32::from(v[0])).sum();
        assert_eq!(sum, 40, "seed {seed}");
    }
    assert!(moved > 1_000 && refused > 100, "{moved} moved, {refused} refused");
}

#[test]
fn a_writer_that_is_always_outrun_gets_its_turn() {
    let changes = AtomicU64::new(0);
    let disturb = |rows: &mut Rows| {
        changes.fetch_add(1, Ordering::Relaxed);
        let puts = vec![(b"n".to_vec(), changes.load(Ordering::Relaxed).to_be_bytes().to_vec())];
        assert!(rows.apply(&Change { puts, ..Change::default() }));
    };
    let engine = Optimistic(MemoryTable { rows: Mutex::default(), disturb });
    let runs = AtomicU64::new(0);
    write(&engine, Durability::Immediate, |t| {
        runs.fetch_add(1, Ordering::Relaxed);
        let seen = t.get(b"n")?;
        t.put(b"seen", &seen.unwrap_or_default())
    })
    .unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 4, "three beside the others, one alone");
    let both = read(&engine, |view| Ok((view.get(b"n")?, view.get(b"seen")?))).unwrap();
    assert_eq!(both.0, both.1);
    assert!(engine.is_shared());
}
