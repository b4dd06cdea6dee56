//! Filters that select versions, and changes of many versions at once.

use serde_json::json;

use super::properties::{put_text, refused};
use crate::world::World;

/// Makes five versions of three artifacts.
fn several() -> World {
    let world = World::new();
    let model = |lr: &str| format!("{{\"lr\": {lr}, \"of\": {{\"run\": \"x\"}}}}");
    for (n, lr) in ["0.1", "0.01", "0.001"].iter().enumerate() {
        put_text(&world, "p/net", &n.to_string(), &["-t", "model", "--metadata", &model(lr)]);
    }
    put_text(&world, "p/other", "o", &["-t", "model", "-a", "best"]);
    put_text(&world, "q/data", "d", &["--tag", "raw"]);
    world
}

#[test]
fn filters_choose_versions_everywhere() {
    let world = several();
    let listed = |args: &[&str]| -> Vec<String> {
        let all = world.json(&[&["ls"], args].concat());
        let all = all.as_array().unwrap().clone();
        all.iter().map(|one| one["reference"].as_str().unwrap().to_owned()).collect()
    };
    let models = ["p/net:v0", "p/net:v1", "p/net:v2", "p/other:v0"];
    assert_eq!(listed(&["--filter", "type=model"]), models);
    assert_eq!(listed(&["p", "--filter", "name=*"]), models);
    assert_eq!(listed(&["p/net", "--filter", "metadata.lr<0.1"]), models[1..3]);
    let both = ["p", "--filter", "metadata.lr<=0.01", "--filter", "metadata.of.run=x"];
    assert_eq!(listed(&both), models[1..3]);
    assert_eq!(listed(&["p", "--filter", "alias=latest", "--filter", "name=n*"]), [models[2]]);
    assert_eq!(listed(&["--filter", "tag=raw"]), ["q/data:v0"]);
    assert_eq!(listed(&["--filter", "created<1h"]).len(), 5);
    assert!(listed(&["--filter", "created>1h"]).is_empty());
    world.ok(&["update", "p/net:v1", "--ttl", "3d"]);
    assert_eq!(listed(&["p", "--filter", "expires<4d"]), [models[1]]);
    assert!(listed(&["p", "--filter", "expires<2d"]).is_empty());
    refused(&world.run(&["ls", "none", "--filter", "type=model"]), 10, &["no project none"]);
    for (bad, word) in [("type", "condition"), ("size=3", "do not have"), ("type<a", "= or !=")] {
        refused(&world.run(&["ls", "p", "--filter", bad]), 2, &[word, "hint"]);
    }
    refused(&world.run(&["ls", "p/net:v0", "--tag", "raw"]), 2, &["files have no tags"]);
    refused(&world.run(&["ls", "--tag", "a/b"]), 3, &["tag"]);
}

