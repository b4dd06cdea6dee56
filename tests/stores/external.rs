//! External files in clouds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use artifactfs::content::options::StoreOptions;
use artifactfs::content::store::Store;
use artifactfs::model::object::PackId;

use crate::world::{World, noise, until};
use crate::{Place, places};

/// Writes an object below `url`, with a key like a pack's. Returns its path there.
fn write(place: &Place, url: &str, number: u8, bytes: &[u8]) -> String {
    let store = Store::open(
        &url.parse().unwrap(),
        &place.options,
        Path::new("/"),
        &StoreOptions::default(),
    );
    let id = PackId([number; 16]);
    let mut writer = store.unwrap().create(id).unwrap();
    writer.append(bytes).unwrap();
    writer.finish().unwrap();
    format!("packs/{number:02x}/{id}.pack")
}

fn remove(place: &Place, url: &str, number: u8) {
    let store = Store::open(
        &url.parse().unwrap(),
        &place.options,
        Path::new("/"),
        &StoreOptions::default(),
    );
    store.unwrap().remove(PackId([number; 16])).unwrap();
}

fn endpoint(place: &Place) -> Option<String> {
    place.options.iter().find(|(key, _)| key == "endpoint").map(|(_, value)| value.clone())
}

/// Makes a repository on the disk; its commands find the cloud by the environment.
fn world(place: &Place) -> World {
    let mut world = World::new();
    if let Some(endpoint) = endpoint(place) {
        world.env.push(("AWS_ENDPOINT_URL_S3", endpoint.into()));
    }
    world
}

fn is_eio(path: &Path) {
    let error = fs::read(path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

#[test]
fn objects_are_recorded_read_once_and_refused_if_changed() {
    for place in places() {
        eprintln!("{}", place.name);
        let mut world = world(&place);
        let url = place.below("external");
        let big = noise(1, 9_000_000);
        let paths: Vec<_> = [(1, &big[..]), (2, b"two"), (3, b"three")]
            .map(|(n, b)| write(&place, &url, n, b))
            .into();
        let put = world.json(&["put", "-n", "p/a", "--reference", &url]);
        assert_eq!((&put["external"], &put["size_bytes"]), (&3.into(), &9_000_008.into()), "{put}");
        assert!(put["stored_bytes"].as_u64().unwrap() < 2_000, "{put}");
        assert_eq!(world.json(&["put", "-n", "p/a", "--reference", &url])["new_version"], false);
        let one = format!("x/one={url}/{}", paths[1]);
        world.ok(&["put", "-n", "p/one", "--reference", &one]);
        let few = world.run(&["put", "-n", "p/b", "--reference", &url, "--max-objects", "2"]);
        assert_eq!(few.code, 2, "{}", few.err);
        let nothing = world.run(&["put", "-n", "p/b", "--reference", &format!("{url}/nothing")]);
        assert_eq!(nothing.code, 10, "{}", nothing.err);
        let listed = world.json(&["ls", &format!("p/a:v0/{}", paths[0])]);
        assert_eq!(listed[0]["external"]["url"], format!("{url}/{}", paths[0]), "{listed}");
        assert!(listed[0]["external"]["etag"].is_string(), "{listed}");
        assert_eq!(world.run(&["verify"]).code, 0);

        let (read, _) = world.mount();
        let root = read.join("p/a:v0");
        assert_eq!(fs::read(root.join(&paths[0])).unwrap(), big);
        assert_eq!(fs::read(read.join("p/one:v0/x/one")).unwrap(), b"two");
        world.ok(&["get", "p/a:v0", "--root", "out"]);
        assert_eq!(fs::read(world.path("out").join(&paths[0])).unwrap(), big);
        // What was read is cached: nothing is fetched.
        remove(&place, &url, 1);
        drop_caches();
        assert_eq!(fs::read(root.join(&paths[0])).unwrap(), big);
        world.umount();
        fs::remove_dir_all(world.path("cache")).unwrap();
        write(&place, &url, 2, b"owt");
        let (read, _) = world.mount();
        let root = read.join("p/a:v0");
        is_eio(&root.join(&paths[0]));
        is_eio(&root.join(&paths[1]));
        assert_eq!(fs::read(root.join(&paths[2])).unwrap(), b"three");
        for path in &paths[..2] {
            let line = format!("{url}/{path} is not what was recorded");
            let log = || fs::read_to_string(world.repo().join("daemon.log")).unwrap_or_default();
            until("it is in the log", || log().contains(&line));
        }
        let found = world.run(&["verify", "p/a:v0"]);
        assert_eq!(found.code, 13, "{}", found.err);
        assert_eq!(found.out.lines().count(), 2, "{}", found.out);
        let write_back = write(&place, &url, 1, &big);
        assert_eq!(write_back, paths[0]);
        world.sound();
    }
}

/// Sends a request without a signature, which this server accepts.
fn ask(endpoint: &str, path: &str, body: &str) {
    let host = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn the_recorded_version_of_an_object_is_read() {
    let place = places().into_iter().find(|place| endpoint(place).is_some()).unwrap();
    let at = endpoint(&place).unwrap();
    ask(&at, "/versioned", "");
    ask(
        &at,
        "/versioned?versioning",
        "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    );
    let place = Place { url: "s3://versioned".to_owned(), ..place };
    let mut world = world(&place);
    let url = place.below("external");
    let path = write(&place, &url, 1, &noise(1, 600_000));
    world.ok(&["put", "-n", "p/a", "--reference", &url]);
    let listed = world.json(&["ls", &format!("p/a:v0/{path}")]);
    assert!(listed[0]["external"]["version"].is_string(), "{listed}");
    write(&place, &url, 1, &noise(2, 700_000));
    assert_eq!(world.json(&["put", "-n", "p/a", "--reference", &url])["new_version"], true);
    let (read, _) = world.mount();
    assert_eq!(fs::read(read.join("p/a:v0").join(&path)).unwrap(), noise(1, 600_000));
    assert_eq!(fs::read(read.join("p/a:v1").join(&path)).unwrap(), noise(2, 700_000));
    assert_eq!(world.run(&["verify"]).code, 0);
}

/// Puts an object with any key to a server that requires no signature.
fn put_raw(server: &str, path: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(server).unwrap();
    let length = body.len();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: {server}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
}

#[test]
fn any_key_may_be_in_a_bucket() {
    for place in places().iter().filter(|place| place.name != "az") {
        eprintln!("{}", place.name);
        let world = world(place);
        let google = || std::env::var("STORAGE_EMULATOR_HOST").unwrap();
        let server = endpoint(place).unwrap_or_else(google);
        let server = server.trim_start_matches("http://");
        let url = place.below("keys");
        let (_, below) = url.split_once("://").unwrap();
        let keys = ["d/", "d/a", "d/sub/", "d/sub/b", "d//c", "d/t%09d", "d/both", "d/both/x"];
        for key in keys {
            let body: &[u8] = if key.ends_with('/') { b"" } else { b"x" };
            put_raw(server, &format!("/{below}/{key}"), body);
        }
        let put = world.json(&["put", "-n", "r/a", "--reference", &format!("{url}/d/")]);
        assert_eq!(put["external"], 3, "a, sub/b, both/x: {put}");
        let warnings = put["warnings"].to_string();
        for key in ["/d//c", "/d/t", "/d/both "] {
            assert!(warnings.contains(key), "{key}: {warnings}");
        }
        world.ok(&["get", "r/a", "--root", "out"]);
        assert_eq!(fs::read(world.path("out/sub/b")).unwrap(), b"x");
    }
}
