//! Buckets on loopback that speak the needed subset of S3, keep everything in memory, and refuse
//! requests on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The objects in one page of a listing.
const PAGE: usize = 3;

/// The reply to some requests instead of the usual one.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// A part of "METHOD target", or of the keys of a deletion: the requests that are refused.
    pub of: &'static str,
    /// The number of requests that are refused.
    pub times: u64,
    pub status: u16,
    pub code: &'static str,
    /// The headers, each with its line end.
    pub headers: &'static str,
}

impl Refusal {
    pub fn new(of: &'static str, times: u64, status: u16, code: &'static str) -> Self {
        Self { of, times, status, code, headers: "" }
    }
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// The parts of unfinished uploads, by id.
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    refusals: Vec<Refusal>,
    /// A part of "METHOD target": these requests are read and get no reply.
    hang: Option<&'static str>,
    /// The mode in which objects have no tags.
    untagged: bool,
    log: Vec<String>,
    begun: u64,
    stopped: bool,
}

/// A server of buckets; a key begins with the name of its bucket.
pub struct Bucket {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Bucket {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<Mutex<State>>::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.lock().unwrap().stopped {
                    return;
                }
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        Self { address, state }
    }

    /// Returns the environment in which a command finds the server.
    pub fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address).into()),
            ("AWS_ACCESS_KEY_ID", "key".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_CONFIG_FILE", "/nonexistent".into()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".into()),
        ]
    }

    pub fn put(&self, key: &str, body: &[u8]) {
        self.state.lock().unwrap().objects.insert(key.to_owned(), body.to_vec());
    }

    /// Returns the key of the longest object.
    pub fn longest(&self) -> String {
        let state = self.state.lock().unwrap();
        state.objects.iter().max_by_key(|(_, body)| body.len()).unwrap().0.clone()
    }

    pub fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Returns the number of unfinished uploads.
    pub fn uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    pub fn refuse(&self, refusal: Refusal) {
        self.state.lock().unwrap().refusals.push(refusal);
    }

    pub fn forgive(&self) {
        self.state.lock().unwrap().refusals.clear();
    }

    pub fn hang(&self, of: Option<&'static str>) {
        self.state.lock().unwrap().hang = of;
    }

    /// Returns the bytes of all objects.
    pub fn stored_bytes(&self) -> usize {
        self.state.lock().unwrap().objects.values().map(Vec::len).sum()
    }

    pub fn untag(&self) {
        self.state.lock().unwrap().untagged = true;
    }

    /// Returns "METHOD target" of all requests so far.
    #[allow(dead_code, reason = "only the tests of servers look at single requests")]
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.state.lock().unwrap().log.clone().into_iter()
    }

    /// Returns the number of requests so far whose "METHOD target" contains `what`.
    pub fn count(&self, what: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.log.iter().filter(|line| line.contains(what)).count()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        (state.stopped, state.hang) = (true, None);
        drop(state);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

struct Asked {
    method: String,
    target: String,
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

impl Asked {
    /// Returns the keys to delete, if the request deletes several objects.
    fn deleted(&self) -> Vec<String> {
        if self.method != "POST" || self.parameter("delete").is_none() {
            return Vec::new();
        }
        let text = String::from_utf8(self.body.clone()).unwrap();
        let keys = text.split("<Key>").skip(1).map(|part| part.split("</Key>").next().unwrap());
        keys.map(str::to_owned).collect()
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        (bytes, rest) = match byte {
            b'%' => {
                let hex = std::str::from_utf8(&after[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                (bytes, &after[2..])
            }
            b'+' => ([bytes, vec![b' ']].concat(), after),
            byte => ([bytes, vec![byte]].concat(), after),
        };
    }
    String::from_utf8(bytes).unwrap()
}

fn escaped(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-%=~#".contains(c);
    text.chars()
        .map(|c| if plain(c) { c.to_string() } else { format!("&#{};", c as u32) })
        .collect()
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut range, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(bytes) = header.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-')?;
            range = Some((from.parse().ok()?, to.parse::<usize>().ok()? + 1));
        }
        if let Some(text) = header.strip_prefix("content-length: ") {
            length = text.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, target, range, body })
}

fn serve(state: &Mutex<State>, stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read_request(&mut stream) {
        let mut line = format!("{} {}", asked.method, asked.target);
        for key in asked.deleted() {
            line += &format!(" {key}");
        }
        state.lock().unwrap().log.push(line.clone());
        let hangs = || state.lock().unwrap().hang.is_some_and(|what| line.contains(what));
        if hangs() {
            while hangs() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        let (status, headers, body) = answer(&mut state.lock().unwrap(), &line, &asked);
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Told\r\n{headers}content-length: {length}\r\n\r\n");
        let out = stream.get_mut();
        if out.write_all(head.as_bytes()).is_err() {
            return;
        }
        if asked.method != "HEAD" && out.write_all(&body).is_err() {
            return;
        }
    }
}

type Answer = (u16, String, Vec<u8>);

fn error(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>{code} was told</Message></Error>");
    (status, String::new(), body.into_bytes())
}

fn answer(state: &mut State, line: &str, asked: &Asked) -> Answer {
    let refusal = state
        .refusals
        .iter_mut()
        .find(|r| r.times > 0 && r.of.split_whitespace().all(|word| line.contains(word)));
    if let Some(refusal) = refusal {
        refusal.times -= 1;
        let (status, _, body) = error(refusal.status, refusal.code);
        return (status, refusal.headers.to_owned(), body);
    }
    let path = asked.target.split('?').next().unwrap();
    let key = decoded(path.trim_matches('/'));
    let (upload, number) = (asked.parameter("uploadId"), asked.parameter("partNumber"));
    match (asked.method.as_str(), upload) {
        ("POST", None) if asked.parameter("delete").is_some() => {
            let mut body = String::from("<DeleteResult>");
            for gone in asked.deleted() {
                state.objects.remove(&format!("{key}/{gone}"));
                body += &format!("<Deleted><Key>{gone}</Key></Deleted>");
            }
            (200, String::new(), (body + "</DeleteResult>").into_bytes())
        }
        ("POST", None) => {
            state.begun += 1;
            let id = format!("upload-{}", state.begun);
            state.uploads.insert(id.clone(), BTreeMap::new());
            let body = format!("<R><UploadId>{id}</UploadId></R>");
            (200, String::new(), body.into_bytes())
        }
        ("PUT", Some(id)) => match state.uploads.get_mut(&id) {
            Some(parts) => {
                parts.insert(number.unwrap().parse().unwrap(), asked.body.clone());
                (200, "etag: \"part\"\r\n".to_owned(), Vec::new())
            }
            None => error(404, "NoSuchUpload"),
        },
        ("POST", Some(id)) => match state.uploads.remove(&id) {
            Some(parts) => {
                state.objects.insert(key, parts.into_values().flatten().collect());
                (200, String::new(), b"<R><ETag>\"whole\"</ETag></R>".to_vec())
            }
            None => error(404, "NoSuchUpload"),
        },
        ("DELETE", Some(id)) => match state.uploads.remove(&id) {
            Some(_) => (204, String::new(), Vec::new()),
            None => error(404, "NoSuchUpload"),
        },
        ("PUT", None) => {
            state.objects.insert(key, asked.body.clone());
            (200, "etag: \"object\"\r\n".to_owned(), Vec::new())
        }
        ("DELETE", None) => {
            state.objects.remove(&key);
            (204, String::new(), Vec::new())
        }
        _ if asked.target.contains("list-type=2") => list(state, &key, asked),
        _ => get(state, &key, asked),
    }
}

fn tag(state: &State, body: &[u8]) -> Option<String> {
    (!state.untagged).then(|| format!("\"{}\"", &blake3::hash(body).to_hex()[..16]))
}

fn get(state: &State, key: &str, asked: &Asked) -> Answer {
    let Some(body) = state.objects.get(key) else { return error(404, "NoSuchKey") };
    let etag = tag(state, body).map(|tag| format!("etag: {tag}\r\n")).unwrap_or_default();
    let headers = format!("{etag}last-modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n");
    match asked.range {
        Some((from, _)) if from >= body.len() => error(416, "InvalidRange"),
        Some((from, to)) => {
            let to = to.min(body.len());
            let range = format!("content-range: bytes {from}-{}/{}\r\n", to - 1, body.len());
            (206, headers + &range, body[from..to].to_vec())
        }
        None => (200, headers, body.clone()),
    }
}

fn list(state: &State, bucket: &str, asked: &Asked) -> Answer {
    let bucket = format!("{}/", bucket.trim_end_matches('/'));
    let prefix = bucket.clone() + &asked.parameter("prefix").unwrap_or_default();
    let after = asked.parameter("continuation-token").map(|token| bucket.clone() + &token);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let below = state.objects.range((from, Bound::Unbounded));
    let below: Vec<_> = below.filter(|(key, _)| key.starts_with(&prefix)).take(PAGE + 1).collect();
    let mut body = String::from("<ListBucketResult>");
    for (key, object) in below.iter().take(PAGE) {
        let etag = tag(state, object).map(|tag| format!("<ETag>{}</ETag>", escaped(&tag)));
        body += &format!(
            "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2025-01-01T00:00:00Z</LastModified>\
             {}</Contents>",
            escaped(&key[bucket.len()..]),
            object.len(),
            etag.unwrap_or_default()
        );
    }
    if below.len() > PAGE {
        let token = escaped(&below[PAGE - 1].0[bucket.len()..]);
        body += &format!("<NextContinuationToken>{token}</NextContinuationToken>");
    }
    (200, String::new(), (body + "</ListBucketResult>").into_bytes())
}
