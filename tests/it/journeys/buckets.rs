//! Repositories in buckets, and external files in buckets: whatever the store replies is final.

use std::fs;
use std::process::{Command, Stdio};

use crate::bucket::{Bucket, Refusal};
use crate::world::{World, noise, ran, until};

/// More bytes than one part of an upload has.
const BIG: usize = 70_000_000;

fn world(bucket: &Bucket, store: &str) -> World {
    World::with_store(bucket.environment(), store)
}

fn in_repository(world: &World, repository: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_artifactfs"));
    command.arg("--repo").arg(repository).args(args).current_dir(world.dir.path());
    command.envs(world.env.iter().cloned());
    command
}

fn ok_in(world: &World, repository: &str, args: &[&str]) {
    let ran = ran(in_repository(world, repository, args).output().unwrap());
    assert_eq!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.err);
}

#[test]
fn refused_parts_of_an_upload_and_its_end_are_sent_again() {
    let bucket = Bucket::start();
    let world = world(&bucket, "s3://b/x");
    let big = noise(1, BIG);
    let source = world.tree("src", &[("model", &big)]);
    for of in ["POST uploads", "partNumber=2", "partNumber=4", "POST uploadId", ".upload"] {
        bucket.refuse(Refusal::new(of, 1, 503, "SlowDown"));
    }
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    assert!(bucket.count("partNumber=2") >= 2, "the part came again");
    assert_eq!(bucket.uploads(), 0);
    assert!(bucket.keys().iter().all(|key| !key.ends_with(".upload")), "{:?}", bucket.keys());
    world.ok(&["get", "p/a", "--root", "out"]);
    assert_eq!(fs::read(world.path("out/model")).unwrap(), big);
    world.sound();
}

