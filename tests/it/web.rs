//! A web server on loopback that serves a folder in ranges, and fails on demand.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A way in which the server fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A close of each connection.
    Refuse,
    /// A request that gets no reply.
    Hang,
    /// One byte a second.
    Slow,
    /// Bodies that end after so many bytes.
    Cut(usize),
    /// This status for every request.
    Status(u16),
    /// Another byte in the middle of each body, but only so many times.
    Flip(u64),
    /// Refusal of HEAD, and no heed to conditions.
    Careless,
}

struct State {
    root: PathBuf,
    fault: Mutex<Fault>,
    requests: AtomicU64,
    sent: AtomicU64,
    stopped: AtomicBool,
    log: Mutex<Vec<String>>,
}

pub struct Web {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Web {
    /// Serves the folder `root`.
    pub fn start(root: &Path) -> Self {
        Self::start_with(root, None)
    }

    /// Serves the folder `root` over TLS.
    pub fn start_tls(root: &Path, config: ServerConfig) -> Self {
        Self::start_with(root, Some(Arc::new(config)))
    }

    fn start_with(root: &Path, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            root: root.to_owned(),
            fault: Mutex::new(Fault::None),
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            log: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&shared);
                let tls = tls.clone();
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    match tls {
                        None => serve(&state, stream),
                        Some(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            serve(&state, StreamOwned::new(connection, stream));
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the URL with the host name of the certificate.
    pub fn tls_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// Returns the requests so far, and the bytes of bodies sent.
    pub fn counts(&self) -> (u64, u64) {
        (self.state.requests.load(Ordering::SeqCst), self.state.sent.load(Ordering::SeqCst))
    }

    /// Returns the requests so far, with their ranges.
    pub fn log(&self) -> Vec<String> {
        self.state.log.lock().unwrap().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }
}

struct Asked {
    method: String,
    path: String,
    range: Option<(u64, u64)>,
    if_match: Option<String>,
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut range, mut if_match) = (None, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Some(Asked { method, path, range, if_match });
        }
        if let Some(tag) = header.strip_prefix("if-match: ") {
            if_match = Some(tag.to_owned());
        }
        if let Some(bytes) = header.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-')?;
            range = Some((from.parse().ok()?, to.parse().unwrap_or(u64::MAX - 1) + 1));
        }
    }
}

/// Serves a connection, which ends when `stream` is dropped.
fn serve(state: &State, stream: impl Read + Write) {
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read_request(&mut stream) {
        state.requests.fetch_add(1, Ordering::SeqCst);
        let line = format!("{} {} {:?}", asked.method, asked.path, asked.range);
        state.log.lock().unwrap().push(line);
        if answer(state, stream.get_mut(), &asked).is_none() {
            return;
        }
    }
}

fn head(stream: &mut impl Write, status: &str, headers: &str) -> Option<()> {
    stream.write_all(format!("HTTP/1.1 {status}\r\n{headers}\r\n").as_bytes()).ok()
}

/// Replies to a request. Returns `None` if the connection must end.
fn answer(state: &State, stream: &mut impl Write, asked: &Asked) -> Option<()> {
    match state.fault() {
        Fault::Refuse => return None,
        Fault::Hang => {
            while state.fault() == Fault::Hang && !state.stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return None;
        }
        Fault::Status(code) => {
            return head(stream, &format!("{code} Told So"), "content-length: 0\r\n");
        }
        _ => {}
    }
    let path = state.root.join(asked.path.trim_start_matches('/'));
    let Ok(file) = fs::File::open(&path).and_then(|f| Ok((f.metadata()?, f))) else {
        return head(stream, "404 Not Found", "content-length: 0\r\n");
    };
    let etag = format!("\"{:x}-{:x}\"", file.0.len(), file.0.mtime_nsec());
    if state.fault() == Fault::Careless {
        if asked.method == "HEAD" {
            return head(stream, "405 Method Not Allowed", "content-length: 0\r\n");
        }
    } else if asked.if_match.as_ref().is_some_and(|wanted| *wanted != etag) {
        return head(stream, "412 Precondition Failed", "content-length: 0\r\n");
    }
    let mut file = (file.0.len(), file.1);
    let size = file.0;
    let (from, to) = asked.range.map_or((0, size), |(from, to)| (from, to.min(size)));
    if from >= to && size > 0 {
        return head(stream, "416 Range Not Satisfiable", "content-length: 0\r\n");
    }
    let common =
        format!("content-length: {}\r\naccept-ranges: bytes\r\netag: {etag}\r\n", to - from);
    match asked.range {
        Some(_) => {
            let last = to.saturating_sub(1);
            let range = format!("{common}content-range: bytes {from}-{last}/{size}\r\n");
            head(stream, "206 Partial Content", &range)?;
        }
        None => head(stream, "200 OK", &common)?,
    }
    if asked.method == "HEAD" {
        return Some(());
    }
    let mut body = Vec::new();
    std::io::Seek::seek(&mut file.1, std::io::SeekFrom::Start(from)).ok()?;
    file.1.take(to - from).read_to_end(&mut body).ok()?;
    send(state, stream, body)
}

fn send(state: &State, stream: &mut impl Write, mut body: Vec<u8>) -> Option<()> {
    let fault = state.fault();
    match fault {
        Fault::Cut(after) => body.truncate(after),
        Fault::Flip(left) if left > 0 => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
            *state.fault.lock().unwrap() = Fault::Flip(left - 1);
        }
        Fault::Slow => {
            for byte in &body {
                stream.write_all(&[*byte]).ok()?;
                std::thread::sleep(Duration::from_secs(1));
                if state.fault() != Fault::Slow {
                    return None;
                }
            }
        }
        _ => {}
    }
    for part in body.chunks(64 << 10) {
        // Counted first: a reader that has received everything may look at the count at once.
        state.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
        stream.write_all(part).ok()?;
    }
    stream.flush().ok()?;
    if matches!(fault, Fault::Cut(_)) { None } else { Some(()) }
}