#[test]
fn many_versions_are_updated_at_once() {
    let world = several();
    let tags = |reference: &str| world.json(&["show", reference])["tags"].clone();
    let done = world.json(&["update", "p/net:v0", "p/other:best", "p/other", "--tag", "t"]);
    let both = json!(["p/net:v0", "p/other:v0"]);
    assert_eq!(done, json!({ "changed": both, "left": [], "dry_run": false }));
    assert_eq!((tags("p/net:v0"), tags("p/net:v1")), (json!(["t"]), json!([])));
    let chosen = ["--in", "p", "--filter", "type=model", "--filter", "metadata.lr<0.1"];
    let update = [&["update", "--ttl", "30d", "--set", "k=1"], &chosen[..]].concat();
    let dry = world.json(&[&update[..], &["--dry-run"]].concat());
    assert_eq!(dry["changed"], json!(["p/net:v1", "p/net:v2"]));
    assert_eq!(world.json(&["show", "p/net:v1"])["ttl"], "inherit", "nothing was changed yet");
    for _ in 0..2 {
        let mut done = world.json(&update);
        done["dry_run"] = json!(true);
        assert_eq!(done, dry);
    }
    let shown = world.json(&["show", "p/net:v2"]);
    assert_eq!((&shown["ttl"], &shown["metadata"]["k"]), (&json!("30d"), &json!(1)));
    // An unknown name fails before anything is changed.
    let unknown = world.run(&["update", "p/net:v1", "p/net:v9", "--tag", "u"]);
    refused(&unknown, 10, &["no version v9"]);
    assert_eq!(tags("p/net:v1"), json!([]));
    // A version that cannot be changed stops the command, which reports what was done.
    let many: Vec<_> = (0..100).map(|n| format!("--tag=n{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    world.ok(&[&["update", "p/net:v1"], &many[..]].concat());
    let update = ["--json", "update", "--in", "p/net", "--filter", "name=*", "--tag", "w"];
    let stopped = world.run(&update);
    refused(&stopped, 2, &["101 tags; the most is 100"]);
    let told: serde_json::Value = serde_json::from_str(&stopped.out).unwrap();
    assert_eq!(told["changed"], json!(["p/net:v0"]));
    assert_eq!(told["left"], json!(["p/net:v1", "p/net:v2"]));
    world.ok(&["update", "p/net:v1", "--untag", "n0"]);
    let again = world.json(&update[1..]);
    assert_eq!(again["changed"], json!(["p/net:v0", "p/net:v1", "p/net:v2"]));
    assert_eq!(tags("p/net:v0"), json!(["t", "w"]));
    let none = world.json(&["update", "--in", "p", "--filter", "tag=none", "--tag", "x"]);
    assert_eq!(none["changed"], json!([]));
    let two = world.json(&["update", "--artifact", "p/net", "--artifact", "p/other", "--tag", "y"]);
    assert_eq!((&two[0]["tags"], &two[1]["artifact"]), (&json!(["y"]), &json!("p/other")));
}

#[test]
fn many_versions_get_and_lose_an_alias_at_once() {
    let world = several();
    let number = |reference: &str| world.json(&["show", reference])["version"].clone();
    let bulk = |args: &[&str]| world.json(&[&["alias"], args].concat())["changed"].clone();
    let done = bulk(&["add", "-r", "p/net:v1", "-r", "q/data", "good", "checked"]);
    assert_eq!(done, json!(["p/net:v1", "q/data:v0"]));
    assert_eq!((number("p/net:checked"), number("q/data:good")), (json!("v1"), json!("v0")));
    // An alias is on one version of an artifact: nothing is changed.
    let two = world.run(&["alias", "add", "-r", "p/other", "-r", "p/net:v0", "-r", "p/net", "z"]);
    refused(&two, 2, &["more than one version of p/net"]);
    let two = world.run(&["alias", "set", "--in", "p", "--filter", "type=model", "z"]);
    refused(&two, 2, &["more than one version of p/net"]);
    assert_eq!(world.run(&["show", "p/other:z"]).code, 10);
    let newest = ["--in", "p", "--filter", "alias=latest"];
    let dry = bulk(&[&["add", "--dry-run"], &newest[..], &["released"]].concat());
    assert_eq!(world.run(&["show", "p/net:released"]).code, 10);
    assert_eq!(bulk(&[&["add"], &newest[..], &["released"]].concat()), dry);
    assert_eq!(dry, json!(["p/net:v2", "p/other:v0"]));
    assert_eq!(number("p/net:released"), "v2");
    // Removing aliases that some versions lack is harmless, also a second time.
    for _ in 0..2 {
        bulk(&["rm", "--in", "p", "--filter", "type=model", "good", "released"]);
        assert_eq!(world.run(&["show", "p/net:good"]).code, 10);
        assert_eq!(number("p/net:checked"), "v1");
        assert_eq!(number("q/data:good"), "v0");
    }
    world.ok(&["alias", "set", "-r", "p/net:v0", "-r", "p/other:v0", "only"]);
    assert_eq!(world.json(&["show", "p/other:only"])["aliases"], json!(["only"]));
    // With a single reference, an alias that is not there is an error.
    refused(&world.run(&["alias", "rm", "p/net:v0", "never"]), 10, &["no alias never"]);
    refused(&world.run(&["alias", "add", "p/net:v0"]), 2, &["no alias is named"]);
}

#[test]
fn invalid_properties_are_refused() {
    let world = several();
    let source = world.path("src");
    let source = source.to_str().unwrap();
    for bad in ["-1d", "0s", "1d ago", "soon", "101y", "", "30"] {
        let ran = world.run(&["put", "-n", "p/new", "--ttl", bad, source]);
        refused(&ran, 2, &["duration", "never, or inherit"]);
        refused(&world.run(&["update", "p/net", "--ttl", bad]), 2, &["duration"]);
    }
    assert_eq!(world.run(&["show", "p/new"]).code, 10, "nothing was put");
    let inherit = ["update", "--artifact", "p/net", "--ttl", "inherit"];
    refused(&world.run(&inherit), 2, &["inherits no time"]);
    refused(&world.run(&["update", "--artifact", "p/net"]), 2, &["nothing to update"]);
    refused(&world.run(&["update", "--artifact", "p/none", "--tag", "x"]), 10, &["p/none"]);
    refused(&world.run(&["update", "--tag", "x"]), 2, &["no version is named"]);
    refused(&world.run(&["update", "--in", "p", "--tag", "x"]), 2, &["--filter"]);
    refused(&world.run(&["update", "--filter", "tag=y", "--tag", "x"]), 2, &["--in"]);
    let both = ["update", "p/net", "--in", "p", "--filter", "tag=y", "--tag", "x"];
    refused(&world.run(&both), 2, &["cannot be used with"]);
    refused(&world.run(&["put", "-n", "p/net", "--tag", "a:b", source]), 3, &["tag"]);
}
