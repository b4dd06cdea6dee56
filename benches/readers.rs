//! A reader of files that prints how long it took: `readers files THREADS LIST`,
//! `readers random COUNT FILE`, `readers first FILE`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

fn files(threads: usize, list: &str) -> u64 {
    let text = fs::read_to_string(list).unwrap();
    let paths: Vec<&str> = text.lines().collect();
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
                    bytes.fetch_add(read.len() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    bytes.into_inner()
}

fn random(count: u64, path: &str) -> u64 {
    let file = File::open(path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    let mut state: u64 = 88_172_645_463_325_252;
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.read_exact_at(&mut [0; 4096], state % pages * 4096).unwrap();
    }
    count * 4096
}

fn first(path: &str) -> u64 {
    File::open(path).unwrap().read(&mut [0; 4096]).unwrap() as u64
}

fn whole(path: &str) -> u64 {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return bytes,
            count => bytes += count as u64,
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let bytes = match words[..] {
        ["files", threads, list] => files(threads.parse().unwrap(), list),
        ["random", count, path] => random(count.parse().unwrap(), path),
        ["first", path] => first(path),
        ["whole", path] => whole(path),
        _ => panic!("readers files THREADS LIST | random COUNT FILE | first FILE | whole FILE"),
    };
    println!("{:.3} {bytes}", begun.elapsed().as_secs_f64());
}
