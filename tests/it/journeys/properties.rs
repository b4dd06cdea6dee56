//! Time to live, protected aliases and tags.

use std::fs;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artifactfs::content::options::StoreOptions;
use artifactfs::error::Kind;
use artifactfs::model::properties::Ttl;
use artifactfs::model::time::Timestamp;
use artifactfs::model::version::VersionInfo;
use artifactfs::ops::garbage::Reclaim;
use artifactfs::ops::prune::{self, PruneRequest};
use artifactfs::ops::put::{PutRequest, Silent, put};
use artifactfs::ops::repository::{Layout, Repository};
use artifactfs::registry::engine::redb::RedbEngine;

use artifactfs::registry::{AliasChange, ArtifactUpdate, EngineRegistry, Registry, Update};
use serde_json::json;

use crate::world::{Ran, World, ran, until, write};

const DAY: u64 = 24 * 3600 * 1000;
/// The time at which these tests begin.
const START: u64 = 20_000 * DAY;

/// A repository in this process, with a clock that the test sets.
struct Clocked {
    world: World,
    repository: Repository,
    time: Arc<AtomicU64>,
}

impl Clocked {
    fn new() -> Self {
        let world = World::new();
        let time = Arc::new(AtomicU64::new(START));
        let shared = Arc::clone(&time);
        let layout = Layout::new(&world.repo()).unwrap();
        let engine = RedbEngine::open(&layout.registry()).unwrap();
        let clock = Arc::new(move || Timestamp(shared.load(Ordering::SeqCst)));
        let registry = EngineRegistry::open(Box::new(engine), clock).unwrap();
        let repository =
            Repository::new(layout, Arc::new(registry), &StoreOptions::default()).unwrap();
        Self { world, repository, time }
    }

    fn registry(&self) -> &dyn Registry {
        &*self.repository.registry
    }

    fn to_day(&self, day: u64) {
        self.time.store(START + day * DAY, Ordering::SeqCst);
    }

    /// Puts a file with this text as `p/a`. Returns the number of the version that has it.
    fn put(&self, text: &str, ttl: Option<Ttl>) -> u64 {
        let source = self.world.tree("src", &[("a", text.as_bytes())]);
        let mut request = PutRequest::plain(source, "p/a".parse().unwrap());
        request.version.ttl = ttl;
        let report = put(&self.repository, &request, Arc::new(Silent)).unwrap();
        report.committed.unwrap().number.0
    }

    fn version(&self, reference: &str) -> VersionInfo {
        self.registry().lookup(reference.parse().unwrap()).unwrap()
    }

    fn expires_on(&self, reference: &str) -> Option<u64> {
        self.version(reference).expires.map(|at| (at.0 - START) / DAY)
    }

    fn alias(&self, reference: &str, name: &str) {
        let change = AliasChange::Add(vec![name.parse().unwrap()]);
        self.registry().change_aliases(reference.parse().unwrap(), change, false).unwrap();
    }

    fn artifact(&self, update: ArtifactUpdate) {
        self.registry().update_artifact("p/a".parse().unwrap(), update).unwrap();
    }

    fn live(&self, reference: &str, ttl: Ttl) {
        let update = Update { ttl: Some(ttl), ..Update::default() };
        self.registry().update(reference.parse().unwrap(), update).unwrap();
    }

    fn plan(&self, keep_last: usize) -> Vec<VersionInfo> {
        let request = PruneRequest {
            project: "p".parse().unwrap(),
            artifact: None,
            artifact_type: None,
            keep_last,
            before: None,
            expired: true,
        };
        self.registry().time_to_expire(true).unwrap();
        prune::plan(&self.repository, &request).unwrap()
    }

    fn prune(&self, planned: Vec<VersionInfo>) -> Vec<u64> {
        let (gone, _) = prune::prune(&self.repository, planned, true, Reclaim::Now).unwrap();
        gone.iter().map(|version| version.number.0).collect()
    }
}

fn days(count: u64) -> Ttl {
    Ttl::After(count * DAY)
}

fn protect(name: &str) -> ArtifactUpdate {
    ArtifactUpdate { protect: vec![name.parse().unwrap()], ..ArtifactUpdate::default() }
}

