//! Web servers that send something other than what was requested.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::world::{World, noise};

/// The behaviour of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Manner {
    /// No word of a file but its length.
    NoProof,
    /// A tag, and ranges.
    Fine,
    /// The whole file, whatever part is requested.
    Whole,
    /// The beginning of the file, declared as such, whatever part is requested.
    OtherPart,
    /// Fewer bytes than announced.
    Short,
    /// A header that declares the body compressed.
    Compressed,
    /// A redirect to this URL.
    To(String),
}

struct Odd {
    address: SocketAddr,
    state: Arc<Mutex<(Manner, Vec<u8>, bool)>>,
}

impl Odd {
    fn start(body: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new((Manner::Fine, body.to_vec(), false)));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.lock().unwrap().2 {
                    return;
                }
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        Self { address, state }
    }

    fn url(&self) -> String {
        format!("http://{}/f", self.address)
    }

    fn set(&self, manner: Manner) {
        self.state.lock().unwrap().0 = manner;
    }

    fn hold(&self, body: &[u8]) {
        self.state.lock().unwrap().1 = body.to_vec();
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.state.lock().unwrap().2 = true;
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Replies to one request, and ends the connection.
fn serve(state: &Mutex<(Manner, Vec<u8>, bool)>, stream: TcpStream) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|line| {
        let line = line.to_ascii_lowercase();
        let (from, to) = line.strip_prefix("range: bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()? + 1))
    });
    let (manner, body, _) = state.lock().unwrap().clone();
    let (mut head, mut sent) = (String::from("connection: close\r\n"), &body[..]);
    let mut status = "200 OK";
    if manner != Manner::NoProof {
        head += &format!("etag: \"{}\"\r\n", &blake3::hash(&body).to_hex()[..16]);
    }
    let answered = range.filter(|_| ![Manner::NoProof, Manner::Whole].contains(&manner));
    if let Some((from, to)) = answered {
        let length = to.min(body.len()) - from;
        let from = if manner == Manner::OtherPart { 0 } else { from };
        status = "206 Partial Content";
        sent = &body[from..from + length];
        let last = from + length - 1;
        head += &format!("content-range: bytes {from}-{last}/{}\r\n", body.len());
    }
    head += &format!("content-length: {}\r\n", sent.len());
    match &manner {
        Manner::Short => sent = &sent[..sent.len() / 2],
        Manner::Compressed => head += "content-encoding: gzip\r\n",
        Manner::To(place) => {
            status = "302 Found";
            head = format!("connection: close\r\ncontent-length: 0\r\nlocation: {place}\r\n");
            sent = &[];
        }
        _ => {}
    }
    let mut stream = &stream;
    // A client that hung up needs no reply.
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{head}\r\n").as_bytes());
    if !request.starts_with("HEAD") {
        let _ = stream.write_all(sent);
    }
}

fn error_of(path: &Path) -> Option<Errno> {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    fs::read(path).err().and_then(|e| Errno::from_io_error(&e))
}

#[test]
fn a_file_without_proof_is_recorded_only_with_no_checksum() {
    let world = World::new();
    let server = Odd::start(b"AAAA");
    server.set(Manner::NoProof);
    let refused = world.run(&["put", "-n", "p/d", "--reference", &server.url()]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("--no-checksum"), "{}", refused.err);
    world.ok(&["put", "-n", "p/d", "--no-checksum", "--reference", &server.url()]);
    server.hold(b"BBBB");
    assert!(world.ok(&["show", "p/d"]).contains("(1 external, 1 without proof)"));
    assert_eq!(world.json(&["show", "p/d"])["external_unproven"], 1);
    assert!(world.ok(&["ls", "-l", "p/d:v0"]).contains("(no proof)"));
    assert_eq!(world.json(&["ls", "p/d:v0/f"])[0]["external"]["proven"], false);
    assert_eq!(world.json(&["verify"])["external_unproven"], 1);
    let told = world.run(&["verify"]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.err.contains("no proof of 1 external file:"), "{}", told.err);
}

#[test]
fn bytes_outside_the_requested_range_are_not_served() {
    let mut world = World::new();
    let body = noise(1, 2_000_000);
    let server = Odd::start(&body);
    world.ok(&["put", "-n", "p/d", "--reference", &server.url()]);
    let (read, _) = world.mount_with(&["-o", "data_timeout=5"]);
    let file = read.join("p/d:v0/f");
    server.set(Manner::OtherPart);
    // For the first part this reply is right.
    assert!(error_of(&file).is_some(), "another part is not taken for the one that was asked for");
    server.set(Manner::Short);
    assert!(error_of(&file).is_some(), "a part that ends early is no part");
    server.set(Manner::Whole);
    assert_eq!(error_of(&file), None, "a server may send all of it");
    assert_eq!(fs::read(&file).unwrap(), body);
}

#[test]
fn a_file_with_a_compressed_body_is_not_recorded() {
    let world = World::new();
    let server = Odd::start(b"compressed, they say");
    server.set(Manner::Compressed);
    let refused = world.run(&["put", "-n", "p/d", "--reference", &server.url()]);
    assert_eq!(refused.code, 15, "{}", refused.err);
    assert!(refused.err.contains("compressed (gzip)"), "{}", refused.err);
}

#[test]
fn redirects_to_local_files_and_services_are_not_followed() {
    let mut world = World::new();
    let (server, inner) = (Odd::start(b"recorded"), Odd::start(b"internal"));
    world.ok(&["put", "-n", "p/d", "--no-checksum", "--reference", &server.url()]);
    let (read, _) = world.mount_with(&["-o", "data_timeout=5"]);
    for place in ["file:///etc/passwd".to_owned(), inner.url()] {
        server.set(Manner::To(place.clone()));
        let refused = world.run(&["put", "-n", "p/e", "--reference", &server.url()]);
        assert_eq!(refused.code, 2, "{place}: {}", refused.err);
        assert!(refused.err.contains("redirect"), "{}", refused.err);
        assert_eq!(error_of(&read.join("p/d:v0/f")), Some(Errno::IO), "{place}");
    }
}
