//! The golden repositories of `tests/golden`: what earlier binaries wrote, this one reads.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use crate::world::{World, ran};

/// The folder of the archives.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Returns the generations of the archives, of which there is one at least.
fn generations() -> Vec<u32> {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let found: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".tar.zst")?.parse().unwrap())).collect();
    assert!(found.contains(&1), "the first archive is gone: {found:?}");
    found
}

/// Unpacks one folder of an archive as `target`, with holes, attributes and devices.
fn unpack(generation: u32, name: &str, target: &Path) {
    let archive = File::open(folder().join(format!("{generation}.tar.zst"))).unwrap();
    let mut tar = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=user.*", "--strip-components=1", "-x", "-C"])
        .args([target, Path::new(name)])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    zstd::stream::copy_decode(archive, tar.stdin.take().unwrap()).unwrap();
    assert!(tar.wait().unwrap().success(), "{name} of archive {generation} was not unpacked");
}

/// The folder that external files and put indexes name. One test at a time has it, also among
/// several runs of the tests.
struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    fn of(generation: u32) -> Self {
        let path = PathBuf::from(format!("/tmp/artifactfs-golden-{generation}"));
        let lock = File::create(path.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        unpack(generation, "place", &path);
        Self { path, _lock: lock }
    }

    fn file(&self, name: &str) -> String {
        self.path.join(name).into_os_string().into_string().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The server of buckets with which the archive was made: its entity tags are recorded.
struct Bucket(Child);

impl Bucket {
    /// Serves `root`. Returns also the environment in which a command finds the server.
    fn start(root: &Path) -> (Self, Vec<(&'static str, OsString)>) {
        let mut server = Command::new(folder().join("bucket.py"));
        let mut server = server.arg(root).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let environment = vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", port.trim()).into()),
            ("AWS_ACCESS_KEY_ID", "key".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_CONFIG_FILE", "/nonexistent".into()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".into()),
        ];
        (Self(server), environment)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One repository of an archive, unpacked, and what its own release said about it.
struct Golden {
    world: World,
    expected: Value,
    place: Place,
    _bucket: Option<Bucket>,
}

impl Golden {
    /// Unpacks the repository `name` of every archive, one after another.
    fn each(name: &'static str) -> impl Iterator<Item = Self> {
        generations().into_iter().map(move |generation| {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            unpack(generation, name, dir.path());
            let mut world = World { dir, mounts: Vec::new(), env: Vec::new(), url: None };
            let root = world.path("bucket");
            let bucket = root.exists().then(|| Bucket::start(&root)).map(|(bucket, env)| {
                world.env = env;
                bucket
            });
            let text = fs::read(folder().join(format!("{generation}.json"))).unwrap();
            let mut expected: Value = serde_json::from_slice(&text).unwrap();
            let expected = expected[name].take();
            Self { world, expected, place: Place::of(generation), _bucket: bucket }
        })
    }

    /// Runs the commands that the maker ran, and compares what they say.
    fn says_the_same(&self) {
        let commands = self.expected["commands"].as_object().unwrap();
        assert!(commands.len() > 5, "{commands:?}");
        for (command, expected) in commands {
            let args: Vec<_> = ["--json"].into_iter().chain(command.split(' ')).collect();
            let ran = self.world.run(&args);
            let found = serde_json::from_str(&ran.out)
                .unwrap_or_else(|e| panic!("{command}: {e}: {}{}", ran.out, ran.err));
            holds(command, &found, expected);
        }
    }

    /// Mounts, and compares every file of every version. Returns the two mount points.
    fn has_the_same_files(&mut self) -> (PathBuf, PathBuf) {
        let (read, staging) = self.world.mount();
        let versions = self.expected["commands"].as_object().unwrap().keys();
        let versions = versions.filter_map(|command| command.strip_prefix("show "));
        let versions = versions.filter(|name| name.contains(":v"));
        let folders: Vec<_> = versions.map(|version| read.join(version)).collect();
        assert!(!folders.is_empty());
        assert_eq!(sorted(list(&folders)), sorted(lines(&self.expected["files"])));
        (read, staging)
    }

    /// Compares every file of every draft, and of the version that it becomes.
    fn commits_its_drafts(&self, read: &Path, staging: &Path) {
        let drafts = self.expected["drafts"].as_object().unwrap();
        assert!(!drafts.is_empty());
        for (draft, expected) in drafts {
            let expected = lines(expected);
            assert_eq!(list(&[staging.join("lab").join(draft)]), expected);
            let committed = self.world.json(&["commit", &format!("lab/{draft}")]);
            let version = committed["reference"].as_str().unwrap();
            let (_, name) = version.split_once('/').unwrap();
            let found = list(&[read.join(version)]);
            let found: Vec<_> = found.iter().map(|line| line.replacen(name, draft, 1)).collect();
            assert_eq!(found, expected, "{version}");
        }
    }

    fn is_sound(&self) {
        self.world.sound();
        let verified = self.world.run(&["verify"]);
        assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    }

    /// Puts new content, and reads it again.
    fn takes_a_put(&self) {
        fs::write(self.place.path.join("source/new"), "new").unwrap();
        let put = self.world.json(&["put", "-n", "lab/data", &self.place.file("source")]);
        assert_eq!(put["new_version"], true, "{put}");
        self.world.ok(&["get", "lab/data", "--root", "got"]);
        assert_eq!(fs::read(self.world.path("got/new")).unwrap(), b"new");
    }
}

/// Requires that `found` has all that `expected` has. A later release may say more.
fn holds(place: &str, found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (key, value) in expected {
                holds(&format!("{place}: {key}"), found.get(key).unwrap_or(&Value::Null), value);
            }
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                holds(&format!("{place}: {index}"), found, expected);
            }
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn lines(listed: &Value) -> Vec<String> {
    serde_json::from_value(listed.clone()).unwrap()
}

/// Returns a line for every file below folders.
fn list(folders: &[PathBuf]) -> Vec<String> {
    let listed = ran(Command::new(self::folder().join("list.py")).args(folders).output().unwrap());
    assert_eq!(listed.code, 0, "{}", listed.err);
    serde_json::from_str(&listed.out).unwrap()
}

#[test]
fn a_golden_repository_reads_as_when_it_was_made() {
    for mut golden in Golden::each("local") {
        golden.is_sound();
        golden.says_the_same();
        let (read, staging) = golden.has_the_same_files();
        golden.commits_its_drafts(&read, &staging);
        let begun = golden.world.json(&["show", "lab/begun:three"]);
        assert_eq!(
            (&begun["type"], &begun["description"], &begun["metadata"]["begun"]),
            (&"model".into(), &"never committed".into(), &true.into())
        );
        golden.takes_a_put();
        for (name, group) in [("lab/again", "again"), ("lab/parts", "open")] {
            golden.world.ok(&["finish", "-n", name, "--group", group]);
        }
        golden.world.ok(&["gc", "--garbage", "0"]);
        golden.world.umount();
        golden.is_sound();
    }
}

#[test]
fn a_golden_store_and_its_cache_are_read() {
    for mut golden in Golden::each("cloud") {
        golden.is_sound();
        golden.says_the_same();
        assert_eq!(golden.world.run(&["cache", "verify"]).code, 0);
        let (read, staging) = golden.has_the_same_files();
        golden.commits_its_drafts(&read, &staging);
        golden.takes_a_put();
        golden.world.umount();
        // What a put that was killed had stored is freed, and nothing else.
        golden.world.ok(&["gc", "--unfinished", "--garbage", "0"]);
        assert_eq!(golden.world.json(&["fsck"])["unknown_packs"], 0);
        golden.is_sound();
    }
}

#[test]
fn golden_damage_is_known_and_one_put_repairs_it() {
    for golden in Golden::each("damaged") {
        golden.says_the_same();
        assert_eq!(golden.world.run(&["fsck"]).code, 13);
        assert_eq!(golden.world.run(&["verify"]).code, 13);
        golden.world.ok(&["put", "-n", "lab/again", &golden.place.file("external")]);
        golden.is_sound();
    }
}

#[test]
fn an_archive_that_cannot_be_unpacked_fails() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let failed = std::panic::catch_unwind(|| unpack(1, "no such folder", dir.path()));
    assert!(failed.is_err());
}

/// Returns the kinds of keys in the registry of a repository, by their first bytes.
fn spaces(repository: &Path) -> BTreeSet<char> {
    let registry = Database::open(repository.join("registry.redb")).unwrap();
    let table = TableDefinition::<&[u8], &[u8]>::new("registry");
    let rows = registry.begin_read().unwrap().open_table(table).unwrap();
    rows.iter().unwrap().map(|row| char::from(row.unwrap().0.value()[0])).collect()
}

#[test]
fn every_kind_of_record_that_lasts_is_in_an_archive() {
    // The records of a request, a deletion and a rebuild that are under way, and of many pins at
    // once, which are those of few in one key.
    let passing = BTreeSet::from(['A', 'K', 'O', 'U', 'd']);
    let mut found = BTreeSet::new();
    for name in ["local", "cloud", "damaged"] {
        for golden in Golden::each(name) {
            found.extend(spaces(&golden.world.repo()));
        }
    }
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry/keys.rs");
    let drawn = fs::read_to_string(keys).unwrap();
    let drawn = drawn.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(" <"));
    let drawn: BTreeSet<_> = drawn.filter_map(|(space, _)| space.parse::<char>().ok()).collect();
    assert!(drawn.len() > 30, "{drawn:?}");
    assert_eq!(found.union(&passing).copied().collect::<BTreeSet<_>>(), drawn);
}