#[test]
fn the_time_to_live_of_a_version_or_artifact_is_kept() {
    let world = Clocked::new();
    world.put("0", None);
    world.put("1", Some(days(10)));
    world.to_day(2);
    world.put("2", Some(Ttl::Never));
    world.put("3", None);
    assert_eq!(world.expires_on("p/a:v0"), None);
    let thirty = ArtifactUpdate { ttl_milliseconds: Some(Some(30 * DAY)), ..Default::default() };
    world.artifact(thirty.clone());
    let all = ["p/a:v0", "p/a:v1", "p/a:v2", "p/a:v3"].map(|r| world.expires_on(r));
    assert_eq!(all, [Some(30), Some(10), None, Some(32)]);
    // Nothing expires before its time, not even by a millisecond.
    world.time.store(START + 10 * DAY - 1, Ordering::SeqCst);
    assert!(world.plan(0).is_empty());
    world.to_day(10);
    assert_eq!(world.prune(world.plan(0)), [1]);
    assert_eq!(world.registry().artifact("p/a".parse().unwrap()).unwrap().versions, 3);
    world.live("p/a:v3", days(10));
    world.to_day(31);
    // The newest expires too, with its alias; the one that lives for ever stays.
    assert_eq!(world.version("p/a:latest").number.0, 3);
    assert_eq!(world.plan(1).len(), 1, "unless it is to be kept as one of the last");
    assert_eq!(world.prune(world.plan(0)), [0, 3]);
    let gone = world.registry().lookup("p/a:latest".parse().unwrap()).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    world.live("p/a:v2", Ttl::Inherit);
    assert_eq!(world.expires_on("p/a:v2"), Some(32));
    world.artifact(ArtifactUpdate { ttl_milliseconds: Some(None), ..Default::default() });
    world.to_day(10_000);
    assert!(world.plan(0).is_empty());
}

#[test]
fn changes_between_plan_and_deletion_are_respected() {
    let world = Clocked::new();
    for text in ["0", "1", "2", "3"] {
        world.put(text, Some(days(1)));
    }
    world.to_day(2);
    let planned = world.plan(0);
    assert_eq!(planned.len(), 4);
    world.live("p/a:v0", Ttl::Never);
    world.alias("p/a:v1", "production");
    world.artifact(protect("production"));
    let gone = world.registry().expire("p/a".parse().unwrap(), "v2".parse().unwrap()).unwrap();
    assert_eq!(gone.unwrap().number.0, 2, "another process was faster");
    // A deleted version counts as done, whoever deleted it: a reply may have been lost.
    assert_eq!(world.prune(planned), [2, 3]);
    assert_eq!(world.version("p/a:v0").expires, None);
    assert_eq!(world.version("p/a:production").expires, None);
}

#[test]
fn property_calls_are_idempotent() {
    let world = Clocked::new();
    world.put("0", Some(days(1)));
    let path = || "p/a".parse().unwrap();
    let tag = |text: &str| vec![text.parse().unwrap()];
    let update = ArtifactUpdate {
        ttl_milliseconds: Some(Some(DAY)),
        tag: tag("x"),
        untag: tag("y"),
        protect: vec!["prod".parse().unwrap()],
        unprotect: vec!["old".parse().unwrap()],
        description: Some("said".to_owned()),
    };
    let one = world.registry().update_artifact(path(), update.clone()).unwrap();
    assert_eq!(one, world.registry().update_artifact(path(), update).unwrap());
    assert_eq!(one, world.registry().artifact(path()).unwrap());
    let update = Update { ttl: Some(days(3)), tag: tag("b"), untag: tag("c"), ..Update::default() };
    let reference = || "p/a:v0".parse().unwrap();
    let one = world.registry().update(reference(), update.clone()).unwrap();
    assert_eq!(one, world.registry().update(reference(), update).unwrap());
    assert_eq!((one.ttl, one.tags.len()), (days(3), 1));
    let number = || "v0".parse().unwrap();
    assert!(world.registry().expire(path(), number()).unwrap().is_none());
    world.to_day(3);
    assert!(world.registry().expire(path(), number()).unwrap().is_some());
    let again = world.registry().expire(path(), number()).unwrap_err();
    assert_eq!(again.kind(), Kind::NotFound);
}

