//! Stores in clouds, on real servers on loopback. `tests/stores.sh` starts them, and lists them in
//! the file `$ARTIFACTFS_TEST_STORES`: a name, a URL and options on each line.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../it/contracts/store.rs"]
mod contract;
mod external;
mod journeys;
#[allow(dead_code)]
#[path = "../it/serving.rs"]
mod serving;
#[allow(dead_code)]
#[path = "../it/world.rs"]
mod world;

use std::fs;

/// A store to test.
pub struct Place {
    pub name: String,
    pub url: String,
    pub options: Vec<(String, String)>,
}

impl Place {
    /// Returns its options as the command line takes them.
    pub fn arguments(&self) -> Vec<String> {
        self.options
            .iter()
            .flat_map(|(k, v)| ["--store-option".into(), format!("{k}={v}")])
            .collect()
    }

    /// Returns the URL of a prefix that no other use has.
    pub fn below(&self, prefix: &str) -> String {
        let nanos = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        format!("{}/{prefix}-{nanos}", self.url)
    }
}

/// Returns all stores to test. The list must not be empty.
pub fn places() -> Vec<Place> {
    let file = std::env::var("ARTIFACTFS_TEST_STORES").expect("tests/stores.sh runs these tests");
    let text = fs::read_to_string(file).unwrap();
    let parse = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (name, url) = (words.next().unwrap(), words.next().unwrap());
        let pair = |word: String| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Place { name, url, options: words.map(|word| pair(word).unwrap()).collect() }
    };
    let places: Vec<_> = text.lines().map(parse).collect();
    assert!(places.len() >= 3, "S3, Google and Azure are tested");
    places
}

#[test]
fn every_cloud_keeps_the_contract_of_a_store() {
    for place in places() {
        eprintln!("{}", place.name);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let url = place.below("contract");
        contract::keeps_its_promises(&url, &place.options, dir.path(), 1);
    }
}

#[test]
fn a_prefix_may_have_any_characters() {
    for place in places() {
        eprintln!("{}", place.name);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let url = place.below("pre fix %20 ü~+&=");
        contract::keeps_its_promises(&url, &place.options, dir.path(), 1);
    }
}

/// Makes a repository to be served, with its store inside.
fn fresh_repository() -> world::World {
    world::World::new()
}
