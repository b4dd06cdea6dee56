//! Requests that no client of ours makes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::serving::Server;
use crate::world::noise;

/// Sends bytes and returns all that comes back, until the server closes the connection.
fn exchange(server: &Server, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may reply and close before it has read everything.
    let _ = stream.write_all(request);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

/// Makes a request and returns the reply as text.
pub fn request(server: &Server, line: &str, headers: &str, body: &[u8]) -> String {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        server.address(),
        body.len()
    );
    let reply = exchange(server, &[head.as_bytes(), body].concat());
    String::from_utf8_lossy(&reply).into_owned()
}

fn status(reply: &str) -> u16 {
    reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn no_route_but_health_is_open_without_a_key() {
    let server = Server::start();
    let pack = "/api/v1/repo/store/packs/00/00000000000000000000000000000000.pack";
    for (line, wanted) in [
        ("GET /healthz".to_owned(), 200),
        ("GET /readyz".to_owned(), 200),
        ("GET /".to_owned(), 404),
        ("GET /api/v1/openapi.json".to_owned(), 200),
        ("GET /api/v1/repo/projects".to_owned(), 401),
        ("GET /api/v1/repo/projects/p/artifacts".to_owned(), 401),
        ("GET /api/v1/repo/projects/p/runs".to_owned(), 401),
        ("GET /api/v1/repo/runs/r".to_owned(), 401),
        ("GET /api/v1/repo/artifacts/p/a".to_owned(), 401),
        ("GET /api/v1/repo/artifacts/p/a/versions".to_owned(), 401),
        ("GET /api/v1/repo/versions/p/a/v0".to_owned(), 401),
        ("GET /api/v1/repo/versions/p/a/v0/tree".to_owned(), 401),
        ("GET /api/v1/repo/versions/p/a/v0/files/x".to_owned(), 401),
        ("POST /api/v1/repo/store/grants".to_owned(), 401),
        ("GET /api/v1/whoami".to_owned(), 401),
        ("POST /api/v1/repo/rpc".to_owned(), 401),
        (format!("GET {pack}"), 401),
        (format!("HEAD {pack}"), 401),
        (format!("PUT {pack}"), 401),
        (format!("DELETE {pack}"), 401),
    ] {
        assert_eq!(status(&request(&server, &line, "", b"")), wanted, "{line}");
    }
    // A team that is not there looks like a wrong key.
    let bad = format!("Authorization: Bearer af-{}\r\n", "A".repeat(43));
    let good = format!("Authorization: Bearer {}\r\n", server.admin);
    let without_date = |reply: String| {
        let lines = reply.lines().filter(|line| !line.starts_with("date:"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let replies = [
        request(&server, "POST /api/v1/repo/rpc", &bad, b""),
        request(&server, "POST /api/v1/none/rpc", &bad, b""),
        request(&server, "POST /api/v1/none/rpc", &good, b""),
        request(&server, "POST /api/v1/..%2frepo/rpc", &good, b""),
    ]
    .map(without_date);
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    // Two keys could be read in two ways.
    let both = request(&server, "GET /api/v1/whoami", &format!("{good}{bad}"), b"");
    assert_eq!(status(&both), 400);
}

#[test]
fn paths_and_bodies_that_mean_nothing_change_nothing() {
    let server = Server::start();
    let host = server.host();
    let source = host.tree("src", &[("a", &noise(1, 100_000))]);
    host.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    let key = format!("Authorization: Bearer {}\r\n", server.admin);
    for path in [
        "../../repository.json",
        "%2e%2e/%2e%2e/repository.json",
        "..%2f..%2frepository.json/x",
        "00/..",
        "00/x.pack",
        "00/00000000000000000000000000000000.txt",
        "ff/00000000000000000000000000000000.pack",
    ] {
        let line = format!("GET /api/v1/repo/store/packs/{path}");
        assert_eq!(status(&request(&server, &line, &key, b"")), 404, "{path}");
    }
    // A pack that is there is neither replaced nor removed.
    let store = server.world.repo().join("store/packs");
    let shard = std::fs::read_dir(&store).unwrap().next().unwrap().unwrap().path();
    let mut files = std::fs::read_dir(&shard).unwrap().map(|entry| entry.unwrap().path());
    let pack = files.find(|path| path.extension().is_some_and(|end| end == "pack")).unwrap();
    let name = pack.strip_prefix(&store).unwrap().display().to_string();
    for method in ["PUT", "DELETE"] {
        let line = format!("{method} /api/v1/repo/store/packs/{name}");
        assert_eq!(status(&request(&server, &line, &key, b"evil")), 403, "{method}");
    }
    for body in [&b""[..], b"{}", b"AFSRPC", b"AFSRPC\x0b\x00\xff", &noise(3, 1_000_000)] {
        let reply = request(&server, "POST /api/v1/repo/rpc", &key, body);
        assert!((400..=501).contains(&status(&reply)), "{reply}");
    }
    // Random bytes after a good head: whatever they decode to, the server replies.
    for seed in 0..200u64 {
        let service = (seed % 5) as u8;
        let mut body = [b"AFSRPC\x0b\x00", &[service][..]].concat();
        body.extend(noise(seed, (seed % 60) as usize));
        let reply = request(&server, "POST /api/v1/repo/rpc", &key, &body);
        assert!(status(&reply) >= 200, "{seed}: {reply}");
    }
    server.sound();
    assert_eq!(host.ok(&["ls", "p/data:v0"]).trim(), "a");
}

#[test]
fn another_release_learns_which_side_is_older() {
    let server = Server::start();
    let key = format!("Authorization: Bearer {}\r\n", server.admin);
    let reply = request(&server, "POST /api/v1/repo/rpc", &key, b"AFSRPC\x01\x00\x00");
    // The head of the reply has the server's number, by which the client knows.
    assert!(reply.contains("AFSRPC"), "{reply}");
    assert_eq!(status(&reply), 501);
}

#[test]
fn slow_and_endless_requests_end() {
    let server = Server::start();
    let key = format!("Authorization: Bearer {}\r\n", server.admin);
    let start = Instant::now();
    // Headers that never end.
    let reply = exchange(&server, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    assert!(reply.is_empty() || status(&String::from_utf8_lossy(&reply)) == 408);
    assert!(start.elapsed() < Duration::from_secs(19), "a slow request is ended");
    // Headers without bound.
    let many = "X-Header: 0123456789\r\n".repeat(5_000);
    let reply = request(&server, "GET /healthz", &many, b"");
    assert!([0, 400, 431].contains(&status(&reply)), "{reply}");
    // A body that is announced too long is refused before it is read.
    let pack = "/api/v1/repo/store/packs/00/00000000000000000000000000000000.pack";
    let head = format!(
        "PUT {pack} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n{key}\r\n"
    );
    assert_eq!(status(&String::from_utf8_lossy(&exchange(&server, head.as_bytes()))), 413);
    // The server still serves.
    assert_eq!(status(&request(&server, "GET /readyz", "", b"")), 200);
}

#[test]
fn many_connections_do_not_stop_the_server() {
    const CONNECTIONS: usize = 2_000;
    let server = Server::start();
    let host = server.host();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        match TcpStream::connect(server.address()) {
            Ok(stream) => open.push(stream),
            Err(_) => break,
        }
    }
    assert!(open.len() > 400, "{} connections", open.len());
    host.ok(&["ls"]);
    drop(open);
    host.ok(&["ls"]);
}