#[test]
fn equal_content_is_the_same_version_until_it_expires() {
    let world = Clocked::new();
    assert_eq!(world.put("same", Some(days(5))), 0);
    world.to_day(4);
    assert_eq!(world.put("same", None), 0);
    assert_eq!(world.put("same", Some(days(6))), 0);
    assert_eq!(world.expires_on("p/a:v0"), Some(6));
    // It has expired, though nothing was pruned: what is put now does not go with it.
    world.to_day(6);
    assert_eq!(world.put("same", None), 1);
    assert_eq!(world.expires_on("p/a:v1"), None);
    world.to_day(20);
    // With the time to live that is given now, the older version would have expired.
    assert_eq!(world.put("same", Some(days(7))), 2);
    assert_eq!(world.expires_on("p/a:v2"), Some(27));
    assert_eq!(world.expires_on("p/a:v1"), None, "nothing is said of the older one");
    world.to_day(27);
    world.alias("p/a:v2", "production");
    world.artifact(protect("production"));
    assert_eq!(world.put("same", None), 2, "a protected version does not expire");
}

#[test]
fn pruning_expired_versions_frees_them_and_announces_it() {
    let world = World::new();
    let source = world.tree("src", &[("a", &crate::world::noise(1, 300_000)), ("b", b"kept")]);
    let put = ["put", "-n", "p/a", "-a", "best", "--ttl", "1ms", "--tag", "old"];
    world.ok(&[&put[..], &[source.to_str().unwrap()]].concat());
    fs::remove_file(source.join("a")).unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let plan = || world.json(&["prune", "p", "--expired", "--dry-run"]);
    until("its time is over", || plan()["versions"] == json!(["p/a:v0"]));
    assert!(world.ok(&["ls", "p/a"]).contains("tags old; expired"));
    assert_eq!(world.json(&["prune", "p", "--expired", "-t", "model"])["versions"], json!([]));
    let expected = plan()["freed_bytes"].as_u64().unwrap();
    let before = world.json(&["status"])["store_bytes"].as_u64().unwrap();
    let done = world.json(&["prune", "p/a", "--expired"]);
    assert_eq!((&done["versions"], &done["freed_bytes"]), (&json!(["p/a:v0"]), &json!(expected)));
    let after = world.json(&["status"])["store_bytes"].as_u64().unwrap();
    assert!(expected > 300_000);
    assert_eq!(before - after, expected);
    assert_eq!(world.run(&["show", "p/a:best"]).code, 10);
    assert_eq!(world.json(&["show", "p/a"])["reference"], "p/a:v1");
    world.sound();
}

/// Puts a file with this text as a version of an artifact. Returns its reference.
pub(super) fn put_text(world: &World, artifact: &str, text: &str, more: &[&str]) -> String {
    let source = world.tree("src", &[("a", text.as_bytes())]);
    let put = [&["put", "-n", artifact], more, &[source.to_str().unwrap()]].concat();
    world.json(&put)["reference"].as_str().unwrap().to_owned()
}

pub(super) fn refused(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    for word in words {
        assert!(ran.err.contains(word), "no {word:?} in: {}", ran.err);
    }
}

#[test]
fn no_verb_deletes_what_a_protected_alias_keeps() {
    let world = World::new();
    refused(&world.run(&["alias", "protect", "p/a", "production"]), 10, &["no project p"]);
    put_text(&world, "p/a", "0", &["--ttl", "1ms"]);
    // The alias need not exist yet: it keeps the first version that gets it.
    world.ok(&["alias", "protect", "p/a", "production", "gold"]);
    world.ok(&["alias", "protect", "p/a", "production"]);
    world.ok(&["alias", "add", "p/a:v0", "production"]);
    put_text(&world, "p/a", "1", &[]);
    let shown = world.json(&["show", "p/a:v0"]);
    assert_eq!((&shown["expires"], &shown["ttl"]), (&json!(null), &json!("1ms")));
    assert_eq!(shown["protected"], json!(["production"]));
    assert!(world.ok(&["show", "p/a:v0"]).contains("no end while it is protected"));
    assert!(world.ok(&["ls", "p/a"]).contains("protected by production"));
    let kept = ["kept by its protected alias production", "alias unprotect p/a production"];
    refused(&world.run(&["delete", "p/a:v0", "--delete-aliases"]), 11, &kept);
    refused(&world.run(&["delete", "p/a:v0"]), 11, &kept);
    for prune in [&["prune", "p/a"][..], &["prune", "p", "--expired"]] {
        assert_eq!(world.json(prune)["versions"], json!([]), "{prune:?}");
    }
    let expected = json!([
        { "alias": "gold", "version": null, "protected": true },
        { "alias": "latest", "version": "v1", "protected": false },
        { "alias": "production", "version": "v0", "protected": true },
    ]);
    assert_eq!(world.json(&["alias", "ls", "p/a"]), expected);
    assert!(world.ok(&["alias", "ls", "p/a"]).contains("production  v0  protected"));
    world.ok(&["alias", "unprotect", "p/a", "production"]);
    world.ok(&["alias", "unprotect", "p/a", "production"]);
    assert_eq!(world.json(&["show", "--artifact", "p/a"])["protected"], json!(["gold"]));
    assert_eq!(world.json(&["prune", "p", "--expired"])["versions"], json!(["p/a:v0"]));
    refused(&world.run(&["alias", "protect", "p/a", "latest"]), 2, &["moves with every"]);
    refused(&world.run(&["alias", "protect", "p/a", "v3"]), 3, &["alias"]);
}

