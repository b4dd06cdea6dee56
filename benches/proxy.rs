//! A TCP proxy that adds a round trip: `proxy LISTEN UPSTREAM ROUND_TRIP_MILLISECONDS COUNTS`.
//!
//! Every byte arrives half a round trip later than it was sent, in both directions. Bandwidth and
//! the number of connections are those of the machine. `COUNTS` is a file that holds requests and
//! bytes down so far, written five times a second.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The blocks under way in one direction of one connection, of at most [`BLOCK_BYTES`] each.
const BLOCKS: usize = 256;
const BLOCK_BYTES: usize = 128 << 10;

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    down: AtomicU64,
}

fn read(mut from: TcpStream, to: &SyncSender<(Instant, Vec<u8>)>, seen: impl Fn(&[u8])) {
    let mut block = vec![0; BLOCK_BYTES];
    while let Ok(count) = from.read(&mut block) {
        // A server that waits for acknowledgements (Nagle) must not wait for ours.
        let _ = rustix::net::sockopt::set_tcp_quickack(&from, true);
        seen(&block[..count]);
        if count == 0 || to.send((Instant::now(), block[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn write(from: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream, delay: Duration) {
    for (sent, block) in from {
        std::thread::sleep(delay.saturating_sub(sent.elapsed()));
        if to.write_all(&block).is_err() {
            break;
        }
    }
    // The other side may have closed already.
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn connect(client: TcpStream, upstream: &str, delay: Duration, counts: &Arc<Counts>) {
    let Ok(server) = TcpStream::connect(upstream) else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (up, upward) = sync_channel(BLOCKS);
    let (down, downward) = sync_channel(BLOCKS);
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let counted = Arc::clone(counts);
    // A request begins a block: clients send the next one after the reply.
    let requests = move |block: &[u8]| {
        let begins = [&b"GET "[..], b"PUT ", b"HEAD ", b"POST ", b"DELETE "];
        if begins.iter().any(|verb| block.starts_with(verb)) {
            counted.requests.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::spawn(move || read(from_client, &up, requests));
    std::thread::spawn(move || write(&upward, to_server, delay));
    let counted = Arc::clone(counts);
    let bytes = move |block: &[u8]| {
        counted.down.fetch_add(block.len() as u64, Ordering::Relaxed);
    };
    std::thread::spawn(move || read(server, &down, bytes));
    std::thread::spawn(move || write(&downward, client, delay));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, round_trip, file] = &arguments[..] else {
        panic!("proxy LISTEN UPSTREAM ROUND_TRIP_MILLISECONDS COUNTS");
    };
    let delay = Duration::from_micros(round_trip.parse::<u64>().unwrap() * 500);
    let counts = Arc::new(Counts::default());
    let (told, path) = (Arc::clone(&counts), file.clone());
    std::thread::spawn(move || {
        loop {
            let (requests, down) = (&told.requests, &told.down);
            let part = format!("{path}.part");
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            fs::write(&part, format!("{} {}\n", load(requests), load(down))).unwrap();
            fs::rename(&part, &path).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    for client in TcpListener::bind(listen).unwrap().incoming().flatten() {
        connect(client, upstream, delay, &counts);
    }
}
