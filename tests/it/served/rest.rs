//! REST: the documents are those that `openapi.json` describes, and files come in ranges.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::serving::Server;
use crate::world::noise;

/// Makes a request of the admin. Returns the status, the head and the body.
fn get(server: &Server, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    request(server, &server.admin, &format!("GET {path}"), headers, "")
}

/// Makes a request with a key. Returns the status, the head and the body.
fn request(
    server: &Server,
    key: &str,
    line: &str,
    headers: &str,
    body: &str,
) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let (address, length) = (server.address(), body.len());
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Authorization: Bearer {key}\r\n{headers}\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(reply[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), reply[end + 4..].to_vec())
}

fn json(server: &Server, path: &str) -> Value {
    let (status, head, body) = get(server, path, "");
    assert!(status == 200 && head.contains("application/json"), "{path}: {head}");
    serde_json::from_slice(&body).unwrap()
}

/// Requires that a value is as a schema says: no less, and nothing that the schema does not name.
fn is_described(api: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return is_described(api, &api["components"]["schemas"][name], value, place);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|allowed| allowed == kind),
        allowed => allowed == kind,
    };
    assert!(allowed, "{place} is {kind}: {schema}");
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        values.iter().for_each(|value| is_described(api, items, value, place));
    }
    if let (Some(choices), false) = (schema["enum"].as_array(), value.is_null()) {
        assert!(choices.contains(value), "{place}: {value}");
    }
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), value.as_object())
    else {
        return;
    };
    for name in schema["required"].as_array().unwrap() {
        assert!(values.contains_key(name.as_str().unwrap()), "{place} lacks {name}");
    }
    for (name, value) in values {
        let schema = properties.get(name).unwrap_or_else(|| panic!("{place} has {name}"));
        is_described(api, schema, value, &format!("{place}.{name}"));
    }
}

#[test]
fn every_document_is_as_it_is_described() {
    let server = Server::start();
    let host = server.host();
    let source = host.tree("src", &[("a", b"first"), ("d/b", &noise(1, 3_000_000)), ("e", b"")]);
    std::os::unix::fs::symlink("a", source.join("link")).unwrap();
    for _ in 0..3 {
        host.ok(&["put", "-n", "p/data", "-a", "best", source.to_str().unwrap()]);
        std::fs::write(source.join("a"), noise(2, 10 + std::process::id() as usize % 7)).unwrap();
        std::fs::write(source.join(format!("{:?}", std::time::Instant::now())), "x").unwrap();
    }
    host.ok(&["put", "-n", "p/other", source.join("a").to_str().unwrap()]);
    host.ok(&["run", "-p", "p", "--id", "r1", "--", "true"]);
    host.ok(&["run", "-p", "p", "--id", "r2", "--", "true"]);

    let (status, _, body) = get(&server, "/api/v1/openapi.json", "");
    assert_eq!(status, 200);
    let api: Value = serde_json::from_slice(&body).unwrap();
    let fill = |path: &str| {
        path.replace("{team}", "repo")
            .replace("{project}", "p")
            .replace("{artifact}", "data")
            .replace("{version}", "best")
            .replace("{run}", "r1")
            .replace("{path}", "d/b")
    };
    let mut described = 0;
    for (path, item) in api["paths"].as_object().unwrap() {
        let content = &item["get"]["responses"]["200"]["content"];
        let (status, head, body) = get(&server, &fill(path), "");
        assert_eq!(status, 200, "{path}: {head}");
        if let Some(media) = content.get("application/json") {
            let document = serde_json::from_slice(&body).unwrap();
            is_described(&api, &media["schema"], &document, path);
            described += 1;
        }
        // A name that is not there is an error of its own, and a bad one another.
        for (good, bad, wanted) in [("/data", "/gone", 404), ("/p/", "/p%3Ax/", 400)] {
            if path.contains("{artifact}") {
                let (status, _, body) = get(&server, &fill(path).replacen(good, bad, 1), "");
                assert_eq!(status, wanted, "{path} {bad}");
                let error = serde_json::from_slice(&body).unwrap();
                is_described(&api, &api["components"]["schemas"]["Error"], &error, path);
            }
        }
    }
    assert!(described >= 9, "{described}");

    // The documents are those of the command line.
    let version = json(&server, "/api/v1/repo/versions/p/data/best");
    assert_eq!(
        version,
        host.json(&["show", "p/data:best"])
            .as_object()
            .map(|shown| shown.iter().filter(|(key, _)| version.get(key.as_str()).is_some()))
            .map(|shown| shown.map(|(key, value)| (key.clone(), value.clone())).collect::<Value>())
            .unwrap()
    );
    // Pages lead through the whole listing.
    for (path, name) in [
        ("/api/v1/repo/artifacts/p/data/versions", "version"),
        ("/api/v1/repo/projects/p/artifacts", "artifact"),
        ("/api/v1/repo/projects/p/runs", "id"),
        ("/api/v1/repo/versions/p/data/best/tree", "name"),
    ] {
        let all = json(&server, path)["items"].as_array().unwrap().clone();
        let (mut walked, mut after) = (Vec::new(), String::new());
        loop {
            let page = json(&server, &format!("{path}?limit=1{after}"));
            walked.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={}", next.replace('/', "%2F").replace(' ', "%20"));
        }
        let names = |items: &[Value]| -> BTreeSet<String> {
            items.iter().map(|item| item[name].to_string()).collect()
        };
        assert!(all.len() > 1 && walked.len() == all.len(), "{path}");
        assert_eq!(names(&walked), names(&all));
    }
}