#[test]
fn a_protected_alias_leaves_its_version_only_on_request() {
    let mut world = World::new();
    put_text(&world, "p/a", "0", &["-a", "production"]);
    put_text(&world, "p/a", "1", &["-a", "other"]);
    world.ok(&["alias", "protect", "p/a", "production"]);
    let source = world.tree("src", &[("a", b"2")]);
    let source = source.to_str().unwrap();
    let what = "p/a:production is protected and stands for v0";
    let words = [what, "alias add --protected"];
    for moves in [
        &["alias", "set", "p/a:v1", "production"][..],
        &["alias", "add", "p/a:v1", "new", "production"],
        &["put", "-n", "p/a", "-a", "production", source],
    ] {
        refused(&world.run(moves), 11, &words);
    }
    for removes in [
        &["alias", "rm", "p/a:v0", "production"][..],
        &["alias", "set", "p/a:v0", "mine"],
        &["alias", "rm", "-r", "p/a:v0", "production"],
    ] {
        refused(&world.run(removes), 11, &[what, "alias unprotect p/a production"]);
    }
    // The version that has the alias may get it again, with others.
    world.ok(&["alias", "set", "p/a:v0", "production", "mine"]);
    world.ok(&["alias", "add", "p/a:v0", "production"]);
    let (_, staging) = world.mount();
    let draft = staging.join("p/a");
    fs::create_dir(&draft).unwrap();
    write(&draft.join("a"), b"3");
    refused(&world.run(&["commit", "p/a", "-a", "production"]), 11, &words);
    let moved = fs::rename(&draft, staging.join("p/a:production")).unwrap_err();
    assert_eq!(moved.kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(fs::read(draft.join("a")).unwrap(), b"3", "the draft is as it was");
    let aliases = "user.artifact.aliases";
    let root = staging.join("p/a:v1");
    let set = rustix::fs::setxattr(&root, aliases, b"production", rustix::fs::XattrFlags::empty());
    assert_eq!(set.unwrap_err(), rustix::io::Errno::BUSY);
    assert_eq!(world.json(&["show", "p/a:production"])["reference"], "p/a:v0");
    assert_eq!(world.json(&["ls", "p/a"]).as_array().unwrap().len(), 2, "nothing was committed");
    world.ok(&["alias", "add", "--protected", "p/a:v1", "production"]);
    assert_eq!(world.json(&["show", "p/a:production"])["reference"], "p/a:v1");
    refused(&world.run(&["delete", "p/a:v1", "--delete-aliases"]), 11, &["kept by"]);
    world.ok(&["delete", "p/a:v0", "--delete-aliases"]);
    world.ok(&["alias", "rm", "--protected", "p/a:v1", "production"]);
    // The alias is still protected, and free: the next version may take it.
    world.ok(&["commit", "p/a", "-a", "production", "--ttl", "30d", "--tag", "x"]);
    let shown = world.json(&["show", "p/a:production"]);
    assert_eq!((&shown["version"], &shown["ttl"]), (&json!("v2"), &json!("30d")));
    assert_eq!((&shown["expires"], &shown["tags"]), (&json!(null), &json!(["x"])));
    world.umount();
    world.sound();
}

#[test]
fn concurrent_protection_and_deletion_keep_or_delete() {
    let world = World::new();
    for round in 0..8 {
        let artifact = format!("p/a{round}");
        put_text(&world, &artifact, "x", &["-a", "keep"]);
        let start = |args: &[&str]| {
            let mut command = world.command(args);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let reference = format!("{artifact}:v0");
        let delete = ["delete", &reference, "--delete-aliases"];
        let protect = ["alias", "protect", &artifact, "keep"];
        let both = match round % 2 {
            0 => [start(&delete), start(&protect)],
            _ => [start(&protect), start(&delete)],
        };
        let mut both = both.map(|child| ran(child.wait_with_output().unwrap()));
        if round % 2 == 1 {
            both.swap(0, 1);
        }
        let [deleted, protected] = both;
        assert_eq!(protected.code, 0, "{}", protected.err);
        let found = world.run(&["show", &format!("{artifact}:keep")]).code;
        match deleted.code {
            0 => assert_eq!(found, 10),
            11 => assert_eq!(found, 0, "{}", deleted.err),
            code => panic!("{code}: {}", deleted.err),
        }
    }
    world.sound();
}

#[test]
fn tags_are_added_found_and_removed() {
    let mut world = World::new();
    put_text(&world, "p/a", "0", &["--tag", "b", "--tag", "a", "--tag", "b"]);
    put_text(&world, "p/a", "1", &["--tag", "b"]);
    put_text(&world, "p/c", "0", &[]);
    // Equal content makes no new version; the existing one gets the tag.
    assert_eq!(put_text(&world, "p/c", "0", &["--tag", "a", "--ttl", "2h"]), "p/c:v0");
    let tags = |reference: &str| world.json(&["show", reference])["tags"].clone();
    assert_eq!((tags("p/a:v0"), tags("p/c")), (json!(["a", "b"]), json!(["a"])));
    assert_eq!(world.json(&["show", "p/c"])["ttl"], "2h");
    let listed = |args: &[&str]| -> Vec<String> {
        let all = world.json(&[&["ls"], args].concat());
        let key = |one: &serde_json::Value| {
            let key = if one["reference"].is_null() { "artifact" } else { "reference" };
            one[key].as_str().unwrap().to_owned()
        };
        all.as_array().unwrap().iter().map(key).collect()
    };
    assert_eq!(listed(&["p/a", "--tag", "b"]), ["p/a:v0", "p/a:v1"]);
    assert_eq!(listed(&["p/a", "--tag", "b", "--tag", "a"]), ["p/a:v0"]);
    world.ok(&["update", "p/a:v0", "--untag", "b", "--untag", "never", "--tag", "c"]);
    assert_eq!(tags("p/a:v0"), json!(["a", "c"]));
    let said = ["--tag", "vision", "--ttl", "90d", "-d", "digits"];
    world.ok(&[&["update", "--artifact", "p/a"], &said[..]].concat());
    let shown = world.json(&["show", "--artifact", "p/a"]);
    assert_eq!(shown["tags"], json!(["vision"]));
    assert_eq!((&shown["ttl"], &shown["description"]), (&json!("90d"), &json!("digits")));
    assert!(world.ok(&["show", "--artifact", "p/a"]).contains("90d"));
    assert_eq!(listed(&["p"]), ["p/a", "p/c"]);
    assert_eq!(listed(&["p", "--tag", "vision"]), ["p/a"]);
    assert!(world.ok(&["ls", "p"]).contains("tags vision"));
    let (read, _) = world.mount();
    let told = || -> serde_json::Value {
        let text = fs::read(read.join("p/a:v0/.artifact.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_eq!((&told()["tags"], &told()["ttl"]), (&json!(["a", "c"]), &json!("inherit")));
    assert!(told()["expires"].is_string() && told()["protected"] == json!([]));
    // The properties of the artifact show in the mount, as those of the version do.
    world.ok(&["update", "--artifact", "p/a", "--untag", "vision", "--ttl", "never"]);
    until("it has no end", || told()["expires"].is_null());
    world.ok(&["update", "p/a:v0", "--tag", "d"]);
    until("it is tagged", || told()["tags"] == json!(["a", "c", "d"]));
    assert_eq!(world.json(&["show", "--artifact", "p/a"])["tags"], json!([]));
    world.umount();
}