#[test]
fn uploaded_parts_of_a_killed_put_go_with_its_lease() {
    let bucket = Bucket::start();
    let world = world(&bucket, "s3://b/x");
    let source = world.tree("src", &[("model", &noise(1, BIG))]);
    bucket.hang(Some("partNumber=3"));
    let mut command = world.command(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a part is under way", || bucket.count("partNumber=3") > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    bucket.hang(None);
    assert_eq!(bucket.uploads(), 1, "nobody has given it up yet");
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    world.ok(&["gc", "--garbage", "0"]);
    assert_eq!(bucket.uploads(), 0);
    assert!(bucket.keys().iter().all(|key| !key.ends_with(".upload")), "{:?}", bucket.keys());
    world.sound();
}

#[test]
fn objects_that_die_while_their_pack_is_rewritten_are_freed() {
    let bucket = Bucket::start();
    let world = world(&bucket, "s3://b/x");
    // One file, so that its chunks are in one pack.
    let bytes = noise(1, 30_000_000);
    for (version, length) in [30_000_000, 20_000_000, 10_000_000].into_iter().enumerate() {
        let source = world.tree("src", &[("f", &bytes[..length])]);
        let put = world.json(&["put", "-n", "p/a", source.to_str().unwrap()]);
        assert_eq!(put["reference"], format!("p/a:v{version}"), "{put}");
    }
    let longest = bucket.longest();
    let removal: &str = format!("?delete {}", longest.strip_prefix("b/").unwrap()).leak();
    bucket.hang(Some(removal));
    let mut first = world.start(&["delete", "p/a:v0"]);
    until("what lives was moved", || bucket.count(removal) > 0);
    world.ok(&["delete", "p/a:v1"]);
    bucket.hang(None);
    assert!(first.wait().unwrap().success());
    // Read before another command could free it.
    let stored = bucket.stored_bytes();
    assert!((10_000_000..10_100_000).contains(&stored), "{stored} bytes are left for 10,000,000");
    world.sound();
}

#[test]
fn a_final_reply_is_reported_first_in_the_stores_own_words() {
    let bucket = Bucket::start();
    let mut world = World::new();
    world.env = bucket.environment();
    let wrong_region = Refusal {
        headers: "x-amz-bucket-region: eu-west-1\r\n",
        ..Refusal::new(" /b", u64::MAX, 301, "PermanentRedirect")
    };
    bucket.refuse(wrong_region.clone());
    let refused = world.run(&["init", "other", "--store", "s3://b/x"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("PermanentRedirect was told"), "{}", refused.err);
    assert!(refused.err.contains("AWS_REGION=eu-west-1"), "{}", refused.err);
    assert_eq!(bucket.count(" /b"), 1, "there was one request");
    assert!(!world.path("other/repository.json").exists(), "nothing was made");
    for (status, code, exit, hint) in [
        (403, "RequestTimeTooSkewed", 12, "clock"),
        (404, "NoSuchBucket", 2, "bucket"),
        (400, "AuthorizationHeaderMalformed", 2, "--store-option"),
        (501, "NotImplemented", 15, ""),
    ] {
        bucket.forgive();
        bucket.refuse(Refusal::new(" /b", u64::MAX, status, code));
        let refused = world.run(&["init", "other", "--store", "s3://b/x"]);
        assert_eq!(refused.code, exit, "{code}: {}", refused.err);
        assert!(refused.err.contains(code) && refused.err.contains(hint), "{}", refused.err);
    }
    // Uploads behave the same.
    bucket.forgive();
    world.ok(&["init", "other", "--store", "s3://b/x"]);
    let source = world.tree("src", &[("f", b"1")]);
    bucket.refuse(wrong_region);
    let before = bucket.count("PUT");
    let args = ["put", "-n", "p/a", source.to_str().unwrap()];
    let refused = ran(in_repository(&world, "other", &args).output().unwrap());
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("PermanentRedirect was told"), "{}", refused.err);
    assert!(!refused.err.contains("no response"), "{}", refused.err);
    assert!(bucket.count("PUT") - before <= 3, "each pack was sent once");
}

#[test]
fn a_listing_that_is_refused_midway_goes_on() {
    let bucket = Bucket::start();
    let world = world(&bucket, "s3://b/x");
    for n in 0..5u64 {
        let source = world.tree("src", &[("f", &noise(n, 1_000))]);
        world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    }
    bucket.refuse(Refusal::new("list-type=2", 1, 503, "SlowDown"));
    bucket.refuse(Refusal::new("continuation-token", 2, 500, "InternalError"));
    world.ok(&["fsck"]);
    assert!(bucket.count("continuation-token") > 3, "there were several pages");
    assert!(bucket.count("list-type=2") > bucket.count("continuation-token"));
}

#[test]
fn any_key_may_be_in_a_bucket() {
    let bucket = Bucket::start();
    let mut world = World::new();
    world.env = bucket.environment();
    for (key, body) in [
        ("data/", ""),
        ("data/a.txt", "x"),
        ("data/sub/", ""),
        ("data/sub/b.txt", "x"),
        ("slash/a", "x"),
        ("slash//b", "x"),
        ("dots/a", "x"),
        ("dots/../b", "x"),
        ("tab/a", "x"),
        ("tab/b\tc", "x"),
        ("both/a", "x"),
        ("both/a-b", "x"),
        ("both/a/b", "x"),
        ("odd/ü %20~#", "x"),
        ("odd/=61", "x"),
    ] {
        bucket.put(&format!("b/{key}"), body.as_bytes());
    }
    let refer = |prefix: &str, more: &[&str]| {
        let (name, url) = (format!("r/{prefix}"), format!("s3://b/{prefix}/"));
        world.json(&[&["put", "-n", &name, "--reference", &url], more].concat())
    };
    for (prefix, files, left_out) in [
        ("data", 2, None),
        ("slash", 1, Some("s3://b/slash//b")),
        ("dots", 1, Some("s3://b/dots/../b")),
        ("tab", 1, Some("s3://b/tab/b\\tc")),
        ("both", 2, Some("s3://b/both/a ")),
        ("odd", 2, None),
    ] {
        let put = refer(prefix, &[]);
        assert_eq!(put["external"], files, "{prefix}: {put}");
        let warnings = put["warnings"].to_string().replace("\\\\", "\\");
        match left_out {
            Some(key) => assert!(warnings.contains(key), "{prefix}: {warnings}"),
            None => assert_eq!(put["warnings"].as_array().unwrap().len(), 0, "{warnings}"),
        }
    }
    assert_eq!(refer("slash", &["--exclude", "b"])["warnings"].as_array().unwrap().len(), 0);
    world.ok(&["get", "r/odd", "--root", "odd"]);
    assert_eq!(fs::read(world.path("odd/ü %20~#")).unwrap(), b"x");
    assert_eq!(fs::read(world.path("odd/=61")).unwrap(), b"x");
    let named = ["put", "-n", "r/named", "--reference", "one=s3://b/both/a"];
    assert_eq!(world.json(&named)["external"], 1);
}

#[test]
fn an_object_without_a_tag_is_recorded_only_without_a_checksum() {
    let bucket = Bucket::start();
    let mut world = World::new();
    world.env = bucket.environment();
    bucket.untag();
    bucket.put("b/d/f", b"AAAA");
    let refused = world.run(&["put", "-n", "p/a", "--reference", "s3://b/d/"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("s3://b/d/f") && refused.err.contains("--no-checksum"));
    world.ok(&["put", "-n", "p/a", "--no-checksum", "--reference", "s3://b/d/"]);
}

#[test]
fn a_prefix_is_taken_literally_and_old_urls_keep_their_keys() {
    let bucket = Bucket::start();
    let mut world = World::new();
    world.env = bucket.environment();
    for (n, prefix) in ["pre fix", "pre%20fix", "ü/~x"].into_iter().enumerate() {
        let (repo, store) = (format!("repo{n}"), format!("s3://b/{prefix}"));
        world.ok(&["init", &repo, "--store", &store]);
        let source = world.tree("src", &[("f", prefix.as_bytes())]);
        ok_in(&world, &repo, &["put", "-n", "p/a", source.to_str().unwrap()]);
        let begin = format!("b/{prefix}/packs/");
        assert!(bucket.keys().iter().any(|key| key.starts_with(&begin)), "{:?}", bucket.keys());
    }
    for url in ["s3://b/exp#1", "s3://b/x?y", "s3://b/x/../y"] {
        assert_eq!(world.run(&["init", "no", "--store", url]).code, 2, "{url}");
    }
    // An earlier release wrote the URL percent-encoded, and encoded the keys once more.
    world.ok(&["init", "old", "--store", "s3://b/old%2520x"]);
    let source = world.tree("src", &[("f", b"old")]);
    ok_in(&world, "old", &["put", "-n", "p/a", source.to_str().unwrap()]);
    let path = world.path("old/repository.json");
    let mut settings: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    settings.as_object_mut().unwrap().remove("literal_prefix").unwrap();
    settings["store"] = "s3://b/old%20x".into();
    fs::write(&path, settings.to_string()).unwrap();
    ok_in(&world, "old", &["get", "p/a", "--root", "out"]);
    assert_eq!(fs::read(world.path("out/f")).unwrap(), b"old");
}

#[test]
fn secrets_are_not_kept_in_a_repository() {
    let bucket = Bucket::start();
    let mut world = World::new();
    world.env = bucket.environment();
    for option in
        ["aws_sse_customer_key_base64=aHVudGVyMg", "proxy_url=http://me:aHVudGVyMg@proxy:3128"]
    {
        let args = ["init", "other", "--store", "s3://b/x", "--store-option", option];
        let refused = world.run(&args);
        assert_eq!(refused.code, 2, "{}", refused.err);
        assert!(refused.err.contains("environment"), "{}", refused.err);
        assert!(!refused.err.contains("aHVudGVyMg"), "{}", refused.err);
        assert!(!world.path("other/repository.json").exists());
    }
}

#[test]
fn a_store_that_is_being_moved_is_not_mounted() {
    let bucket = Bucket::start();
    let mut world = World::new();
    world.env = bucket.environment();
    let source = world.tree("src", &[("f", b"one")]);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    bucket.hang(Some("PUT /b/x/artifactfs.json"));
    let mut moves = world.start(&["copy-store", "file:store", "s3://b/x", "--use"]);
    until("the store is about to be moved", || bucket.count("PUT /b/x/artifactfs.json") > 0);
    for name in ["mnt", "staging"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    let refused = world.run(&["mount", "--staging", "staging", "mnt"]);
    assert_eq!(refused.code, 11, "{}", refused.err);
    assert!(refused.err.contains("copy-store"), "{}", refused.err);
    bucket.hang(None);
    assert!(moves.wait().unwrap().success());
    let (read, _) = world.mount();
    assert_eq!(fs::read(read.join("p/a:v0/f")).unwrap(), b"one");
    world.umount();
    world.sound();
}