#[test]
fn files_come_whole_in_ranges_or_not_at_all() {
    let server = Server::start();
    let host = server.host();
    let bytes = noise(5, 5_000_000);
    let source = host.tree("src", &[("d/big", &bytes), ("page.html", b"<script>")]);
    host.ok(&["put", "-n", "p/data", source.to_str().unwrap()]);
    let path = "/api/v1/repo/versions/p/data/v0/files/d/big";
    let (status, head, body) = get(&server, path, "");
    assert!(status == 200 && body == bytes);
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    for (range, wanted) in [
        ("0-0", &bytes[..1]),
        ("2097151-2097153", &bytes[2_097_151..2_097_154]),
        ("4999999-", &bytes[4_999_999..]),
        ("-10", &bytes[4_999_990..]),
    ] {
        let (status, _, body) = get(&server, path, &format!("Range: bytes={range}\r\n"));
        assert!(status == 206 && body == wanted, "{range}");
    }
    assert_eq!(get(&server, path, "Range: bytes=5000000-\r\n").0, 416);
    assert_eq!(get(&server, path, &format!("If-None-Match: {tag}\r\n")).0, 304);
    // A browser must not show a user's file as a page of the server.
    let (_, head, _) = get(&server, "/api/v1/repo/versions/p/data/v0/files/page.html", "");
    assert!(head.contains("application/octet-stream") && head.contains("nosniff"), "{head}");
    for odd in ["..%2f..%2frepository.json", "d/..", "d", "gone", "d/big/x", "%00"] {
        let (status, _, _) =
            get(&server, &format!("/api/v1/repo/versions/p/data/v0/files/{odd}"), "");
        assert!([400, 404].contains(&status), "{odd}: {status}");
    }
    // A file that is elsewhere is not fetched by the server.
    std::fs::write(host.path("elsewhere"), "secret").unwrap();
    let url = format!("file://{}", host.path("elsewhere").display());
    host.ok(&["put", "-n", "p/refs", "--reference", &format!("x={url}")]);
    let (status, _, body) = get(&server, "/api/v1/repo/versions/p/refs/v0/files/x", "");
    assert_eq!(status, 501, "{}", String::from_utf8_lossy(&body));
}

/// Tries each path of the description with the names of a hidden project, and with those of an absent
/// one.
#[test]
fn no_path_tells_of_what_a_user_may_not_see() {
    let server = Server::start();
    let admin = server.host();
    let source = admin.tree("src", &[("file", b"hidden")]);
    admin.ok(&["project", "set", "secret", "--visibility", "private"]);
    admin.ok(&["run", "-p", "secret", "--id", "secret", "--", "true"]);
    admin.ok(&["put", "-n", "secret/data", "-a", "best", source.to_str().unwrap()]);
    let key = server.user("eve", "writer");
    let api = json(&server, "/api/v1/openapi.json");
    let mut tried = 0;
    for path in api["paths"].as_object().unwrap().keys() {
        let fill = |project: &str| {
            let path = path.replace("{team}", "repo").replace("{project}", project);
            let path = path.replace("{artifact}", "data").replace("{version}", "best");
            path.replace("{run}", project).replace("{path}", "file")
        };
        let get = |project: &str| {
            let (status, _, body) =
                request(&server, &key, &format!("GET {}", fill(project)), "", "");
            (status, String::from_utf8(body).unwrap().replace(project, "NAME"))
        };
        if fill("secret") == fill("nobody") {
            assert!(!get("secret").1.contains("NAME"), "{path}");
            continue;
        }
        tried += 1;
        assert_eq!(get("secret"), get("nobody"), "{path}");
        assert_eq!(self::get(&server, &fill("secret"), "").0, 200, "{path}: an admin sees it");
    }
    assert!(tried >= 8, "{tried}");

    // Bytes, length and index of a pack, and signed URLs, do not distinguish the two either.
    let hidden = only_pack(&server);
    let absent = format!("{}{}", "0".repeat(26), &hidden[26..]);
    let mut unzoned = hidden.clone();
    unzoned.replace_range(26.., "ffffff");
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let reply = |id: &str, end: &str| {
            let line = format!("{method} /api/v1/repo/store/packs/{}/{id}.{end}", &id[..2]);
            let (status, _, body) = request(&server, &key, &line, "", "x");
            (status, String::from_utf8(body).unwrap().replace(id, "ID"))
        };
        for end in ["pack", "idx"] {
            let told = reply(&hidden, end);
            assert_eq!(told.0, 404, "{method} {end}");
            assert_eq!(told, reply(&absent, end), "{method} {end}");
            assert_eq!(told, reply(&unzoned, end), "{method} {end}");
        }
    }
    for write in [true, false] {
        let grant = |id: &str| {
            let keys = format!("packs/{}/{id}.pack", &id[..2]);
            let body = format!("{{\"write\": {write}, \"keys\": [\"{keys}\"]}}");
            request(&server, &key, "POST /api/v1/repo/store/grants", "", &body).0
        };
        assert_eq!((grant(&hidden), grant(&absent), grant(&unzoned)), (404, 404, 404));
    }
    server.sound();
}

/// Returns the id of the only pack in the server's store.
fn only_pack(server: &Server) -> String {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(server.world.repo().join("store/packs")).unwrap() {
        let files = std::fs::read_dir(shard.unwrap().path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        found.extend(names.filter_map(|name| name.strip_suffix(".pack").map(str::to_owned)));
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
